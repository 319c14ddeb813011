"""The one place where tokens look at each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import attention

# Where the library may hold a matrix of scores (MPS always does, the CPU in some precisions), no
# more than so many of them at a time.
SCORES_AT_ONCE = 1 << 28
# On a CPU the library's backward pass takes three times as long as that of plain products, which
# keep all scores.
SCORES_TO_KEEP = 1 << 23
# Keys gathered for views that are run together because each has few of them.
KEYS_AT_ONCE = 1 << 13


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of every query to every key.

    Args:
        q: (B, heads, queries, width) queries.
        k: (B, heads, keys, width) keys.
        v: (B, heads, keys, width) values.

    Returns:
        (B, heads, queries, width); no score matrix of them all is ever held.
    """
    if attention.runs(q):
        return attention.attend(q, k, v)
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    plain = q.requires_grad and q.device.type == "cpu" and scores <= SCORES_TO_KEEP
    if plain and not torch.compiler.is_compiling():
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return weights.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v
    if scores <= SCORES_AT_ONCE or q.device.type == "cuda" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v)
    step = max(256, SCORES_AT_ONCE * q.shape[2] // scores)
    parts = [F.scaled_dot_product_attention(part, k, v) for part in q.split(step, dim=2)]
    return torch.cat(parts, dim=2)


def with_own(q: Tensor, k: Tensor, v: Tensor, count: int, own_k: Tensor, own_v: Tensor) -> Tensor:
    """Attention of each view to ``count`` keys that all share, and to some of its own.

    Args:
        q: (B, heads, V, P, width) queries of V views.
        k: (B, heads, count + room, width) shared keys; where there is room for a view's own keys,
            they are written there, which saves gathering.
        v: (B, heads, count + room, width) shared values.
        count: how many of them are shared.
        own_k: (B, heads, V, T, width) keys that one view alone sees.
        own_v: (B, heads, V, T, width) their values.

    Returns:
        (B, heads, V, P, width).
    """
    views, tail = own_k.shape[2:4]
    total, seen = count + tail, torch.empty_like(q)
    step = max(1, KEYS_AT_ONCE // total)
    if step == 1 and k.shape[2] >= total:
        for view in range(views):
            k[:, :, count:total], v[:, :, count:total] = own_k[:, :, view], own_v[:, :, view]
            seen[:, :, view] = dense(q[:, :, view], k[:, :, :total], v[:, :, :total])
        return seen

    def gathered(shared: Tensor, own: Tensor) -> Tensor:
        spread = shared[:, :, None, :count].expand(-1, -1, own.shape[2], -1, -1)
        return _views_to_batch(torch.cat([spread, own], dim=3))

    for start in range(0, views, step):
        some = slice(start, start + step)
        part = q[:, :, some]
        keys, values = gathered(k, own_k[:, :, some]), gathered(v, own_v[:, :, some])
        found = dense(_views_to_batch(part), keys, values).unflatten(0, (part.shape[0], -1))
        seen[:, :, some] = found.transpose(1, 2)
    return seen


def _views_to_batch(x: Tensor) -> Tensor:
    """(B, heads, V, N, width) to (B * V, heads, N, width)."""
    return x.transpose(1, 2).flatten(0, 1)
