"""The transformer block as accelerators take it; rebuilt from the network's own weights.

No tensor has more than four dimensions, queries, keys and values have linears of their own,
what a norm does after normalising is part of the linear after it, LayerScale part of the linear
before it, tables are constants, and attention is matmul, softmax, matmul, which every delegate runs
(LiteRT's converter makes just that of scaled_dot_product_attention). Tokens are the rows of one
matrix, as the linears of every runtime want them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import layers
from .shape import Form

BLOCK = 32
LEAST = 7 * 2.0**-23


def alive(weight: Tensor) -> Tensor:
    """Weights of which no block of 32 is as good as zero; the same tensor where none is.

    int4 has a half-precision scale a block. Weight decay brings dead inputs below the least of
    them, and kernels refuse a scale of zero.
    """
    if weight.shape[1] % BLOCK:
        return weight
    dead = weight.unflatten(1, (-1, BLOCK)).abs().amax(-1) < LEAST
    if not dead.any():
        return weight
    weight = weight.clone()
    # Rows in turn up and down, so that a head of dead ones keeps the mean it has.
    signs = weight.new_tensor([LEAST, -LEAST]).repeat(-(-len(weight) // 2))[: len(weight)]
    weight[:, ::BLOCK] = weight[:, ::BLOCK].where(~dead, signs[:, None])
    return weight


def folded(weight: Tensor, bias: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear with the gain and bias of the norm before it, in float32."""
    weight = weight.detach().float()
    shift = weight @ norm.bias.detach().float()
    bias = shift if bias is None else bias.detach().float() + shift
    return weight * norm.weight.detach().float(), bias


def linear(weight: Tensor, bias: Tensor | None, norm: nn.LayerNorm | None = None) -> nn.Linear:
    """A float32 linear around given weights; shares their memory when they are float32.

    With ``norm`` its gain and bias are folded in, for an input that ``Normalize`` made. Gains are
    what makes outlying channels, and weights carry them with less harm than quantized activations
    do (Wei et al., "Outlier Suppression", 2022).
    """
    if norm is not None:
        weight, bias = folded(weight, bias, norm)
    weight = alive(weight.detach().float())
    bias = None if bias is None else bias.detach().float()
    out_features, in_features = weight.shape
    made = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


def scaled(source: nn.Linear, scale: layers.LayerScale) -> nn.Linear:
    """A linear with the LayerScale that follows it folded in."""
    gamma = scale.gamma.detach().float()
    return linear(source.weight.float() * gamma[:, None], source.bias.float() * gamma)


def numbered(parent: nn.Module, name: str, modules: Iterable[nn.Module]) -> list[str]:
    """Make modules children called ``name0``, ``name1`` and so on; their names.

    Not a ModuleList, of which a converter's operator names keep the number alone.
    """
    names = []
    for index, module in enumerate(modules):
        names.append(f"{name}{index}")
        parent.add_module(names[-1], module)
    return names


class Normalize(nn.Module):
    """Zero mean and unit variance over the channels, in float32; the affine part lies elsewhere.

    ``gain`` below one multiplies what is squared, for accelerators that square and sum in fp16;
    with a power of two the result is the same to the bit.
    """

    share: Tensor

    def __init__(
        self, eps: float, gain: float = 1.0, centered: bool = False, width: int | None = None
    ):
        """``centered`` inputs have zero mean already.

        With ``width``, that of the inputs, means are products with a constant; else reductions.
        """
        super().__init__()
        self.eps, self.gain, self.centered = eps, gain, centered
        self.multiplies = width is not None
        if width is not None:
            self.register_buffer("share", torch.full((1, width), 1 / width))

    @staticmethod
    def of(source: nn.LayerNorm, form: Form, centered: bool = False) -> Normalize:
        """What a layer normalisation does before its affine part, in the form's way."""
        width = source.normalized_shape[0] if form.mean == "matmul" else None
        return Normalize(source.eps, form.norm_gain, centered, width)

    def mean(self, x: Tensor) -> Tensor:
        """(..., width) to (..., 1)."""
        return F.linear(x, self.share) if self.multiplies else x.mean(dim=-1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        x = x.float()
        if not self.centered:
            x = x - self.mean(x)
        if self.gain != 1.0:
            x = x * self.gain
        variance = self.mean(x * x)
        return x * torch.rsqrt(variance + self.eps * self.gain**2)


class Norm(nn.Module):
    """Layer normalisation in float32, where nothing follows that could take its affine part."""

    weight: Tensor
    bias: Tensor

    def __init__(self, source: nn.LayerNorm, form: Form):
        super().__init__()
        self.normalize = Normalize.of(source, form)
        self.affine = source.weight is not None
        if self.affine:
            self.register_buffer("weight", source.weight.detach().float())
            self.register_buffer("bias", source.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width)."""
        x = self.normalize(x)
        return x * self.weight + self.bias if self.affine else x


def pairs_first(head_width: int) -> Tensor:
    """Channel order of a head that puts the first of every rotary pair before all the second ones.

    The network turns (0, 1) and (2, 3) of a head's quarters; in the order (0, 2, 1, 3) it turns one
    half against the other, with one slice and one concatenation less. Scores are sums over
    channels, so queries and keys may be reordered alike.
    """
    return torch.arange(head_width).view(4, -1)[[0, 2, 1, 3]].flatten()


class Rotary(nn.Module):
    """Rotary embedding with baked tables, for channels in the order of ``pairs_first``."""

    cos: Tensor
    sin: Tensor

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


class HeadNorm(nn.Module):
    """Normalisation of every head's queries or keys, which come with zero mean."""

    weight: Tensor
    bias: Tensor

    def __init__(self, source: nn.LayerNorm, order: Tensor, gain: float, form: Form):
        """Channels are reordered and the result multiplied by ``gain``."""
        super().__init__()
        self.normalize = Normalize.of(source, form, centered=True)
        self.register_buffer("weight", source.weight.detach().float()[order] * gain)
        self.register_buffer("bias", source.bias.detach().float()[order] * gain)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, heads, head width) to the same."""
        return self.normalize(x) * self.weight + self.bias


class Attention(nn.Module):
    """Self-attention within each of ``sequences`` equal runs of tokens.

    The norm before it is folded into queries, keys and values, the LayerScale after it into the
    output, and where queries and keys are normalised, so is the subtraction of their mean.
    """

    def __init__(self, source: layers.Block, sequences: int, rotary: Rotary | None, form: Form):
        super().__init__()
        attention = source.attn
        width, self.heads = attention.width, attention.heads
        self.sequences, self.head_width = sequences, width // self.heads
        self.qk_norm = attention.qk_norm
        order = torch.arange(self.head_width) if rotary is None else pairs_first(self.head_width)
        gain = self.head_width**-0.5
        weights = attention.qkv.weight.detach().float().chunk(3)
        biases = attention.qkv.bias.detach().float().chunk(3)

        def arranged(index: int, gain: float) -> nn.Linear:
            parts = folded(weights[index], biases[index], source.norm1)

            def arrange(tensor: Tensor) -> Tensor:
                tensor = tensor.unflatten(0, (self.heads, -1))[:, order]
                if self.qk_norm:
                    tensor = tensor - tensor.mean(dim=1, keepdim=True)
                elif gain != 1.0:
                    tensor = tensor * gain
                return tensor.flatten(0, 1)

            # Nothing may follow that would undo what ``linear`` does about dead blocks.
            return linear(*(map(arrange, parts) if index < 2 else parts))

        self.q, self.k, self.v = arranged(0, gain), arranged(1, 1.0), arranged(2, 1.0)
        if self.qk_norm:
            self.q_norm = HeadNorm(attention.q_norm, order, gain, form)
            self.k_norm = HeadNorm(attention.k_norm, order, 1.0, form)
        self.rotary = rotary
        self.proj = scaled(attention.proj, source.ls1)

    def forward(self, x: Tensor) -> Tensor:
        """(sequences * tokens, width), normalised, to the same."""
        split = (self.sequences, -1, self.heads, self.head_width)
        q, k, v = (part(x).reshape(split) for part in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        seen = (q @ k.transpose(2, 3)).softmax(dim=-1) @ v
        return self.proj(seen.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Pre-norm transformer block on ``sequences`` equal runs of tokens, which come as a matrix."""

    def __init__(
        self, source: layers.Block, sequences: int, form: Form, rotary: Rotary | None = None
    ):
        super().__init__()
        self.norm1 = Normalize.of(source.norm1, form)
        self.attn = Attention(source, sequences, rotary, form)
        self.norm2 = Normalize.of(source.norm2, form)
        self.fc1 = linear(source.mlp.fc1.weight, source.mlp.fc1.bias, source.norm2)
        self.fc2 = scaled(source.mlp.fc2, source.ls2)

    def forward(self, x: Tensor) -> Tensor:
        """(sequences * tokens, width) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
