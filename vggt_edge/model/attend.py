"""The one place where tokens look at each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of every query to every key.

    Args:
        q: (B, heads, queries, width) queries.
        k: (B, heads, keys, width) keys.
        v: (B, heads, keys, width) values.

    Returns:
        (B, heads, queries, width); no score matrix is ever held.
    """
    return F.scaled_dot_product_attention(q, k, v)
