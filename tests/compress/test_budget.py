"""Mixed recipes under a budget: optimal, kept by the file, measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sensitivity import CONFIG, make_cases

from vggt_edge import weights
from vggt_edge.compress import budget
from vggt_edge.compress.budget import Choices, Frontier, parse_bytes, recipe_of, sizes_of
from vggt_edge.compress.compress import compress
from vggt_edge.compress.fit import fit_recipe
from vggt_edge.compress.scan import scan
from vggt_edge.errors import RecipeError
from vggt_edge.model.vggt import VGGT
from vggt_edge.recipe import Recipe
from vggt_edge.train.initialize import initialize


def make_model() -> VGGT:
    network = initialize(VGGT(CONFIG), seed=3).eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        if name.endswith("gamma"):
            tensor.fill_(0.5)
    return network


def rounded(recipe: Recipe | str) -> VGGT:
    network = make_model()
    compress(network, recipe, method="nearest")
    return network


@pytest.fixture(scope="module")
def model() -> VGGT:
    return make_model()


@pytest.fixture(scope="module")
def sensitivity(model):
    return scan(model, make_cases(), ("w4a8-g32", "w8a8"), kinds=("block",))


@pytest.mark.parametrize(
    ("text", "count"),
    [("600MB", 600_000_000), ("1.2 GB", 1_200_000_000), ("700MiB", 734_003_200), ("12", 12)],
)
def test_sizes_in_words(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "many", "600 PB", "-3MB", "6e2MB"])
def test_no_sizes(text):
    with pytest.raises(RecipeError, match="is no size"):
        parse_bytes(text)


option = st.tuples(st.integers(1, 40), st.floats(0, 5))
units = st.lists(st.lists(option, min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(units, st.integers(0, 200))
def test_no_recipe_beats_the_frontier(options, limit):
    frontier = Frontier(
        [
            Choices(
                str(i), tuple(map(str, range(len(one)))), *map(np.array, zip(*one, strict=True))
            )
            for i, one in enumerate(options)
        ]
    )
    all_sums = [
        (sum(b for b, _ in chosen), sum(c for _, c in chosen))
        for chosen in itertools.product(*options)
    ]
    fitting = [cost for size, cost in all_sums if size <= limit]
    state = int(np.searchsorted(frontier.bytes, limit, side="right")) - 1
    assert (state >= 0) == bool(fitting)
    if fitting:
        assert frontier.cost[state] == pytest.approx(min(fitting))
        chosen = [
            one[int(name)] for one, name in zip(options, frontier[state].values(), strict=True)
        ]
        assert sum(b for b, _ in chosen) == frontier.bytes[state]
        assert sum(c for _, c in chosen) == pytest.approx(frontier.cost[state])


def test_thinning_keeps_the_ends(monkeypatch):
    monkeypatch.setattr(budget, "MOST_STATES", 50)
    random = np.random.default_rng(0)
    choices = [
        Choices(str(i), ("a", "b"), random.integers(1, 10**6, 2), random.random(2))
        for i in range(20)
    ]
    frontier = Frontier(choices)
    assert len(frontier) <= 50
    assert frontier.bytes[0] == sum(one.bytes.min() for one in choices)
    assert frontier.cost[-1] == pytest.approx(sum(one.cost.min() for one in choices))


def test_a_file_never_exceeds_its_estimate(model, tmp_path):
    sizes = sizes_of(model)
    for name in ("w4a8-g32", "w8a8", "aggregator.frame_blocks.1.*=w8a8,*=w4a8-g32"):
        packed = rounded(name)
        size = weights.save(packed, tmp_path / "m.safetensors").stat().st_size
        assert size <= sizes.total(Recipe(name)) < 1.15 * size + 20_000
    size = weights.save(model, tmp_path / "m.safetensors").stat().st_size
    assert size <= sizes.total(Recipe("float")) < 1.1 * size + 20_000
    half = rounded("w8a8").to(torch.float16)
    size = weights.save(half, tmp_path / "m.safetensors").stat().st_size
    sizes = sizes_of(model, floats=torch.float16)
    assert size <= sizes.total(Recipe("w8a8")) < 1.15 * size + 20_000


def chosen(sensitivity, sizes, budget_bytes, candidates=budget.CANDIDATES) -> Recipe:
    """As ``fit_recipe`` does before it measures."""
    frontier = Frontier(budget.choices_of(sensitivity, sizes, candidates))
    state = budget.state_under_budget(frontier, sizes.fixed, budget_bytes)
    return recipe_of(frontier[state], list(sizes.layers))


def test_more_bytes_less_damage(model, sensitivity):
    sizes = sizes_of(model)
    least, most = sizes.total(Recipe("w4a8-g32")), sizes.total(Recipe("float"))
    frontier = Frontier(budget.choices_of(sensitivity, sizes))
    seen = []
    for limit in np.linspace(least, most, 6).astype(int):
        recipe = chosen(sensitivity, sizes, budget_bytes=int(limit))
        assert sizes.total(recipe) <= limit
        state = budget.state_under_budget(frontier, sizes.fixed, int(limit))
        seen.append(frontier.cost[state])
        assert recipe == Recipe(recipe.name)
    assert seen == sorted(seen, reverse=True) and seen[-1] == 0
    assert chosen(sensitivity, sizes, budget_bytes=least) == Recipe("w4a8-g32")
    # Where compression costs nothing at all it is taken.
    assert sizes.total(chosen(sensitivity, sizes, budget_bytes=most)) <= most


def test_the_smallest_that_can_be_met_is_said(model, sensitivity):
    sizes = sizes_of(model)
    with pytest.raises(RecipeError, match="smallest file takes") as refused:
        chosen(sensitivity, sizes, budget_bytes=1000)
    least = parse_bytes(str(refused.value).rsplit(" ", 1)[-1])
    chosen(sensitivity, sizes, budget_bytes=least)
    with pytest.raises(RecipeError, match="smallest file takes"):
        fit_recipe(model, make_cases(), budget_bytes=1000)
    packed_only = ("w4a8-g32", "w8a8")
    with pytest.raises(RecipeError, match="the least is"):
        fit_recipe(model, make_cases(), max_drop=1e-9, candidates=packed_only)
    for limits in ({}, {"budget_bytes": 5, "max_drop": 1.0}, {"max_drop": 0.0}):
        with pytest.raises(RecipeError):
            fit_recipe(model, make_cases(), **limits)
    with pytest.raises(RecipeError, match="was not measured"):
        chosen(sensitivity, sizes, budget_bytes=10**9, candidates=("w4a4", "float"))
    with pytest.raises(RecipeError, match="as it is"):
        fit_recipe(model, make_cases(), budget_bytes=10**9)
    for candidates in (("float",), ()):
        with pytest.raises(RecipeError, match="nothing that compresses"):
            fit_recipe(model, make_cases(), max_drop=1.0, candidates=candidates)


def test_every_layer_gets_the_scheme_of_its_unit():
    chosen = {"a.0": "w8a8", "a.10": "w4a8-g32", "a.1": "w4a8-g32", "b.x": "float"}
    recipe = recipe_of(chosen, ["a.0.fc", "a.1.fc", "a.10.fc", "b.x"])
    names = {
        path: (scheme.name if (scheme := recipe.scheme_of(path)) else "float")
        for path in ("a.0.fc", "a.1.fc", "a.10.fc", "b.x")
    }
    assert names == {"a.0.fc": "w8a8", "a.1.fc": "w4a8-g32", "a.10.fc": "w4a8-g32", "b.x": "float"}
    assert len(recipe.rules) == 3


def test_fit_measures_the_whole_recipe(model, tmp_path):
    cases, file = make_cases(), tmp_path / "sensitivity.json"
    images = torch.rand(1, 2, 3, 28, 28)
    before = model(images).depth
    sizes = sizes_of(model)
    middle = (sizes.total(Recipe("w4a8-g32")) + sizes.total(Recipe("w8a8"))) // 2
    found = fit_recipe(model, cases, budget_bytes=middle, file=file)
    assert torch.equal(model(images).depth, before) and model.recipe is None
    packed = rounded(found.recipe)
    assert weights.save(packed, tmp_path / "m.safetensors").stat().st_size <= middle
    whole = fit_recipe(model, cases, budget_bytes=sizes.total(Recipe("w4a8-g32")), file=file)
    assert found.bytes > whole.bytes and found.predicted < whole.predicted
    loose = fit_recipe(model, cases, max_drop=whole.drop * 1.01, file=file)
    tight = fit_recipe(model, cases, max_drop=whole.drop / 3, file=file)
    assert loose.bytes == whole.bytes
    assert tight.drop <= whole.drop / 3 and tight.bytes > loose.bytes
    assert any("percent points measured" in line for line in tight.lines())
    assert Recipe.from_data(tight.to_data()["recipe"]) == tight.recipe


@pytest.mark.slow
def test_command(model, tmp_path, monkeypatch, capsys):
    import json
    import sys

    from PIL import Image

    from vggt_edge import cli

    random = np.random.default_rng(0)
    for i in range(4):
        pixels = random.integers(0, 256, (28, 42, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    file, out = weights.save(model, tmp_path / "m.safetensors"), tmp_path / "small.safetensors"

    def call(*arguments: object) -> tuple[int, dict, str]:
        command = ["vggt-edge", "compress", file, "-o", out, "--calibration", tmp_path / "photos"]
        command += ["--views", 2, "--size", 42, "--method", "nearest", "--json", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as done:
            cli.main()
        said = capsys.readouterr()
        code = done.value.code or 0
        return code, json.loads(said.out.splitlines()[-1]) if not code else {}, said.err

    sizes = sizes_of(model, floats=torch.float16)
    least, eight = sizes.total(Recipe("w4a8-g32")), sizes.total(Recipe("w8a8"))
    limit = (least + eight) // 2
    code, data, _ = call("--budget", f"{limit / 1e6}MB")
    assert code == 0 and data["bytes"] <= data["fit"]["bytes"] <= limit
    assert weights.load(out).recipe == Recipe.from_data(data["fit"]["recipe"])
    assert (tmp_path / "small.safetensors.sensitivity.json").exists()
    drop = data["fit"]["drop"]
    code, data, _ = call("--max-drop", drop * 0.7)
    assert code == 0 and data["fit"]["drop"] <= drop * 0.7
    code, _, error = call("--budget", "1kB")
    assert code == 2 and "smallest file takes" in error
    code, _, error = call("--budget", "1GB", "--recipe", "w8a8")
    assert code == 2 and "either" in error
    code, _, error = call("--budget", "much")
    assert code == 2 and "is no size" in error
