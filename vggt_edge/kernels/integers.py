"""Integer matrix products on the CPU: tensors in and out of ``integers.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .build import address, library

PANEL = 64  # columns of a weight panel
WIDTH_MULTIPLE = 64  # inputs a layer must be a multiple of
COLUMNS_AT_ONCE = 4 * PANEL  # when weights are packed
COLUMN_MULTIPLE = 16  # outputs a layer must be a multiple of


class Rows(NamedTuple):
    """Quantized activations: ``x = scale * (codes - zero)``, row by row.

    codes  (rows, width) int8.
    scale  (rows,) float32.
    zero   (rows,) int32.
    sums   (rows,) int32, 128 times the sum of a row's codes.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    sums: Tensor


class Panels(NamedTuple):
    """Weights as the kernels want them; see ``integers.c``.

    weights     (panels, width / 4, 64, 4) uint8 for 8 bits, half of that for 4.
    bits        4 or 8.
    multiplier  (panels, width / group, 64) int8, or None.
    group       inputs that share a multiplier.
    step        (panels * 64,) float32 scale of each column.
    sums        (panels * 64,) int32 sum of each column's (multiplied) codes.
    bias        (panels * 64,) float32.
    """

    weights: Tensor
    bits: int
    multiplier: Tensor | None
    group: int
    step: Tensor
    sums: Tensor
    bias: Tensor

    def room(self, panels: int) -> Panels:
        """Uninitialised, for so many panels of the same kind."""

        def empty(value: Tensor, lead: int) -> Tensor:
            return value.new_empty((lead, *value.shape[1:]))

        return self._replace(
            weights=empty(self.weights, panels),
            multiplier=None if self.multiplier is None else empty(self.multiplier, panels),
            step=empty(self.step, panels * PANEL),
            sums=empty(self.sums, panels * PANEL),
            bias=empty(self.bias, panels * PANEL),
        )

    def fill(self, other: Panels) -> None:
        """Take over what another of the same size holds."""
        for own, value in zip(self, other, strict=True):
            if isinstance(own, Tensor) and isinstance(value, Tensor):
                own.copy_(value)

    def columns(self, start: int, stop: int) -> Panels:
        """The panels of the columns ``start:stop``; ``start`` a multiple of 64."""
        first, last = start // PANEL, -(-stop // PANEL)
        flat = slice(first * PANEL, last * PANEL)
        multiplier = None if self.multiplier is None else self.multiplier[first:last]
        return self._replace(
            weights=self.weights[first:last],
            multiplier=multiplier,
            step=self.step[flat],
            sums=self.sums[flat],
            bias=self.bias[flat],
        )


def _padded(value: Tensor, columns: int) -> Tensor:
    """Zeros after the first axis' end, up to whole panels."""
    missing = -(-columns // PANEL) * PANEL - len(value)
    padding = value.new_zeros((missing, *value.shape[1:]))
    return torch.cat([value, padding]).contiguous()


def pack(
    codes: Tensor,
    bits: int,
    step: Tensor,
    bias: Tensor | None,
    multiplier: Tensor | None,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Panels:
    """Weights in panels.

    Args:
        codes: (columns, width) int8 codes, or what ``read`` makes such codes of, column by column.
        bits: 8, or 4 for codes from -8 to 7.
        step: (columns,) scale.
        bias: (columns,) or None.
        multiplier: (columns, width / group) int8 from 1, or None.
        read: of codes that are stored in another form.
    """
    # A few columns at a time, each to its place: what is in between takes four times the codes'
    # memory, and the heap does not shrink again below the panels that are made meanwhile.
    count = len(codes)
    whole: Panels | None = None
    for start in range(0, count, COLUMNS_AT_ONCE):
        some = slice(start, start + COLUMNS_AT_ONCE)
        own_bias = None if bias is None else bias[some]
        own_multiplier = None if multiplier is None else multiplier[some]
        own = codes[some] if read is None else read(codes[some])
        part = _pack_columns(own, bits, step[some], own_bias, own_multiplier)
        if whole is None:
            whole = part.room(-(-count // PANEL))
        whole.columns(start, min(start + COLUMNS_AT_ONCE, count)).fill(part)
    if whole is None:
        raise ValueError("a layer without outputs")
    return whole


def _pack_columns(
    codes: Tensor, bits: int, step: Tensor, bias: Tensor | None, multiplier: Tensor | None
) -> Panels:
    """``pack`` in one go."""
    columns, width = codes.shape
    full = codes.int()
    group = width
    if multiplier is not None:
        group = width // multiplier.shape[1]
        full = full * multiplier.int().repeat_interleave(group, dim=1)
    sums = _padded(full.sum(dim=1, dtype=torch.int32), columns)
    whole = _padded(codes, columns).view(-1, PANEL, width // 4, 4).transpose(1, 2)
    if bits == 8:
        weights = (whole.to(torch.int16) + 128).to(torch.uint8).contiguous()
    else:
        # Sixteen columns are one load; the second and fourth share bytes with the first and third.
        loads = (whole + 8).to(torch.uint8).unflatten(2, (2, 2, 16))
        weights = (loads[:, :, :, 0] | (loads[:, :, :, 1] << 4)).contiguous()
    packed_multiplier = None
    if multiplier is not None:
        packed_multiplier = _padded(multiplier, columns).view(-1, PANEL, width // group)
        packed_multiplier = packed_multiplier.transpose(1, 2).contiguous()
    bias = step.new_zeros(columns) if bias is None else bias
    return Panels(
        weights,
        bits,
        packed_multiplier,
        group,
        _padded(step.float(), columns),
        sums,
        _padded(bias.float(), columns),
    )


def unpack(panels: Panels, columns: int) -> tuple[Tensor, Tensor | None]:
    """Codes and multipliers back from ``pack``, exactly."""
    weights = panels.weights
    if panels.bits == 8:
        whole = (weights.to(torch.int16) - 128).to(torch.int8)
    else:
        loads = torch.stack([weights & 15, weights >> 4], dim=3)
        whole = loads.flatten(2, 4).to(torch.int8) - 8
    codes = whole.transpose(1, 2).flatten(2).flatten(0, 1)[:columns].contiguous()
    multiplier = panels.multiplier
    if multiplier is not None:
        multiplier = multiplier.transpose(1, 2).flatten(0, 1)[:columns].contiguous()
    return codes, multiplier


def quantize(x: Tensor, bits: int, gain: Tensor | None = None, clip: float = 1.0) -> Rows:
    """(rows, width) float32 or bf16 to integers with a scale and a zero point per row.

    Args:
        x: rows of neighbouring numbers; width a multiple of 16.
        bits: 8 or 4.
        gain: (width,) float32 factors on x.
        clip: share of a row's range that is kept.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        x = x.float()
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, width = x.shape
    result = Rows(
        torch.empty(rows, width, dtype=torch.int8),
        torch.empty(rows),
        torch.empty(rows, dtype=torch.int32),
        torch.empty(rows, dtype=torch.int32),
    )
    library().quantize_rows(
        address(x),
        int(x.dtype == torch.bfloat16),
        ctypes.c_int64(rows),
        ctypes.c_int64(width),
        ctypes.c_int64(x.stride(0)),
        address(gain),
        ctypes.c_float(clip),
        -(1 << (bits - 1)),
        (1 << (bits - 1)) - 1,
        *map(address, result),
    )
    return result


def rotate_(x: Tensor, sign: Tensor, block: int) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of blocks of contiguous float32 rows, in place.

    Args:
        x: (rows, width).
        sign: (width,) factors of 1 or -1, applied first.
        block: a power of two from 16 that divides the width.
    """
    rows, width = x.shape
    library().hadamard_rows(
        address(x),
        ctypes.c_int64(rows),
        ctypes.c_int64(width),
        ctypes.c_int64(block),
        address(sign),
    )
    return x


def multiply(
    rows: Rows, panels: Panels, columns: int, dtype: torch.dtype, activate: bool = False
) -> Tensor:
    """(rows, columns) products in float32 or bf16, with bias, through an exact GELU if asked.

    Raises:
        MemoryError: when there is no room for one panel of expanded weights.
    """
    count, width = rows.codes.shape
    y = torch.empty(count, columns, dtype=dtype)
    failed = library().multiply(
        *map(address, rows),
        ctypes.c_int64(count),
        ctypes.c_int64(width),
        address(panels.weights),
        panels.bits,
        address(panels.multiplier),
        ctypes.c_int64(panels.group),
        address(panels.step),
        address(panels.sums),
        address(panels.bias),
        ctypes.c_int64(columns),
        address(y),
        ctypes.c_int64(columns),
        int(dtype == torch.bfloat16),
        int(activate),
    )
    if failed:
        raise MemoryError("no memory to expand a panel of weights")
    return y


class Maps(NamedTuple):
    """Quantized feature maps with a border of zeros: ``x = scale * (codes - zero)``.

    codes  (N, h + 2 border, w + 2 border, channels) int8.
    scale  (N,) float32.
    zero   (N,) int32.
    sums   (N, h + 2 border, w + 2 border) int32, 128 times the sum of a pixel's codes.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    sums: Tensor


def quantize_maps(x: Tensor, border: int) -> Maps:
    """(N, h, w, channels) float32 maps to integers with one scale and zero point an image.

    Args:
        x: channels a multiple of 16.
        border: pixels of zeros around each map.

    Raises:
        MemoryError: when there is none.
    """
    x = x.float().contiguous()
    count, height, width, channels = x.shape
    high, wide = height + 2 * border, width + 2 * border
    result = Maps(
        torch.empty(count, high, wide, channels, dtype=torch.int8),
        torch.empty(count),
        torch.empty(count, dtype=torch.int32),
        torch.empty(count, high, wide, dtype=torch.int32),
    )
    sizes = map(ctypes.c_int64, (count, height, width, channels, border))
    if library().quantize_maps(address(x), *sizes, *map(address, result)):
        raise MemoryError("no memory to quantize a feature map")
    return result


def convolve(maps: Maps, panels: Panels, columns: int, kernel: int, stride: int) -> Tensor:
    """(N, h', w', columns) float32 convolution of bordered maps with 8-bit panels.

    The panels' width runs over row, column and channel of the kernel.
    """
    count, high, wide, channels = maps.codes.shape
    height, width = (high - kernel) // stride + 1, (wide - kernel) // stride + 1
    y = torch.empty(count, height, width, columns)
    library().convolve(
        *map(address, maps),
        *map(ctypes.c_int64, (count, high, wide, channels, kernel, stride)),
        address(panels.weights),
        address(panels.step),
        address(panels.sums),
        address(panels.bias),
        ctypes.c_int64(columns),
        address(y),
    )
    return y
