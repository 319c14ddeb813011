from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge.errors import InputError
from vggt_edge.model import attend
from vggt_edge.model.vggt import VGGT
from vggt_edge.sparse_plan import (
    LayerPlan,
    SparsePlan,
    attention_cost,
    dense_plan,
    kept_tokens,
)
from vggt_edge.sparsity import MODES, Sparsity
from vggt_edge.train.initialize import initialize
from vggt_edge.types import TokenLayout

FULL = TokenLayout(200, 5, 37, 28)


def plan_of(mode: str, views: int, depth: int, **dials) -> SparsePlan:
    sparsity = Sparsity(mode, **dials)
    anchors = np.linspace(0, views - 1, min(views, sparsity.anchors)).astype(int).tolist()
    near = [[j for j in range(views) if abs(i - j) <= 2] for i in range(views)]
    return sparsity.plan(views, depth, anchors=anchors, neighbours=near)


@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 24))
def test_a_plan_has_every_layer(mode, views, depth):
    plan = plan_of(mode, views, depth, anchors=4)
    assert plan.views == views and len(plan.layers) == depth


def test_the_published_split_at_vggt_1b_and_its_scaling():
    kinds = [(layer.keys, layer.stride) for layer in plan_of("anchors", 100, 24).layers]
    assert kinds[:2] == [("frame", (1, 1))] * 2
    assert kinds[2:9] == [("anchors", (3, 3))] * 7
    assert kinds[9:] == [("anchors", (1, 1))] * 15
    pocket = [(layer.keys, layer.stride) for layer in plan_of("anchors", 100, 5).layers]
    assert pocket == [("anchors", (3, 3))] * 2 + [("anchors", (1, 1))] * 3
    avggt = plan_of("avggt", 100, 24).layers
    assert [layer.keys for layer in avggt] == ["frame"] * 9 + ["all"] * 15


def test_auto_is_dense_while_that_is_small():
    sparsity = Sparsity("auto", anchors=10)
    assert [sparsity.mode_for(n) for n in (1, 20, 21)] == ["dense", "dense", "anchors"]


def test_only_plans_whose_keys_are_the_anchors_stream():
    streams = {mode: plan_of(mode, 100, 24).streams for mode in MODES}
    assert {mode for mode, yes in streams.items() if yes} == {"anchors", "auto"}
    assert not plan_of("anchors", 100, 24, camera="all").streams


def test_special_tokens_and_the_grid_are_kept():
    layout = TokenLayout(1, 2, 3, 4)
    assert kept_tokens(layout, (1, 1)).tolist() == list(range(14))
    assert kept_tokens(layout, (2, 3)).tolist() == [0, 1, 2, 5, 10, 13]


def test_cost_of_dense_is_the_formula():
    layout = FULL
    tokens = layout.views * layout.per_view
    cost = attention_cost(dense_plan(200, 24), layout, 1024, 2)
    assert cost.flops == pytest.approx(96 * 1024 * tokens**2)
    assert cost.key_bytes == 2 * (tokens + layout.per_view) * 1024 * 2


def test_anchors_save_eight_times_at_200_views_and_cost_is_linear():
    def flops(mode: str, views: int) -> float:
        return attention_cost(plan_of(mode, views, 24), FULL._replace(views=views), 1024).flops

    assert flops("dense", 200) / flops("anchors", 200) > 8
    # 25 of the views are anchors, whose own tokens are no further keys: all else is linear.
    steps = [flops("anchors", n + 100) - flops("anchors", n) for n in (100, 200, 900)]
    assert steps == pytest.approx([steps[0]] * 3)
    for mode in ("avggt", "merge", "covisible", "covisible+anchors"):
        assert flops(mode, 200) < flops("dense", 200) / 2


@pytest.mark.parametrize("mode", MODES)
def test_the_counter_counts_what_runs(mode, monkeypatch):
    """Scores that scaled_dot_product_attention is really asked for, beside those counted."""
    model = initialize(VGGT(TINY_CONFIG), seed=1).eval().requires_grad_(False)
    run = []
    whole = torch.nn.functional.scaled_dot_product_attention

    def counted(q, k, v):
        run.append(4 * q.shape[0] * q.shape[1] * q.shape[3] * q.shape[2] * k.shape[2])
        return whole(q, k, v)

    monkeypatch.setattr(
        attend, "F", SimpleNamespace(scaled_dot_product_attention=counted), raising=True
    )
    views, depth, width = 9, TINY_CONFIG.depth, TINY_CONFIG.width
    layout = TokenLayout(views, TINY_CONFIG.special_tokens, 4, 5)
    plan = plan_of(mode, views, depth, anchors=3, stride=2)
    model(torch.rand(1, views, 3, 56, 70), heads=("depth",), plan=plan)
    frames = depth * views * 4 * layout.per_view**2 * width
    encoder = TINY_CONFIG.encoder_depth * views * 4 * layout.per_view**2 * width
    cost = attention_cost(plan, layout, width).flops
    if mode == "merge":
        matching = attention_cost(plan, layout, width).flops
        assert sum(run) - frames - encoder < matching
    else:
        assert sum(run) - frames - encoder == cost


@pytest.mark.parametrize(
    "change",
    [
        {"anchors": (1, 0)},
        {"anchors": (0, 5)},
        {"layers": (LayerPlan("neighbours"),)},
        {"camera": LayerPlan("merge")},
    ],
)
def test_impossible_plans_are_refused(change):
    with pytest.raises(ValueError):
        SparsePlan(**{"views": 5, "layers": (LayerPlan(),), **change})


@pytest.mark.parametrize(
    "change",
    [{"keys": "some"}, {"stride": (0, 1)}, {"merged": 2.0}, {"keys": "frame", "first": True}],
)
def test_impossible_layers_are_refused(change):
    with pytest.raises(ValueError):
        LayerPlan(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sparse"}, "unknown attention mode 'sparse': use dense"),
        ({"anchors": 0}, "anchors must be at least 1"),
        ({"anchors": 2.5}, "anchors must be a whole number, got 2.5"),
        ({"neighbours": "many"}, "neighbours must be a whole number, got 'many'"),
        ({"dense_up_to": -1}, "dense_up_to must be at least 0, got -1"),
        ({"dense_up_to": float("nan")}, "dense_up_to must be a whole number"),
        ({"threshold": float("nan")}, r"threshold must be a cosine in \[-1, 1\], got nan"),
        ({"threshold": 1.5}, "threshold must be a cosine"),
        ({"threshold": None}, "threshold must be a cosine"),
        ({"split": (0.5, 0.2)}, "increasing shares"),
        ({"split": (0.1,)}, r"increasing shares .*, got \(0.1,\)"),
        ({"split": (0.1, float("nan"))}, "increasing shares"),
        ({"split": 0.1}, "increasing shares"),
        ({"split": "ab"}, "increasing shares"),
        ({"merged": float("nan")}, "merged"),
        ({"merged": -1.0}, "merged"),
        ({"camera": "none"}, "camera"),
    ],
)
def test_impossible_dials_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Sparsity(**change)
