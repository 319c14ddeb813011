"""Photographs cut to the size of a step, around their principal points, as VGGT was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import pictures
from ..types import Views


def source_from_view(
    intrinsics: np.ndarray, source: tuple[int, int], view: tuple[int, int], zoom: float
) -> np.ndarray:
    """(3, 3): pixels of a cut-out to pixels of its picture.

    The principal point comes to (W / 2, H / 2), where the pose encoding has it, and both focal
    lengths become the same.

    Args:
        intrinsics: (3, 3) of the picture; its principal point lies in the picture.
        source: (height, width) of the picture.
        view: (height, width) of the cut-out.
        zoom: share of the largest possible cut-out that is taken, as a length, in (0, 1].
    """
    (h, w), (height, width) = source, view
    fx, fy, cx, cy = intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    before_u, after_u = 0.5 * width + 0.5, 0.5 * width - 0.5
    before_v, after_v = 0.5 * height + 0.5, 0.5 * height - 0.5
    aspect = fy / fx
    # Picture pixels per pixel of the view, in u; edges of pixels lie half a pixel outwards.
    step = zoom * min(
        (cx + 0.5) / before_u,
        (w - 0.5 - cx) / after_u,
        (cy + 0.5) / before_v / aspect,
        (h - 0.5 - cy) / after_v / aspect,
    )
    u, v = step, step * aspect
    return np.array([[u, 0, cx - u * width / 2], [0, v, cy - v * height / 2], [0, 0, 1]])


def cut(
    paths: Sequence[Path], maps: Sequence[np.ndarray], size: tuple[int, int], sizes: np.ndarray
) -> Views:
    """Views of (H, W) ``size`` from pictures, resized with antialiasing.

    Args:
        paths: of the pictures.
        maps: ``source_from_view`` of each.
        size: of the views.
        sizes: (S, 2) (height, width) of the upright pictures.

    Raises:
        ImageError: a picture is missing or damaged.
    """
    height, width = size
    images = np.empty((len(paths), height, width, 3), np.uint8)
    for index, (path, matrix) in enumerate(zip(paths, maps, strict=True)):
        h, w = (int(length) for length in sizes[index])
        u, v = matrix[0, 0], matrix[1, 1]
        left, top = matrix[0, 2] + 0.5 - u / 2, matrix[1, 2] + 0.5 - v / 2
        # What will do as resolution of the whole picture, if the cut-out is to be sharp.
        picture, extent = pictures.read(str(path), at_least=(round(h / v), round(w / u)))
        x, y = (extent[2] - extent[0]) / w, (extent[3] - extent[1]) / h
        box = (
            max(extent[0] + left * x, 0.0),
            max(extent[1] + top * y, 0.0),
            min(extent[0] + (left + u * width) * x, float(picture.width)),
            min(extent[1] + (top + v * height) * y, float(picture.height)),
        )
        images[index] = np.asarray(
            picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
        )
    names = tuple(f"{index:04d}" for index in range(len(paths)))
    return Views(
        images=images,
        names=names,
        sources=tuple(map(str, paths)),
        source_sizes=np.asarray(sizes),
        source_from_view=np.stack(list(maps)),
        valid=np.tile(np.array([0, 0, height, width]), (len(paths), 1)),
    )


def to_pictures(views: Views) -> Tensor:
    """(S, 3, H, W) float32 in [0, 1] on the CPU."""
    return torch.from_numpy(views.images).permute(0, 3, 1, 2).float() / 255
