"""Weights to integers, each to the nearest.

For one output row w and a step s the codes are ``clamp(round(w / s), low, high)``. The largest
weight fixes s (min-max) unless a smaller one, which clips a few weights, has the smaller squared
error ``sum (w - s * code)^2``; that is searched on a grid (MSE clipping) to which the step of OCTAV
is added (see ``octav``).

With groups every group of inputs has an ideal step s_g of its own. The row keeps one float scale
S = max_g s_g / 16 and each group an integer multiplier m_g = round(s_g / S) from 1 to 16, so that
m_g * code stays an 8-bit integer (progressive quantization, Lin et al., "QServe", 2024).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..recipe import Scheme
from .octav import octav

TOP_MULTIPLIER = 16
FP8_MAX = 448.0
# Shares of the largest weight that the integers may reach to.
CLIPS = tuple(1 - 0.04 * i for i in range(13))


class Codes(NamedTuple):
    """Integers and scales of one layer; see ``model.quantized.QuantLinear``.

    codes       (outputs, inputs) int8, or 8-bit floats.
    scale       (outputs,) float32.
    multiplier  (outputs, inputs / group) int8, or None.
    """

    codes: Tensor
    scale: Tensor
    multiplier: Tensor | None

    def weight(self) -> Tensor:
        """(outputs, inputs) float32, what the codes stand for."""
        full = self.codes.float()
        if self.multiplier is not None:
            group = full.shape[1] // self.multiplier.shape[1]
            full = full * self.multiplier.float().repeat_interleave(group, dim=1)
        return full * self.scale[:, None]


class Grid(NamedTuple):
    """Where the values of a layer may lie.

    scale       (outputs,) float32.
    multiplier  (outputs, inputs / group) int8, or None.
    """

    scale: Tensor
    multiplier: Tensor | None

    def steps(self, inputs: int) -> Tensor:
        """(outputs, inputs) float32 distance of neighbouring values."""
        if self.multiplier is None:
            return self.scale[:, None].expand(-1, inputs)
        group = inputs // self.multiplier.shape[1]
        return (self.scale[:, None] * self.multiplier).repeat_interleave(group, dim=1)


def bounds(bits: int) -> tuple[int, int]:
    """Lowest and highest signed integer of so many bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def best_step(weight: Tensor, bits: int, importance: Tensor | None, search: bool) -> Tensor:
    """(rows,) steps of least squared error for (rows, width) weights.

    Args:
        weight: float32.
        bits: of the codes.
        importance: (rows, width) or broadcastable factors on the squared errors, such as the mean
            square of the inputs; None for ones.
        search: also try steps that clip.
    """
    low, high = bounds(bits)
    largest = weight.abs().amax(1).clamp(min=1e-12)
    best = largest / high
    if not search:
        return best
    least = torch.full_like(largest, torch.inf)
    # Eight bits are fine enough that hardly any clipping pays.
    clips = CLIPS if bits < 8 else CLIPS[:3]
    for reach in (*(largest * clip for clip in clips), octav(weight, bits)):
        step = reach / high
        codes = (weight / step[:, None]).round_().clamp_(low, high)
        error = codes.mul_(step[:, None]).sub_(weight).square_()
        if importance is not None:
            error = error.mul_(importance)
        total = error.sum(1)
        better = total < least
        least = torch.where(better, total, least)
        best = torch.where(better, step, best)
    return best


def split_step(steps: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, groups) ideal steps to (rows,) scales and (rows, groups) int8 multipliers."""
    scale = steps.amax(1) / TOP_MULTIPLIER
    multiplier = (steps / scale[:, None]).round().clamp(1, TOP_MULTIPLIER)
    return scale, multiplier.to(torch.int8)


def grid_of(
    weight: Tensor, scheme: Scheme, importance: Tensor | None = None, search: bool = True
) -> Grid:
    """The grid on which (outputs, inputs) float32 weights are rounded; arguments as ``nearest``."""
    outputs, inputs = weight.shape
    if scheme.fp8:
        return Grid(weight.abs().amax(1).clamp(min=1e-12) / FP8_MAX, None)
    if scheme.group is None:
        rows = None if importance is None else importance[None]
        return Grid(best_step(weight, scheme.weight_bits, rows, search), None)
    groups = inputs // scheme.group
    rows = None
    if importance is not None:
        rows = importance.view(1, groups, -1).expand(outputs, -1, -1).flatten(0, 1)
    flat = weight.view(outputs * groups, scheme.group)
    steps = best_step(flat, scheme.weight_bits, rows, search)
    return Grid(*split_step(steps.view(outputs, groups)))


def round_to(weight: Tensor, scheme: Scheme, grid: Grid) -> Codes:
    """Round (outputs, inputs) float32 weights to the nearest values of a grid."""
    codes = weight / grid.steps(weight.shape[1])
    if scheme.fp8:
        return Codes(codes.to(torch.float8_e4m3fn), *grid)
    return Codes(codes.round_().clamp_(*bounds(scheme.weight_bits)).to(torch.int8), *grid)


def nearest(
    weight: Tensor, scheme: Scheme, importance: Tensor | None = None, search: bool = True
) -> Codes:
    """Round (outputs, inputs) float32 weights to a scheme.

    Args:
        weight: what the layer shall compute with, behind rotation and gain.
        scheme: precision and groups.
        importance: (inputs,) mean square of each input, or None.
        search: search for clipping steps of least error; else the largest weight fixes the step.
    """
    weight = weight.float()
    return round_to(weight, scheme, grid_of(weight, scheme, importance, search))
