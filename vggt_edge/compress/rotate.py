"""A Hadamard rotation of the values that costs nothing while the network runs.

Attention is linear in its values: ``softmax(q k^T) v``. Rotating each head's values by an
orthogonal R, and what ``proj`` expects back by its transpose, changes nothing,

    (S v R) (W_o R)^T = S v W_o^T        R = H_d / sqrt(d) per head of width d,

and both fold into weights exactly: the value rows of ``qkv`` become R^T W_v, R^T b_v, each head's
columns of ``proj`` W_o R (Ashkboos et al., "QuaRot", NeurIPS 2024). Outliers of one value channel
are spread over its head before ``proj`` rounds them. There is no norm on values, so nothing is in
the way; queries and keys have one, and everything before a LayerNorm with a mean and an affine
part, as well as what follows GELU, cannot be folded: that takes the online rotation of
``-hadamard``.
"""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn

from ..model.layers import Attention, Linear
from ..model.quantized import hadamard_block, rotate


def _per_head(columns: Tensor, heads: int) -> Tensor:
    """(rows, width) with each head's part of the rows transformed."""
    parts = columns.float().unflatten(1, (heads, -1))
    return rotate(parts, torch.ones(parts.shape[-1], device=parts.device)).flatten(1)


@torch.no_grad()
def fold_values(module: nn.Module, paths: Container[str]) -> list[str]:
    """Rotate the values of every attention whose ``proj`` is among the paths, in place.

    The network computes what it did before. Heads of a width that is no power of two are left.

    Args:
        module: a float network.
        paths: of layers that will be quantized.

    Returns:
        Paths of the attentions that were changed.
    """
    changed = []
    for path, attention in module.named_modules():
        if not isinstance(attention, Attention) or f"{path}.proj" not in paths:
            continue
        qkv, proj, heads, width = (
            attention.qkv,
            attention.proj,
            attention.heads,
            attention.width,
        )
        head_width = width // heads
        if not (isinstance(qkv, Linear) and isinstance(proj, Linear)):
            continue
        if hadamard_block(head_width) != head_width:
            continue
        values = slice(2 * width, 3 * width)
        qkv.weight[values] = _per_head(qkv.weight[values].T, heads).T.to(qkv.weight)
        qkv.bias[values] = _per_head(qkv.bias[values][None], heads)[0].to(qkv.bias)
        proj.weight.copy_(_per_head(proj.weight, heads))
        changed.append(path)
    return changed
