"""Value noise and integer hashes: the same numbers for the same place, on every device."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_PERIOD = 32


@lru_cache(maxsize=8)
def _lattice(device: torch.device) -> Tensor:
    # One layer more than the period on each side that counts, so that no neighbour wraps around.
    values = np.random.default_rng(20240611).random((_PERIOD,) * 3, dtype=np.float32)
    wrapped = np.pad(values, (0, 1), mode="wrap")
    return torch.from_numpy(wrapped.reshape(-1)).to(device)


def value_noise(points: Tensor) -> Tensor:
    """(3, N) points to (N,) smooth noise in [0, 1]: random at integers, blended in between."""
    cell = points.floor()
    f = points - cell
    i, j, k = (cell.to(torch.int32) & (_PERIOD - 1)).unbind(0)
    side = _PERIOD + 1
    corner = (i * side + j) * side + k
    x, y, z = (f * f * (3 - 2 * f)).unbind(0)
    table = _lattice(points.device)

    def along_z(offset: int) -> Tensor:
        low = table.index_select(0, corner + offset)
        return low + (table.index_select(0, corner + (offset + 1)) - low) * z

    def along_yz(offset: int) -> Tensor:
        low = along_z(offset)
        return low + (along_z(offset + side) - low) * y

    low = along_yz(0)
    return low + (along_yz(side * side) - low) * x


def fractal_noise(points: Tensor, octaves: int = 3, footprint: Tensor | None = None) -> Tensor:
    """(3, N) points to (N,) noise in [0, 1] of several octaves, each half as large and as strong.

    Octaves finer than ``footprint`` (N,), a pixel's size in the units of ``points``, fade out.
    """
    total = torch.zeros_like(points[0])
    weight, scale = 0.5, 1.0
    for octave in range(octaves):
        noise = value_noise(points * scale + 7.31 * octave) - 0.5
        if footprint is not None:
            noise = noise * (1.5 - 1.5 * footprint * scale).clamp(0, 1)
        total = total + weight * noise
        weight, scale = weight * 0.55, scale * 2.03
    return total * 1.35 + 0.5


def hash_cells(*cells: Tensor) -> Tensor:
    """Uniform noise in [0, 1) for integer-valued cell coordinates (N,) each: one value a cell."""
    mixed = torch.zeros_like(cells[0], dtype=torch.int32)
    for cell, prime in zip(cells, (374761393, 668265263, 1274126177), strict=False):
        mixed = mixed + cell.to(torch.int32) * prime
    mixed = (mixed ^ (mixed >> 13)) * 1103515245
    mixed = (mixed ^ (mixed >> 16)) * 1540483477
    return ((mixed ^ (mixed >> 15)) & 0xFFFF).to(torch.float32) / 65536.0
