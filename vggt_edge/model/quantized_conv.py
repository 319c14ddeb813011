"""Convolutions of 8-bit codes, for the dense heads.

One float scale an output channel; activations get one scale and zero point an image, or a pixel
where the kernel is one pixel wide. The kernels read them channels last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import integers
from ..recipe import Recipe, Scheme
from . import backends
from .packed import PackedLayer

Convolution = nn.Conv2d | nn.ConvTranspose2d


def conv_scheme(scheme: Scheme | None) -> Scheme | None:
    """What a scheme means for a convolution: always 8-bit weights; None stays float."""
    if scheme is None or scheme.fp8:
        return None
    return Scheme(8, min(16, max(8, scheme.activation_bits)))


def conv_fits(conv: Convolution) -> bool:
    """Whether a convolution can be held in 8 bits."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    square = conv.kernel_size == (kernel, kernel) and conv.stride == (stride, stride)
    whole = conv.in_channels % 16 == 0 and conv.out_channels % 16 == 0
    if isinstance(conv, nn.ConvTranspose2d):
        return square and whole and kernel == stride and conv.padding == (0, 0)
    border = (kernel // 2, kernel // 2)
    return square and whole and kernel in (1, 3) and conv.padding == border and conv.groups == 1


def conv_rows(conv: Convolution) -> Tensor:
    """Weights as rows, one for each column of the product the kernels run.

    (outputs, kernel * kernel * inputs) with the input channel running fastest; for a transposed
    convolution, whose pixels do not overlap, (kernel * kernel * outputs, inputs).
    """
    weight = conv.weight.detach().float()
    if isinstance(conv, nn.ConvTranspose2d):
        return weight.permute(2, 3, 1, 0).flatten(0, 2)
    return weight.permute(0, 2, 3, 1).flatten(1)


class QuantConv2d(PackedLayer):
    """A convolution, or a transposed one that spreads each pixel over its own square.

    State
        codes  int8, rows as ``conv_rows`` has them.
        scale  (rows,) float32.
        bias   (outputs,) float32, where the convolution has one.
    """

    bias: Tensor | None

    def __init__(self, conv: Convolution, scheme: Scheme):
        super().__init__()
        self.inputs, self.outputs = conv.in_channels, conv.out_channels
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.transposed = isinstance(conv, nn.ConvTranspose2d)
        self.scheme = scheme
        square = self.kernel * self.kernel
        rows = square * self.outputs if self.transposed else self.outputs
        width = self.inputs if self.transposed else square * self.inputs
        self.register_buffer("codes", torch.empty(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(rows, dtype=torch.float32))
        bias = None if conv.bias is None else torch.empty(self.outputs, dtype=torch.float32)
        self.register_buffer("bias", bias)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        kind = "transposed " if self.transposed else ""
        return f"{kind}{self.inputs}, {self.outputs}, {self.kernel}, {self.scheme.name}"

    @property
    def backend(self) -> str:
        """ "avx512-vnni" or "expanded": no other backend convolves integers."""
        chosen = backends.choose(self.scheme, self.scale.device)
        return chosen if chosen == "avx512-vnni" else "expanded"

    def make_panels(self) -> integers.Panels:
        """The stored weights in panels."""
        bias = None if self.bias is None else self.bias.repeat(len(self.scale) // self.outputs)
        return integers.pack(self.codes, 8, self.scale, bias, None)

    def weight(self) -> Tensor:
        """float32 weights in torch's order."""
        codes = self.codes
        if self._panels is not None:
            codes, _ = integers.unpack(self._panels, len(self.scale))
        rows = codes.float() * self.scale[:, None]
        k = self.kernel
        if self.transposed:
            return rows.view(k, k, self.outputs, self.inputs).permute(3, 2, 0, 1)
        return rows.view(self.outputs, k, k, self.inputs).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h', w') float32, channels last in memory."""
        if self.backend == "expanded":
            return self._expanded(x)
        last = x.permute(0, 2, 3, 1)
        panels = self.panels()
        if self.kernel == 1 or self.transposed:
            rows = integers.quantize(last.float().flatten(0, 2), 8)
            y = integers.multiply(rows, panels, len(self.scale), torch.float32)
            y = y.view(*last.shape[:3], -1)
        else:
            maps = integers.quantize_maps(last, self.kernel // 2)
            y = integers.convolve(maps, panels, self.outputs, self.kernel, self.stride)
        if self.transposed:
            k = self.kernel
            y = y.unflatten(3, (k, k, self.outputs)).transpose(2, 3)
            y = y.flatten(3, 4).flatten(1, 2)
        return y.permute(0, 3, 1, 2)

    def _expanded(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.scheme.activation_bits == 8:
            whole = self.kernel > 1 and not self.transposed
            flat = x.flatten(1)[:, None] if whole else x.permute(0, 2, 3, 1)
            codes, scale, zero = backends.token_integers(flat, 8, self.scale.new_ones(()))
            back = (codes - zero).float() * scale
            x = back.view_as(x) if whole else back.permute(0, 3, 1, 2)
        if self.transposed:
            return F.conv_transpose2d(x, self.weight(), self.bias, stride=self.stride)
        return F.conv2d(x, self.weight(), self.bias, self.stride, self.kernel // 2)


def conv_schemes(module: nn.Module, recipe: Recipe) -> dict[str, Scheme]:
    """Path of every convolution a recipe quantizes, with its scheme; others stay float."""
    found = {}
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and conv_fits(layer):
            scheme = conv_scheme(recipe.scheme_of(path))
            if scheme:
                found[path] = scheme
    return found
