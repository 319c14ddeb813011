"""bf16 products and sums of our own against torch in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.kernels import build, halves
from vggt_edge.model.layers import Block, LayerScale, Linear

pytestmark = pytest.mark.skipif(
    not build.has("multiply_halves"), reason=build.reason() or "this CPU has no AVX512-BF16"
)


def random(*shape: int, seed: int = 0, dtype=torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(halves.LEAST_ROWS, 80),
    width=st.integers(1, 8).map(lambda n: 32 * n),
    columns=st.integers(1, 10).map(lambda n: 16 * n),
    bias=st.sampled_from([None, torch.float32, torch.bfloat16]),
    activate=st.booleans(),
    seed=st.integers(0, 100),
)
def test_products_equal_torch(rows, width, columns, bias, activate, seed):
    x, weight = random(rows, width, seed=seed), random(columns, width, seed=seed + 1)
    shift = None if bias is None else random(columns, seed=seed + 2, dtype=bias)
    assert halves.multiplies(x, weight)
    ours = halves.multiply(x, weight, shift, activate)
    exact = F.linear(x.double(), weight.double(), None if shift is None else shift.double())
    exact = F.gelu(exact) if activate else exact
    # One rounding to bf16 of a float32 sum.
    assert torch.allclose(ours.double(), exact, rtol=2**-8, atol=2e-5 * width**0.5)


def test_rows_and_weights_may_be_views():
    """A slice of the weights' rows and every second token, as ``outputs`` and callers cut them."""
    x, weight = random(3, 100, 64), random(96, 64, seed=1)
    ours = halves.multiply(x[:, ::2], weight[32:80], None)
    exact = x[:, ::2].float() @ weight[32:80].float().T
    assert ours.shape == (3, 50, 48)
    assert torch.allclose(ours.float(), exact, rtol=2**-7, atol=1e-3)


def test_what_does_not_suit_stays_with_torch():
    x, weight = random(64, 64), random(64, 64)
    assert halves.multiplies(x, weight)
    assert not halves.multiplies(x[:8], weight)  # few rows
    assert not halves.multiplies(x, weight.float())
    assert not halves.multiplies(x, weight[:9])
    assert not halves.multiplies(x[:, :48], weight[:, :48])
    assert not halves.multiplies(x, weight.t())
    assert not halves.multiplies(x, weight.clone().requires_grad_())
    with torch.no_grad():
        assert halves.multiplies(x, weight.clone().requires_grad_())


def test_a_layer_uses_them_and_agrees_with_itself():
    layer = Linear(64, 128)
    with torch.no_grad():
        x = random(1, 70, 64, dtype=torch.float32)
        exact = layer(x)
        layer.to(torch.bfloat16)
        assert halves.multiplies(x, layer.weight)
        assert torch.allclose(layer(x).float(), exact, rtol=0.02, atol=0.02)
        assert torch.allclose(layer.gelu(x).float(), F.gelu(exact), rtol=0.02, atol=0.02)
        assert torch.equal(layer.outputs(x, 64, 128), layer(x)[..., 64:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_with_gelu_is_seen_by_hooks(dtype):
    """Calibration watches layers by hooks, whatever precision the network is in."""
    layer, seen = Linear(64, 128).to(dtype).requires_grad_(False), []
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = random(1, 70, 64)
    layer.gelu(x)
    handle.remove()
    assert len(seen) == 1 and seen[0] is x


def test_residuals():
    scale = LayerScale(32, 0.3)
    x, y = random(5, 7, 32, dtype=torch.float32), random(5, 7, 32, seed=1)
    with torch.no_grad():
        exact = x + y.float() * scale.gamma
        assert halves.adds(x, y, scale.gamma)
        before = x.clone()
        assert torch.allclose(scale.add(x, y), exact, rtol=1e-6, atol=1e-6)
        assert torch.equal(x, before)
        # Not contiguous: torch does it, in the same place.
        part = x[:, ::2]
        assert not halves.adds(part, y[:, ::2], scale.gamma)
        scale.add_(part, y[:, ::2])
        assert torch.allclose(x[:, ::2], exact[:, ::2]) and torch.equal(x[:, 1::2], before[:, 1::2])
        scale.add_(before, y)
        assert torch.allclose(before, exact, rtol=1e-6, atol=1e-6)
    assert not halves.adds(x, y, scale.gamma)  # gradients are wanted


def test_gradients_flow_through_a_block():
    """Training in bf16 must never meet a kernel that has no gradient."""
    block = Block(64, 1, 0.1).to(torch.bfloat16)
    x = random(1, 2, 40, 64, dtype=torch.float32).requires_grad_()
    block(x).sum().backward()
    assert x.grad is not None and all(p.grad is not None for p in block.parameters())
