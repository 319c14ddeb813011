"""What RGB-D datasets are made of: depth in 16-bit PNGs and poses as matrices in text files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import geometry
from ..types import Cameras
from .dataset_files import malformed, parsing, read_gray, read_text


def read_depth(path: Path, unit: float, unknown: Sequence[int] = ()) -> np.ndarray:
    """(h, w) float32 depth of a PNG that counts ``unit``; 0 and ``unknown`` values become 0.

    Raises:
        InputError: the file is missing, or not a grey picture of integers.
    """
    stored = read_gray(path)
    if not np.issubdtype(stored.dtype, np.integer) or stored.dtype == np.uint8:
        raise malformed(path, "depth is not stored in 16 bits")
    return np.where(np.isin(stored, [0, *unknown]), 0, stored * unit).astype(np.float32)


def read_matrix(path: Path, rows: int, cols: int) -> np.ndarray:
    """(rows, cols) float64 of a text file with that many numbers; they need not be finite.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    with parsing(path, f"a {rows}x{cols} matrix"):
        return np.array(read_text(path).split(), dtype=np.float64).reshape(rows, cols)


def by_number(folder: Path, pattern: str) -> dict[int, Path]:
    """Files whose whole name matches a pattern, by the number in its first group, ascending."""
    names = re.compile(pattern)
    matches = ((names.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def one_lens(
    intrinsics: np.ndarray, world_from_camera: np.ndarray, size: tuple[int, int]
) -> Cameras:
    """Cameras of one (3, 3) intrinsics and (height, width) at (S, 3, 4) poses in the world."""
    count = len(world_from_camera)
    return Cameras(
        np.tile(intrinsics, (count, 1, 1)),
        geometry.invert_rigid(world_from_camera),
        np.tile(np.array(size), (count, 1)),
    )
