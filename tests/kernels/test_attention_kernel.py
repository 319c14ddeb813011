"""Attention and rotary positions of the kernels against torch in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.kernels import attention, build
from vggt_edge.model.layers import Attention
from vggt_edge.model.rope import rotary_tables
from vggt_edge.types import TokenLayout

pytestmark = pytest.mark.skipif(
    not build.has("attend"), reason=build.reason() or "this CPU has no AVX512-BF16"
)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 20),
    st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 130, 511, 512, 513, 1100]),
    st.floats(0.1, 8),
    st.integers(0, 2**31),
)
def test_attention_is_as_exact_as_torchs(batch, heads, queries, keys, spread, seed):
    generator = torch.Generator().manual_seed(seed)

    def heads_of(count):
        # Views into a wider tensor, as the network hands them over.
        x = torch.randn(batch, count, 2, heads, 64, generator=generator) * spread
        return x.bfloat16()[:, :, 0].transpose(1, 2)

    q, k, v = heads_of(queries), heads_of(keys), heads_of(keys)
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    theirs = (F.scaled_dot_product_attention(q, k, v) - exact).abs().max()
    ours = attention.attend(q, k, v)
    assert ours.shape == exact.shape
    assert (ours - exact).abs().max() <= 2 * theirs + 0.01 * exact.abs().max()


def test_one_key_that_outshines_all():
    """Scores far apart: no overflow, and the far ones count for nothing."""
    q = torch.full((1, 1, 7, 64), 20.0).bfloat16()
    k = torch.full((1, 1, 1000, 64), -20.0).bfloat16()
    k[:, :, 700] = 20
    v = torch.randn(1, 1, 1000, 64).bfloat16()
    assert torch.equal(attention.attend(q, k, v), v[:, :, 700:701].expand(-1, -1, 7, -1))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_heads_in_place_equal_the_plain_path(qk_norm, monkeypatch):
    torch.manual_seed(0)
    block = Attention(128, 2, qk_norm).requires_grad_(False)
    if qk_norm:
        block.q_norm.weight.normal_()
        block.q_norm.bias.normal_()
    tables = rotary_tables(TokenLayout(3, 5, 4, 6), 64)
    wide = torch.randn(2, 3, 29, 384).bfloat16()
    x = wide[..., 128:256]
    fast = block._queries(x, tables)
    monkeypatch.setattr(attention, "runs", lambda x: False)
    plain = block._queries(x, tables)
    assert fast.shape == plain.shape == (2, 2, 87, 64)
    assert torch.allclose(fast.float(), plain.float(), atol=0.02, rtol=0.01)
    assert (fast != plain).float().mean() < 0.01  # a rounding here and there


def test_gradients_and_other_heads_stay_with_torch():
    x = torch.randn(1, 1, 4, 64).bfloat16()
    assert attention.runs(x)
    assert not attention.runs(x.clone().requires_grad_())
    assert not attention.runs(x.float())
    assert not attention.runs(x[..., :32])
