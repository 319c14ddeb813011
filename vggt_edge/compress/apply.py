"""Quantized layers in place of float ones, in a network that keeps running in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.layers import Linear
from ..model.quantized import (
    QuantLinear,
    hadamard_signs,
    pack_nibbles,
    rotate,
    seed_of,
)
from ..model.quantized_conv import Convolution, QuantConv2d, conv_rows, conv_schemes
from ..model.swap import place
from ..recipe import Recipe, Scheme
from .nearest import Codes, nearest


def behind(weight: Tensor, scheme: Scheme, path: str, gain: Tensor | None = None) -> Tensor:
    """(outputs, inputs) float32 weights as the codes see them: rotated, then divided by the gain.

    Args:
        weight: of the float layer.
        scheme: says whether inputs are rotated.
        path: of the layer, which seeds the rotation.
        gain: (inputs,) factors on the rotated inputs.
    """
    weight = weight.float()
    if scheme.hadamard:
        signs = hadamard_signs(weight.shape[1], seed_of(path)).to(weight.device)
        weight = rotate(weight, signs)
    return weight if gain is None else weight / gain


def quantized(
    linear: Linear,
    path: str,
    scheme: Scheme,
    codes: Codes,
    gain: Tensor | None = None,
    clip: float = 1.0,
) -> QuantLinear:
    """A quantized layer from its codes.

    Args:
        linear: the float layer it stands for; its bias and precision are kept.
        path: where it stands in the network.
        scheme: its precision.
        codes: of ``behind(linear.weight, scheme, path, gain)``.
        gain: (inputs,) factors on the inputs, or None.
        clip: share of each token's range that is kept.
    """
    layer = QuantLinear(
        linear.in_features, linear.out_features, scheme, linear.dtype, gain is not None,
        seed_of(path),
    )  # fmt: skip
    layer.codes = pack_nibbles(codes.codes) if scheme.weight_bits == 4 else codes.codes
    layer.scale = codes.scale.float()
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    layer.bias = bias.detach().float()
    layer.clip = torch.tensor(float(clip))
    if codes.multiplier is not None:
        layer.multiplier = codes.multiplier
    if gain is not None:
        layer.gain = gain.float()
    return layer


def quantized_conv(conv: Convolution, scheme: Scheme, search: bool = True) -> QuantConv2d:
    """A convolution in 8 bits, rounded to nearest."""
    codes = nearest(conv_rows(conv), scheme, search=search)
    layer = QuantConv2d(conv, scheme)
    layer.codes, layer.scale = codes.codes, codes.scale
    if conv.bias is not None:
        layer.bias = conv.bias.detach().float()
    return layer


@torch.no_grad()
def round_convolutions(model: nn.Module, recipe: Recipe, search: bool = True) -> list[str]:
    """Quantize the convolutions a recipe names, in place, without any data; returns their paths."""
    chosen = conv_schemes(model, recipe)
    for path, scheme in chosen.items():
        conv = model.get_submodule(path)
        if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
            raise TypeError(f"{path} is {type(conv).__name__}")
        place(model, path, quantized_conv(conv, scheme, search))
    return list(chosen)
