"""The transformer block as accelerators take it; rebuilt from the network's own weights.

No tensor has more than four dimensions, queries, keys and values have linears of their own,
LayerScale is part of the linear before it, tables are constants, and attention is either explicit
matrix products or one fused operator. A linear's weight stays a view of the network's wherever
nothing had to be folded into it, so that a rewrite costs little memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import layers
from .shape import Form


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A float32 linear around given weights; shares their memory when they are float32."""
    out_features, in_features = weight.shape
    made = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return made


def scaled(source: nn.Linear, scale: layers.LayerScale) -> nn.Linear:
    """A linear with the LayerScale that follows it folded in."""
    gamma = scale.gamma.detach().float()
    return linear(source.weight.float() * gamma[:, None], source.bias.float() * gamma)


class Norm(nn.Module):
    """Layer normalisation that is float32 in a half-precision network too."""

    def __init__(self, source: nn.LayerNorm, order: Tensor | None = None, gain: float = 1.0):
        """Channels may be reordered and the result multiplied, both folded into the weights."""
        super().__init__()
        self.eps = source.eps
        width = source.normalized_shape[0]
        weight = torch.ones(width) if source.weight is None else source.weight.detach().float()
        bias = torch.zeros(width) if source.bias is None else source.bias.detach().float()
        if order is not None:
            weight, bias = weight[order], bias[order]
        self.register_buffer("weight", weight * gain)
        self.register_buffer("bias", bias * gain)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps)


def pairs_first(head_width: int) -> Tensor:
    """Channel order of a head that puts the first of every rotary pair before all the second ones.

    The network turns (0, 1) and (2, 3) of a head's quarters; in the order (0, 2, 1, 3) it turns one
    half against the other, with one slice and one concatenation less. Scores are sums over
    channels, so queries and keys may be reordered alike.
    """
    return torch.arange(head_width).view(4, -1)[[0, 2, 1, 3]].flatten()


class Rotary(nn.Module):
    """Rotary embedding with baked tables, for channels in the order of ``pairs_first``."""

    def __init__(self, tables: tuple[Tensor, Tensor], views: int):
        """Tables (tokens of one view, head width) from ``rope``, repeated for ``views`` views."""
        super().__init__()
        order = pairs_first(tables[0].shape[1])
        cos, sin = (table[:, order].repeat(views, 1)[None, :, None, :] for table in tables)
        half = cos.shape[-1] // 2
        self.register_buffer("cos", cos.contiguous())
        # The sign of the swapped half is part of the table.
        self.register_buffer("sin", torch.cat([-sin[..., :half], sin[..., half:]], dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, heads, head width) to the same, turned."""
        half = x.shape[-1] // 2
        swapped = torch.cat([x[..., half:], x[..., :half]], dim=-1)
        return x * self.cos + swapped * self.sin


class Attention(nn.Module):
    """Self-attention of each of N sequences, its output scaled by the block's LayerScale."""

    def __init__(
        self,
        source: layers.Attention,
        scale: layers.LayerScale,
        rotary: Rotary | None,
        form: Form,
    ):
        super().__init__()
        width, self.heads = source.width, source.heads
        head_width = width // self.heads
        self.fused = form.attention == "fused"
        weights = source.qkv.weight.detach().float().chunk(3)
        biases = source.qkv.bias.detach().float().chunk(3)
        order = None
        if rotary is not None:
            order = pairs_first(head_width)
            every = (torch.arange(self.heads)[:, None] * head_width + order).flatten()
            weights = (weights[0][every], weights[1][every], weights[2])
            biases = (biases[0][every], biases[1][every], biases[2])
        gain = 1.0 if self.fused else head_width**-0.5
        if source.qk_norm:
            self.q_norm = Norm(source.q_norm, order, gain)
            self.k_norm = Norm(source.k_norm, order)
        elif gain != 1.0:
            weights = (weights[0] * gain, *weights[1:])
            biases = (biases[0] * gain, *biases[1:])
        self.qk_norm = source.qk_norm
        self.q, self.k, self.v = (
            linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)
        )
        self.rotary = rotary
        self.proj = scaled(source.proj, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to the same."""
        count, tokens, width = x.shape
        split = (count, tokens, self.heads, width // self.heads)
        q, k, v = (part(x).reshape(split) for part in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        q, v = q.transpose(1, 2), v.transpose(1, 2)
        if self.fused:
            seen = F.scaled_dot_product_attention(q, k.transpose(1, 2), v)
        else:
            seen = (q @ k.permute(0, 2, 3, 1)).softmax(dim=-1) @ v
        return self.proj(seen.transpose(1, 2).reshape(count, tokens, width))


class Block(nn.Module):
    """Pre-norm transformer block on N sequences."""

    def __init__(self, source: layers.Block, form: Form, rotary: Rotary | None = None):
        super().__init__()
        self.norm1 = Norm(source.norm1)
        self.attn = Attention(source.attn, source.ls1, rotary, form)
        self.norm2 = Norm(source.norm2)
        self.fc1 = linear(source.mlp.fc1.weight, source.mlp.fc1.bias)
        self.fc2 = scaled(source.mlp.fc2, source.ls2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
