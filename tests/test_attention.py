from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vggt_edge import memory, retrieval
from vggt_edge.attention import make_sparse, needs_likeness, plan_for
from vggt_edge.errors import InputError
from vggt_edge.predict import predict
from vggt_edge.sparsity import MODES
from vggt_edge.types import Views

VIEWS = 7


@pytest.fixture
def views() -> Views:
    random = np.random.default_rng(3)
    return Views.from_images(random.integers(0, 256, (VIEWS, 28, 42, 3), dtype=np.uint8))


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("mode", MODES)
def test_one_line_makes_it_sparse_and_one_undoes_it(tiny_model, views, mode):
    before = predict(tiny_model, views).depth
    for block in tiny_model.aggregator.global_blocks:
        block.ls1.gamma.fill_(1.0)
    dense = predict(tiny_model, views).depth
    names = list(tiny_model.state_dict())
    assert make_sparse(tiny_model, mode, k=2, neighbours=2) is tiny_model
    sparse = predict(tiny_model, views).depth
    assert np.isfinite(sparse).all()
    assert np.array_equal(sparse, dense) == (mode == "dense")
    assert list(tiny_model.state_dict()) == names
    make_sparse(tiny_model, "dense")
    assert tiny_model.sparsity is None
    assert np.array_equal(predict(tiny_model, views).depth, dense)
    assert not np.array_equal(before, dense)


def test_enough_anchors_in_every_layer_are_dense(tiny_model, views):
    dense = predict(tiny_model, views)
    sparse = predict(make_sparse(tiny_model, "anchors", k=VIEWS, split=(0, 0)), views)
    assert np.abs(dense.depth - sparse.depth).max() < 1e-5 * dense.depth.max()


def test_half_precision(tiny_model, views):
    exact = predict(make_sparse(tiny_model, "anchors", k=2), views)
    half = predict(tiny_model.to(torch.bfloat16), views)
    assert np.allclose(half.depth, exact.depth, rtol=0.05, atol=0.02)


def test_a_second_network_can_tell_who_is_alike(tiny_model, views, monkeypatch):
    other = torch.nn.Linear(1, 1)
    asked = []

    def described(network, some, executor=None):
        asked.append(network)
        return unit(np.random.default_rng(0).normal(size=(len(some), 8)))

    monkeypatch.setattr(retrieval, "descriptors", described)
    names = list(tiny_model.state_dict())
    plan_for(make_sparse(tiny_model, "anchors", k=2, retrieval=other), views)
    assert list(tiny_model.state_dict()) == names
    plan_for(make_sparse(tiny_model, "anchors", k=2), views)
    assert asked == [other, tiny_model]


def test_anchors_are_far_points_and_the_first_view(tiny_model, views):
    groups = [0, 0, 0, 1, 1, 2, 2]
    descriptors = unit(np.eye(3)[groups] + 0.01 * np.random.default_rng(0).normal(size=(7, 3)))
    plan = plan_for(make_sparse(tiny_model, "anchors", k=3), views, descriptors=descriptors)
    assert plan.anchors[0] == 0
    assert sorted(groups[i] for i in plan.anchors) == [0, 1, 2]


def test_given_anchors_need_no_descriptors(tiny_model, views, monkeypatch):
    monkeypatch.setattr(retrieval, "descriptors", None)
    make_sparse(tiny_model, "anchors", k=2)
    assert plan_for(tiny_model, views, anchors=[5, 3]).anchors == (0, 3, 5)
    with pytest.raises(InputError, match="indices of the 7 views"):
        plan_for(tiny_model, views, anchors=[7])


def test_covisible_views_see_their_like_and_stay_connected(tiny_model, views):
    groups = [0, 0, 0, 0, 1, 1, 1]
    descriptors = unit(np.eye(2)[groups] + 0.02 * np.random.default_rng(0).normal(size=(7, 2)))
    make_sparse(tiny_model, "covisible", neighbours=2, threshold=0.9)
    plan = plan_for(tiny_model, views, descriptors=descriptors)
    crossing = [
        (i, j) for i, row in enumerate(plan.neighbours) for j in row if groups[i] != groups[j]
    ]
    assert len(crossing) == 2  # one edge, seen from both ends, is what connects them
    assert all(i not in row for i, row in enumerate(plan.neighbours))
    assert all(i in plan.neighbours[j] for i, row in enumerate(plan.neighbours) for j in row)
    make_sparse(tiny_model, "covisible+anchors", k=2, neighbours=2, threshold=0.9)
    both = plan_for(tiny_model, views, descriptors=descriptors)
    assert all({*row} >= {*both.anchors} for row in both.neighbours)


def test_only_modes_that_ask_who_is_alike_pay_for_it(tiny_model):
    asked = {mode: needs_likeness(make_sparse(tiny_model, mode, k=2), VIEWS) for mode in MODES}
    assert {mode for mode, yes in asked.items() if yes} == {
        "anchors",
        "covisible",
        "covisible+anchors",
        "auto",
    }
    assert not needs_likeness(make_sparse(tiny_model, "auto", k=9), VIEWS)


@pytest.mark.parametrize("mode", ["anchors", "avggt", "covisible", "merge"])
def test_the_estimate_knows_the_plan(tiny_model, views, mode):
    make_sparse(tiny_model, mode, k=2, neighbours=2)
    # Without dense heads, whose outputs would outweigh the aggregator.
    config, size = dataclasses.replace(tiny_model.config, heads=("camera",)), (518, 518)

    def estimate(plan, count):
        return memory.run_bytes(config, count, *size, 4, plan)

    many = [Views.from_images(np.zeros((n, 28, 42, 3), np.uint8)) for n in (20, 40)]
    descriptors = [unit(np.random.default_rng(0).normal(size=(n, 8))) for n in (20, 40)]
    plans = [
        plan_for(tiny_model, some, descriptors=d) for some, d in zip(many, descriptors, strict=True)
    ]
    growth = estimate(plans[1], 40) - estimate(plans[0], 20)
    dense = estimate(None, 40) - estimate(None, 20)
    if mode == "anchors":  # keys and values no longer grow
        keys = 2 * 20 * memory.tokens_per_view(config, *size) * config.width * 4
        assert growth == dense - keys
    else:
        assert growth > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("sparse",), "unknown attention mode"), (("anchors", {"k": 0}), "at least 1")]
    + [
        (
            ("anchors", {"striide": 2, "anchors": 3}),
            "unknown dials anchors, striide: use k, camera",
        ),
        (("auto", {"dense_up_to": -1}), "dense_up_to must be at least 0"),
    ],
)
def test_bad_arguments(tiny_model, arguments, message):
    mode, dials = arguments[0], arguments[1] if len(arguments) > 1 else {}
    with pytest.raises(InputError, match=message):
        make_sparse(tiny_model, mode, **dials)
