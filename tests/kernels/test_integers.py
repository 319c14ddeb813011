"""The kernels against the arithmetic they stand for, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.kernels import build, integers
from vggt_edge.model.quantized import rotate

pytestmark = pytest.mark.skipif(not build.available(), reason=build.reason() or "kernels")

SHAPES = st.tuples(
    st.integers(1, 20), st.sampled_from([64, 128, 192]), st.sampled_from([16, 48, 64, 80, 144])
)


def truth(rows, codes, multiplier, step, bias):
    weights = codes.double()
    if multiplier is not None:
        group = codes.shape[1] // multiplier.shape[1]
        weights = weights * multiplier.repeat_interleave(group, dim=1)
    x = rows.scale[:, None].double() * (rows.codes.double() - rows.zero[:, None])
    return x @ (weights * step[:, None]).T + bias


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from([4, 8]), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_products_are_exact(shape, bits, grouped, half, seed):
    count, width, columns = shape
    generator = torch.Generator().manual_seed(seed)
    high = 1 << (bits - 1)
    codes = torch.randint(-high, high, (columns, width), generator=generator, dtype=torch.int8)
    multiplier = None
    if bits == 4 and grouped:
        multiplier = torch.randint(1, 17, (columns, width // 32), generator=generator)
        multiplier = multiplier.to(torch.int8)
    step = torch.rand(columns, generator=generator) * 0.01
    bias = torch.randn(columns, generator=generator)
    x = torch.randn(count, width, generator=generator) * 3 + 1
    panels = integers.pack(codes, bits, step, bias, multiplier)
    unpacked, again = integers.unpack(panels, columns)
    assert torch.equal(unpacked, codes)
    assert (again is None and multiplier is None) or torch.equal(again, multiplier)
    rows = integers.quantize(x.bfloat16() if half else x, 8)
    expected = truth(rows, codes, multiplier, step, bias)
    scale = expected.abs().max()
    assert (integers.multiply(rows, panels, columns, torch.float32) - expected).abs().max() < (
        1e-5 * scale
    )
    low = integers.multiply(rows, panels, columns, torch.bfloat16)
    assert (low - expected).abs().max() < 0.005 * scale
    active = integers.multiply(rows, panels, columns, torch.float32, activate=True)
    assert torch.allclose(active.double(), torch.nn.functional.gelu(expected), atol=1e-5 * scale)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.sampled_from([8, 4]), st.floats(-5, 5), st.integers(0, 2**31))
def test_quantized_rows_are_within_half_a_step(count, bits, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 128, generator=generator) + offset
    gain = torch.rand(128, generator=generator) + 0.5
    rows = integers.quantize(x, bits, gain)
    back = rows.scale[:, None] * (rows.codes - rows.zero[:, None])
    # The zero point is rounded too: half a step each.
    assert ((back - x * gain).abs() <= rows.scale[:, None] * 1.01).all()
    assert torch.equal(rows.sums, 128 * rows.codes.sum(1, dtype=torch.int32))
    codes = rows.codes.int()
    assert codes.min() >= -(1 << (bits - 1)) and codes.max() < 1 << (bits - 1)


def test_clipping_narrows_the_range():
    x = torch.linspace(-1, 1, 64)[None]
    assert integers.quantize(x, 8, clip=0.5).scale[0] == pytest.approx(
        float(integers.quantize(x, 8).scale[0]) / 2, rel=1e-5
    )


def test_zero_rows_stay_zero():
    rows = integers.quantize(torch.zeros(3, 64), 8)
    assert not (rows.scale[:, None] * (rows.codes - rows.zero[:, None])).any()


@pytest.mark.parametrize("width", [64, 128, 192, 1024])
def test_rotation_in_place_equals_the_reference(width):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(5, width, generator=generator)
    signs = torch.randint(0, 2, (width,), generator=generator).float() * 2 - 1
    expected = rotate(x, signs)
    assert torch.allclose(expected.norm(dim=1), x.norm(dim=1), rtol=1e-5)
    block = width & -width
    assert torch.allclose(integers.rotate_(x.clone(), signs, block), expected, atol=1e-5)


def test_some_columns_alone():
    codes = torch.randint(-128, 128, (192, 64), dtype=torch.int8)
    panels = integers.pack(codes, 8, torch.rand(192), torch.rand(192), None)
    rows = integers.quantize(torch.randn(7, 64), 8)
    whole = integers.multiply(rows, panels, 192, torch.float32)
    part = integers.multiply(rows, panels.columns(64, 192), 128, torch.float32)
    assert torch.equal(whole[:, 64:], part)
