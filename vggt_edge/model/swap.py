"""Empty packed layers in the places a recipe names."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import nn

from ..recipe import Recipe
from .layers import Linear
from .quantized import QuantLinear, schemes, seed_of
from .quantized_conv import QuantConv2d, conv_schemes


def place(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer at a path."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, layer)


def swap(
    module: nn.Module, recipe: Recipe, dtype: torch.dtype, optional: Container[str] = ()
) -> None:
    """Put empty quantized layers in the places a recipe names.

    Args:
        module: a network, usually on the meta device.
        recipe: the precisions.
        dtype: of the linear layers' outputs.
        optional: names of the tensors that only some layers have, such as "head.fc1.gain".
    """
    for path, scheme in schemes(module, recipe).items():
        old = module.get_submodule(path)
        if not isinstance(old, Linear):
            raise TypeError(f"{path} is {type(old).__name__}")
        inputs, outputs = old.in_features, old.out_features
        smooth, signed = (f"{path}.{leaf}" in optional for leaf in ("gain", "signs"))
        with torch.device(old.weight.device):
            layer = QuantLinear(inputs, outputs, scheme, dtype, smooth, seed_of(path), signed)
        place(module, path, layer)
    for path, scheme in conv_schemes(module, recipe).items():
        conv = module.get_submodule(path)
        if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
            raise TypeError(f"{path} is {type(conv).__name__}")
        with torch.device(conv.weight.device):
            place(module, path, QuantConv2d(conv, scheme))
