"""Recipes as text and as data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge.errors import RecipeError
from vggt_edge.recipe import BACKENDS, GROUPS, LayerRule, Recipe, Scheme

SCHEMES = st.one_of(
    st.just(None),
    st.just(Scheme(fp8=True)),
    st.builds(Scheme, st.just(8), st.sampled_from([8, 16]), st.none(), st.booleans()),
    st.builds(
        Scheme,
        st.just(4),
        st.sampled_from([4, 8, 16]),
        st.sampled_from([None, *GROUPS]),
        st.booleans(),
    ),
)
RULES = st.builds(LayerRule, st.from_regex(r"[a-z_.*?]{1,20}", fullmatch=True), SCHEMES)


@given(st.lists(RULES, min_size=1, max_size=5))
def test_text_and_data_give_back_the_same(rules):
    recipe = Recipe(rules)
    assert Recipe(recipe.name) == recipe
    assert Recipe.from_data(json.loads(json.dumps(recipe.to_data()))) == recipe
    assert set(recipe.runs_on) == set(BACKENDS)


def test_first_match_wins():
    recipe = Recipe("camera_head.*=float,*.mlp.*=w4a8-g32,*=w8a8")
    assert recipe.scheme_of("camera_head.trunk.0.mlp.fc1") is None
    assert recipe.scheme_of("aggregator.frame_blocks.0.mlp.fc1").name == "w4a8-g32"
    assert recipe.scheme_of("aggregator.frame_blocks.0.attn.qkv").name == "w8a8"
    assert Recipe("a.*=w8a8").scheme_of("b") is None


@pytest.mark.parametrize(
    "text, says",
    [
        ("w3a8", "unknown scheme"),
        ("", "unknown scheme"),
        ("w8a4", "fewer bits"),
        ("w8a8-g32", "groups are for 4-bit"),
        ("w4a8-g7", "groups of 16"),
        ("a=b=w8a9", "unknown scheme"),
    ],
)
def test_nonsense_is_named(text, says):
    with pytest.raises(RecipeError, match=says):
        Recipe(text)


@pytest.mark.parametrize("data", [None, 3, "w8a8", [1], [{"match": "*"}], []])
def test_bad_data_is_refused(data):
    with pytest.raises(RecipeError):
        Recipe.from_data(data)


def test_what_runs_where():
    assert Recipe("w8a8").runs_on["cpu"] == "real"
    assert Recipe("w4a4").runs_on["cuda"] == "simulated"
    assert Recipe("fp8").runs_on["litert"] == "no"
    assert Recipe("a=fp8,*=w8a8").runs_on["cpu"] == "simulated"
