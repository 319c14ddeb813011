"""The transformer block shared by encoder, aggregator and camera head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import attend
from .rope import rotate

Tables = tuple[Tensor, Tensor]


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return x * self.gamma


class Mlp(nn.Module):
    """Two linears with an exact GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., out)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention, cut where memory and sparsity need it cut.

    ``split`` makes queries, keys and values of any tokens; ``attend`` lets queries look at keys;
    ``merge`` projects what they saw. ``forward`` is the three in a row.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        if qk_norm:
            self.q_norm = nn.LayerNorm(width // heads)
            self.k_norm = nn.LayerNorm(width // heads)
        self.qk_norm = qk_norm
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor, tables: Tables | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, V, P, width) tokens of V views to q, k, v of (B, heads, V * P, head width)."""
        batch, views, per_view, width = x.shape
        head = width // self.heads
        q, k, v = self.qkv(x).view(batch, views * per_view, 3, self.heads, head).unbind(2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if tables is not None:
            # The tables are float32; so is the product, which is rounded once at the end.
            cos, sin = (t[:, None, :] for t in tables)
            shape = (batch, views, per_view, self.heads, head)
            q = rotate(q.view(shape), cos, sin).view_as(v).to(v.dtype)
            k = rotate(k.view(shape), cos, sin).view_as(v).to(v.dtype)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, queries, head width) seen by the queries among the keys."""
        return attend.dense(q, k, v)

    def merge(self, seen: Tensor) -> Tensor:
        """(B, heads, N, head width) to (B, N, width)."""
        return self.proj(seen.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, tables: Tables | None = None) -> Tensor:
        """(B, V, P, width) to the same; every token sees all V * P of its row of the batch."""
        return self.merge(self.attend(*self.split(x, tables))).view_as(x)


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale."""

    def __init__(
        self, width: int, heads: int, scale: float, eps: float = 1e-5, qk_norm: bool = False
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = LayerScale(width, scale)

    def forward(self, x: Tensor, tables: Tables | None = None, chunk: int | None = None) -> Tensor:
        """(B, V, P, width) to the same; the V views of a row attend to each other.

        With ``chunk``, never more than so many views are in flight (inference only).
        """
        if chunk is not None and chunk < x.shape[1]:
            return self._chunked(x, tables, chunk)
        x = x + self.ls1(self.attn(self.norm1(x), tables))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def _chunked(self, x: Tensor, tables: Tables | None, views: int) -> Tensor:
        """Hold, beyond input and output, only the keys and values of all views.

        The output buffer carries the queries until the result of their chunk replaces them.
        """
        batch, count, per_view, width = x.shape
        head = width // self.attn.heads
        out = torch.empty_like(x)
        keys = x.new_empty(batch, count, per_view, self.attn.heads, head)
        values = torch.empty_like(keys)
        for start in range(0, count, views):
            part = slice(start, start + views)
            q, k, v = self.attn.split(self.norm1(x[:, part]), tables)
            out[:, part] = q.transpose(1, 2).reshape(x[:, part].shape)
            keys[:, part] = k.transpose(1, 2).reshape(keys[:, part].shape)
            values[:, part] = v.transpose(1, 2).reshape(keys[:, part].shape)
        k, v = (t.flatten(1, 2).transpose(1, 2) for t in (keys, values))
        for start in range(0, count, views):
            part = slice(start, start + views)
            q = out[:, part].reshape(batch, -1, self.attn.heads, head).transpose(1, 2)
            seen = self.attn.merge(self.attn.attend(q, k, v)).view_as(x[:, part])
            y = x[:, part] + self.ls1(seen)
            out[:, part] = y + self.ls2(self.mlp(self.norm2(y)))
        return out
