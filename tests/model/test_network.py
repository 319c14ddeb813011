from __future__ import annotations

import dataclasses
import time

import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN, TINY_CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.checkpoint import expected_shapes
from vggt_edge.model import attend
from vggt_edge.model.config import PRESETS, VGGTConfig
from vggt_edge.model.layers import Block
from vggt_edge.model.rope import rotary_tables
from vggt_edge.model.vggt import VGGT
from vggt_edge.model.vit import resize_matrix
from vggt_edge.train.initialize import initialize
from vggt_edge.types import TokenLayout


def test_names_and_shapes_of_vggt_1b():
    expected_shapes(TINY_CONFIG)  # the first use of the meta device imports a lot
    begin = time.perf_counter()
    shapes = expected_shapes(VGGTConfig())
    seconds = time.perf_counter() - begin
    lines = (GOLDEN / "vggt_1b_tensors.txt").read_text().split()
    listed = {
        name: tuple(map(int, shape.split("x")))
        for name, shape in zip(lines[::2], lines[1::2], strict=True)
    }
    assert len(listed) == 1797
    assert shapes == listed
    assert seconds < 2


def test_heads_not_asked_for_are_not_built():
    model = VGGT(dataclasses.replace(TINY_CONFIG, heads=("depth",)))
    assert {name.split(".")[0] for name in model.state_dict()} == {"aggregator", "depth_head"}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 60), st.integers(2, 40))
def test_resize_matrix_is_antialiased_bicubic(out, size):
    x = torch.randn(1, 2, size, 3)
    expected = F.interpolate(x, size=(out, 3), mode="bicubic", antialias=True)
    ours = torch.einsum("os,bcsw->bcow", resize_matrix(out, size), x)
    assert torch.allclose(ours, expected, atol=2e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_chunked_block_equals_block(views, rows, cols, chunk):
    torch.manual_seed(0)
    block = Block(32, 4, scale=1.0, qk_norm=True).requires_grad_(False)
    layout = TokenLayout(views, 5, rows, cols)
    x = torch.randn(2, views, layout.per_view, 32)
    tables = rotary_tables(layout, 8)
    expected = block(x, tables)
    block.update(x, tables, chunk)
    assert torch.allclose(x, expected, atol=1e-5)


def test_rotary_positions_are_relative():
    """q . k after rotation depends on the difference of positions only."""
    layout = TokenLayout(1, 1, 4, 4)
    cos, sin = rotary_tables(layout, 8)
    from vggt_edge.model.rope import rotate

    q, k = torch.randn(8), torch.randn(8)
    at = lambda r, c: 1 + r * 4 + c  # noqa: E731
    score = lambda i, j: rotate(q, cos[i], sin[i]) @ rotate(k, cos[j], sin[j])  # noqa: E731
    assert torch.allclose(score(at(0, 0), at(1, 2)), score(at(2, 1), at(3, 3)), atol=1e-5)
    assert torch.equal(cos[0], torch.ones(8))


def test_views_of_a_frame_block_do_not_see_each_other(tiny_model):
    images = torch.rand(1, 3, 3, 28, 42)
    aggregator = tiny_model.aggregator
    changed = images.clone()
    changed[:, 2] = 0
    before, after = aggregator(images)[0].frame, aggregator(changed)[0].frame
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(tiny_model, dtype):
    images = torch.rand(1, 2, 3, 28, 42)
    exact = tiny_model(images)
    half = tiny_model.to(dtype)(images, chunk=1)
    assert half.depth.dtype == torch.float32
    assert torch.allclose(half.depth, exact.depth, rtol=0.05, atol=0.02)
    assert torch.allclose(half.pose_enc, exact.pose_enc, atol=0.05)


def test_exports_without_data_dependence(tiny_model):
    images = torch.rand(1, 2, 3, 28, 42)
    program = torch.export.export(tiny_model, (images,), strict=True)
    ours, exported = tiny_model(images), program.module()(images)
    assert torch.allclose(ours.depth, exported.depth, atol=1e-5)
    assert torch.allclose(ours.pose_enc, exported.pose_enc, atol=1e-5)


def test_query_points_are_tracked(tiny_model):
    images = torch.rand(1, 3, 3, 28, 42)
    query = torch.tensor([[[5.0, 6.0], [20.0, 13.0]]])
    output = tiny_model(images, query)
    assert output.track.shape == (1, 3, 2, 2)
    assert torch.allclose(output.track[:, 0], query)
    assert output.vis.shape == output.conf.shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 2, 3, 28, 43), "28x43"), ((2, 3, 28, 42), "B, S, 3, H, W"), ((1, 2, 4, 28, 42), "3, H")],
)
def test_bad_images_are_named(tiny_model, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(torch.rand(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"heads": ("camera", "wings")},
        {"taps": (0, 1, 2)},
        {"taps": (0, 1, 2, 5)},
        {"width": 30},
        {"image_size": 71},
    ],
)
def test_impossible_configs_are_refused(change):
    with pytest.raises(ValueError):
        dataclasses.replace(TINY_CONFIG, **change)


def test_config_round_trip():
    for config in (*PRESETS.values(), TINY_CONFIG):
        assert VGGTConfig.from_dict(config.to_dict()) == config


def test_initialisation_is_deterministic():
    a, b = (initialize(VGGT(TINY_CONFIG), seed=3).state_dict() for _ in range(2))
    # The one part drawn before initialize() replaces it is the tracker, which it leaves to torch.
    assert all(torch.equal(a[k], b[k]) for k in a if "tracker" not in k)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_attention_with_gradients_equals_the_librarys(monkeypatch, dtype, tolerance):
    """Training on a CPU goes another way, to the same output and gradients."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 20, 16, generator=generator) for _ in range(4)]
    found = {}
    for limit in (attend.SCORES_TO_KEEP, 0):
        monkeypatch.setattr(attend, "SCORES_TO_KEEP", limit)
        q, k, v = (x.to(dtype).requires_grad_() for x in inputs[:3])
        seen = attend.dense(q, k, v)
        seen.backward(inputs[3].to(dtype))
        found[limit] = [seen.detach(), q.grad, k.grad, v.grad]
    for ours, theirs in zip(*found.values(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=tolerance, rtol=tolerance)
