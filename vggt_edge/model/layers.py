"""The transformer block shared by encoder, aggregator and camera head.

Precision: the residual stream, norms and LayerScale are float32 whatever the weights are; matrix
products and attention run in the weights' precision. With the residual stream in bf16 too, depth
was six times further from float32 (docs/LOG.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import attention, halves
from . import attend
from .rope import rotate

Tables = tuple[Tensor, Tensor]


class Linear(nn.Linear):
    """A linear layer that takes any precision and computes in its weights'."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the output."""
        return self.weight.dtype

    def gelu(self, x: Tensor) -> Tensor:
        """``forward`` and an exact GELU."""
        # By way of the call, so that hooks, which calibration sets, see this product too.
        y: Tensor = self(x, activate=True)
        return y

    def forward(self, x: Tensor, activate: bool = False) -> Tensor:
        """(..., in) to (..., out), through an exact GELU if asked."""
        return self._product(x, self.weight, self.bias, activate)

    def outputs(self, x: Tensor, start: int, stop: int) -> Tensor:
        """(..., in) to the outputs ``start:stop`` alone."""
        return self._product(x, self.weight[start:stop], self.bias[start:stop])

    @staticmethod
    def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activate: bool = False) -> Tensor:
        if halves.multiplies(x, weight):
            return halves.multiply(x, weight, bias, activate)
        y = F.linear(x.to(weight.dtype), weight, bias)
        return F.gelu(y) if activate else y


class Norm(nn.LayerNorm):
    """Layer normalisation in float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width), float32."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps)


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return x.float() * self.gamma.float()

    def add(self, residual: Tensor, branch: Tensor) -> Tensor:
        """``residual`` and the scaled ``branch``, both (..., width)."""
        if halves.adds(residual, branch, self.gamma):
            return halves.add_scaled(residual, branch, self.gamma)
        return residual + self(branch)

    def add_(self, residual: Tensor, branch: Tensor) -> None:
        """``add`` in place, for inference."""
        if halves.adds(residual, branch, self.gamma):
            halves.add_scaled(residual, branch, self.gamma, out=residual)
        else:
            residual += self(branch)


class Mlp(nn.Module):
    """Two linears with an exact GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., out)."""
        return self.fc2(self.fc1.gelu(x))


class Attention(nn.Module):
    """Multi-head self-attention, cut where memory and sparsity need it cut.

    Tokens come as (B, V, P, width), P tokens of V views; queries, keys and values leave as
    (B, heads, V * P, head width). ``attend`` lets queries look at keys, ``merge`` projects what
    they saw.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.width, self.heads, self.qk_norm = width, heads, qk_norm
        self.qkv = Linear(width, 3 * width)
        if qk_norm:
            self.q_norm = Norm(width // heads)
            self.k_norm = Norm(width // heads)
        self.proj = Linear(width, width)

    def _queries(self, q: Tensor, tables: Tables | None) -> Tensor:
        return self._place(q, self.q_norm if self.qk_norm else None, tables)

    def _keys(self, k: Tensor, tables: Tables | None) -> Tensor:
        return self._place(k, self.k_norm if self.qk_norm else None, tables)

    def _place(self, x: Tensor, norm: Norm | None, tables: Tables | None) -> Tensor:
        """(B, V, P, width) to (B, heads, V * P, head width), normalised and turned in float32."""
        dtype = x.dtype
        x = x.unflatten(-1, (self.heads, -1))
        if (norm is not None or tables is not None) and attention.runs(x):
            gain, shift, eps = (None, None, 0.0)
            if norm is not None:
                gain, shift, eps = norm.weight.float(), norm.bias.float(), norm.eps
            return attention.turn(x.flatten(1, 2).flatten(2), self.heads, gain, shift, eps, tables)
        if norm is not None:
            x = norm(x)
        if tables is not None:
            cos, sin = (table[:, None, :] for table in tables)
            x = rotate(x, cos, sin)
        return x.to(dtype).flatten(1, 2).transpose(1, 2)

    def queries(self, x: Tensor, tables: Tables | None) -> Tensor:
        """Queries alone."""
        return self._queries(self.qkv.outputs(x, 0, self.width), tables)

    def keys_values(self, x: Tensor, tables: Tables | None) -> tuple[Tensor, Tensor]:
        """Keys and values alone."""
        k, v = self.qkv.outputs(x, self.width, 3 * self.width).chunk(2, dim=-1)
        return self._keys(k, tables), self._place(v, None, None)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, queries, head width) seen by the queries among the keys."""
        return attend.dense(q, k, v)

    def merge(self, seen: Tensor) -> Tensor:
        """(B, heads, N, head width) to (B, N, width)."""
        return self.proj(seen.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, tables: Tables | None = None) -> Tensor:
        """(B, V, P, width) to the same; every token sees all V * P of its row of the batch."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = self._queries(q, tables), self._keys(k, tables), self._place(v, None, None)
        return self.merge(self.attend(q, k, v)).view_as(x)


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    def __init__(
        self, width: int, heads: int, scale: float, eps: float = 1e-5, qk_norm: bool = False
    ):
        super().__init__()
        self.norm1 = Norm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = LayerScale(width, scale)
        self.norm2 = Norm(width, eps=eps)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = LayerScale(width, scale)

    def forward(self, x: Tensor, tables: Tables | None = None) -> Tensor:
        """(B, V, P, width) float32 to the same; the V views of a row attend to each other."""
        x = self.ls1.add(x, self.attn(self.norm1(x), tables))
        return self.ls2.add(x, self.mlp(self.norm2(x)))

    def update(self, x: Tensor, tables: Tables | None, views: int) -> None:
        """``forward`` in place, with never more than ``views`` views in flight, for inference.

        Beyond ``x`` only the keys and values of all views are held; the queries of a chunk are made
        when its turn comes, before its residual changes.
        """
        batch, count, per_view, width = x.shape
        attn = self.attn
        shape = (batch, attn.heads, count * per_view, width // attn.heads)
        dtype = attn.qkv.dtype
        k, v = x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype)
        for start in range(0, count, views):
            part = x[:, start : start + views]
            tokens = slice(start * per_view, (start + views) * per_view)
            k[:, :, tokens], v[:, :, tokens] = attn.keys_values(self.norm1(part), tables)
        for start in range(0, count, views):
            part = x[:, start : start + views]
            q = attn.queries(self.norm1(part), tables)
            self.ls1.add_(part, attn.merge(attn.attend(q, k, v)).view_as(part))
            self.ls2.add_(part, self.mlp(self.norm2(part)))
