"""Sparse attention against dense attention, and against the plain meaning of a plan."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_CONFIG, make_views_matter
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.model import attend, merge, sparse
from vggt_edge.model.layers import Block
from vggt_edge.model.rope import rotary_tables
from vggt_edge.model.vggt import VGGT
from vggt_edge.sparse_plan import LayerPlan, SparsePlan, dense_plan, kept_tokens, merge_roles
from vggt_edge.sparsity import Sparsity
from vggt_edge.train.initialize import initialize
from vggt_edge.types import TokenLayout

VIEWS, DEPTH = 6, TINY_CONFIG.depth
HEADS = ("camera", "depth")


@pytest.fixture(scope="module")
def model() -> VGGT:
    config = dataclasses.replace(TINY_CONFIG, heads=HEADS)
    return make_views_matter(initialize(VGGT(config), seed=1).eval().requires_grad_(False))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(1, VIEWS, 3, 42, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dense(model, images):
    return model(images)


def same(a, b, tolerance: float = 1e-5) -> bool:
    pairs = ((a.pose_enc, b.pose_enc), (a.depth, b.depth), (a.depth_conf, b.depth_conf))
    return all(((x - y).abs().max() / y.abs().max()).item() < tolerance for x, y in pairs)


EVERYTHING = {
    "all": dense_plan(VIEWS, DEPTH),
    "all without own": SparsePlan(VIEWS, (LayerPlan(own=False),) * DEPTH),
    "whole first view": SparsePlan(VIEWS, (LayerPlan(first=True),) * DEPTH),
    "all are anchors": Sparsity("anchors", split=(0, 0)).plan(VIEWS, DEPTH, anchors=range(VIEWS)),
    "all are neighbours": Sparsity("covisible").plan(
        VIEWS, DEPTH, neighbours=[range(VIEWS)] * VIEWS
    ),
    "nothing is merged": Sparsity("merge", merged=0.0).plan(VIEWS, DEPTH),
    "dense by its size": Sparsity("auto", anchors=3).plan(VIEWS, DEPTH),
}


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_views_that_see_everything_are_dense(model, images, dense, name, chunk):
    assert same(model(images, chunk=chunk, plan=EVERYTHING[name]), dense)


RING = [sorted({i, (i + 1) % VIEWS}) for i in range(VIEWS)]
LESS = {
    "anchors": Sparsity("anchors").plan(VIEWS, DEPTH, anchors=[0, 3]),
    "anchors whole": Sparsity("anchors", split=(0, 0)).plan(VIEWS, DEPTH, anchors=[0, 2, 3, 4, 5]),
    "covisible": Sparsity("covisible").plan(VIEWS, DEPTH, neighbours=RING),
    "both": Sparsity("covisible+anchors").plan(VIEWS, DEPTH, neighbours=RING, anchors=[0, 3]),
    "avggt": Sparsity("avggt", stride=2).plan(VIEWS, DEPTH),
    "merge": Sparsity("merge", merged=0.5).plan(VIEWS, DEPTH),
    "auto": Sparsity("auto", anchors=2).plan(VIEWS, DEPTH, anchors=[0, 3]),
}


@pytest.mark.parametrize("name", LESS)
def test_views_that_see_less_are_not_dense(model, images, dense, name):
    output = model(images, plan=LESS[name])
    assert output.depth.isfinite().all()
    assert not same(output, dense, 1e-3)


@pytest.mark.parametrize("name", LESS)
@pytest.mark.parametrize("at_once", [1, 1 << 13])
def test_chunks_change_nothing(model, images, name, at_once, monkeypatch):
    monkeypatch.setattr(attend, "KEYS_AT_ONCE", at_once)
    whole = model(images, plan=LESS[name])
    assert all(same(model(images, chunk=n, dense_chunk=n, plan=LESS[name]), whole) for n in (1, 4))


def masked(block: Block, x: torch.Tensor, tables, plan: SparsePlan, layer: LayerPlan, layout):
    """The meaning of a plan, by a mask over all scores, which the executor must never hold."""
    seen = torch.zeros(plan.views, layout.per_view, plan.views, layout.per_view, dtype=torch.bool)
    kept = torch.from_numpy(kept_tokens(layout, layer.stride))
    for view in range(plan.views):
        for key in plan.key_views(layer, view):
            seen[view, :, key, kept] = True
            if layer.keys == "frame" or (layer.first and key == 0):
                seen[view, :, key] = True
        if layer.own:
            seen[view, :, view] = True
    mask = seen.flatten(2).flatten(0, 1)
    normed = block.norm1(x)
    q, (k, v) = block.attn.queries(normed, tables), block.attn.keys_values(normed, tables)
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x = x + block.ls1(block.attn.merge(found).view_as(x))
    return x + block.ls2(block.mlp(block.norm2(x)))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_executor_does_what_a_mask_would(data):
    torch.manual_seed(0)
    draw = data.draw
    views, rows, cols = (draw(st.integers(1, n)) for n in (5, 4, 4))
    kind = draw(st.sampled_from(["all", "frame", "anchors", "neighbours"]))
    layer = LayerPlan(
        kind,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        own=draw(st.booleans()),
        first=kind == "all" and draw(st.booleans()),
    )
    some = st.lists(st.integers(0, views - 1), min_size=1, unique=True).map(sorted).map(tuple)
    lists = tuple(draw(some) for _ in range(views))
    plan = SparsePlan(views, (layer,), anchors=draw(some), neighbours=lists)
    layout = TokenLayout(views, 3, rows, cols)
    block = Block(16, 2, scale=1.0, qk_norm=True).requires_grad_(False)
    tables = rotary_tables(layout, 8)
    x = torch.randn(1, views, layout.per_view, 16)
    expected = masked(block, x, tables, plan, layer, layout)
    reach = sparse.Reach(plan, layout)
    sparse.update(block, x, tables, draw(st.integers(1, 6)), layer, reach, "global.0")
    assert torch.allclose(x, expected, atol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("at_once", [1, 1 << 13])
def test_views_after_the_anchors_find_what_they_would_have_found(
    model, images, step, at_once, monkeypatch
):
    monkeypatch.setattr(attend, "KEYS_AT_ONCE", at_once)
    anchors = [0, 2, 5]
    plan = Sparsity("anchors", stride=2).plan(VIEWS, DEPTH, anchors=anchors)
    assert plan.streams
    whole = model(images, plan=plan)
    cache = sparse.KeyCache()
    first = model(images[:, anchors], plan=plan.anchors_alone(), cache=cache)
    assert cache.filled
    assert same(first, type(first)(*(None if t is None else t[:, anchors] for t in plain(whole))))
    cache = sparse.KeyCache.from_tensors(cache.tensors())
    rest = [1, 3, 4]
    for start in range(0, len(rest), step):
        some = rest[start : start + step]
        output = model(images[:, some], plan=plan.others(len(some)), cache=cache)
        expected = type(output)(*(None if t is None else t[:, some] for t in plain(whole)))
        assert same(output, expected)


def plain(output):
    return output._replace(pose_enc_list=None)


def test_the_cache_grows_with_the_anchors_alone(model, images):
    plan = Sparsity("anchors").plan(VIEWS, DEPTH, anchors=[0, 2])
    cache = sparse.KeyCache()
    model(images[:, [0, 2]], plan=plan.anchors_alone(), cache=cache)
    size = sum(tensor.nbytes for tensor in cache.tensors().values())
    for views in (1, 3):
        model(images[:, :views], plan=plan.others(views), cache=cache)
        assert sum(tensor.nbytes for tensor in cache.tensors().values()) == size
    assert cache.nbytes >= size


def test_the_cache_is_kept_in_the_precision_of_the_weights(images):
    config = dataclasses.replace(TINY_CONFIG, heads=HEADS)
    network = initialize(VGGT(config), seed=1).eval().requires_grad_(False).to(torch.bfloat16)
    cache = sparse.KeyCache()
    plan = Sparsity("anchors").plan(VIEWS, DEPTH, anchors=[0, 2]).anchors_alone()
    network(images[:, [0, 2]], plan=plan, cache=cache)
    assert {tensor.dtype for tensor in cache.tensors().values()} == {torch.bfloat16}


def test_most_alike_tokens_are_merged_and_everybody_has_an_answer():
    layout = TokenLayout(3, 2, 4, 5)
    tokens = torch.randn(3 * layout.per_view, 8)
    roles = merge_roles(layout)
    together = sorted([*roles.targets, *roles.alone, *roles.sources])
    assert together == list(range(3 * layout.per_view))
    source, target = roles.sources[5], roles.targets[7]
    tokens[source] = 3 * tokens[target]
    for share in (1 / len(tokens), 0.2, 1.0):
        where = merge.destinations(tokens, share, layout)
        count = len(tokens) - min(len(roles.sources), round(share * len(tokens)))
        assert set(where.tolist()) == set(range(count))
        assert where[source] == where[target]


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_merged_tokens_are_averaged_and_share_the_answer(chunk):
    torch.manual_seed(0)
    layout = TokenLayout(3, 2, 4, 4)
    block = Block(16, 2, scale=1.0, qk_norm=True).requires_grad_(False)
    tables = rotary_tables(layout, 8)
    x = torch.randn(1, 3, layout.per_view, 16)
    normed = block.norm1(x)
    where = merge.destinations(normed.flatten(0, 2), 0.5, layout)
    triple = (block.attn.queries(normed, tables), *block.attn.keys_values(normed, tables))
    groups = [where == i for i in range(int(where.max()) + 1)]
    q, k, v = (torch.stack([t[:, :, g].mean(2) for g in groups], dim=2) for t in triple)
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v)[:, :, where]
    expected = x + block.ls1(block.attn.merge(seen).view_as(x))
    expected = expected + block.ls2(block.mlp(block.norm2(expected)))
    merge.update(block, x, tables, chunk, 0.5, layout)
    assert len(groups) < len(where)
    assert torch.allclose(x, expected, atol=1e-5)


def test_a_sparse_model_is_never_silently_dense(model, images, monkeypatch):
    monkeypatch.setattr(model, "sparsity", Sparsity("anchors"))
    with pytest.raises(ValueError, match="made sparse"):
        model(images)


@pytest.mark.parametrize("plan", [dense_plan(VIEWS + 1, DEPTH), dense_plan(VIEWS, DEPTH - 1)])
def test_a_plan_for_something_else_is_refused(model, images, plan):
    with pytest.raises(ValueError, match="does not fit"):
        model(images, plan=plan)


def test_many_scores_are_cut_by_hand(monkeypatch):
    q, k, v = (torch.randn(1, 2, n, 8) for n in (700, 300, 300))
    expected = attend.dense(q, k, v)
    monkeypatch.setattr(attend, "SCORES_AT_ONCE", 1000)
    calls = []
    whole = torch.nn.functional.scaled_dot_product_attention

    def counted(q, k, v):
        calls.append(q.shape[2])
        return whole(q, k, v)

    monkeypatch.setattr(attend.F, "scaled_dot_product_attention", counted)
    assert torch.allclose(attend.dense(q, k, v), expected, atol=1e-6)
    assert calls == [256, 256, 188]
