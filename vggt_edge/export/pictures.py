"""Photographs as the inputs of a fixed shape: to measure ranges on, and to prove a bundle with."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..types import Views
from .shape import Shape

CALIBRATION_SETS = 16


def fit(views: Views, shape: Shape) -> np.ndarray:
    """(N, V, H, W, 3) float32 in [0, 1]: runs of consecutive views, cut to the shape's aspect.

    Spread over all views, at most 16 runs.

    Raises:
        InputError: fewer views than the shape has.
    """
    if len(views) < shape.views:
        raise InputError(
            f"{len(views)} pictures to measure on, and one input is {shape.views}: give more"
        )
    count = min(CALIBRATION_SETS, len(views) - shape.views + 1)
    starts = np.linspace(0, len(views) - shape.views, count).round().astype(int)
    size = (shape.width, shape.height)
    resized = {
        i: np.asarray(
            ImageOps.fit(Image.fromarray(views.images[i]), size, Image.Resampling.BICUBIC)
        )
        for start in starts
        for i in range(start, start + shape.views)
    }
    sets = [[resized[start + i] for i in range(shape.views)] for start in starts]
    return np.asarray(sets, dtype=np.float32) / 255
