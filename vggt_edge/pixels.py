"""Between the pixels of a view and those of the true depth map of its picture.

A true depth map shows the whole picture, in a size of its own; a view shows a resized, cropped or
padded picture (``types.Views.source_from_view`` and ``valid``).
"""

from __future__ import annotations

import numpy as np

from .types import Views

MOST = 640 * 480


def truth_from_source(shape: tuple[int, int], source_size: np.ndarray) -> np.ndarray:
    """(3, 3): source pixels to pixels of a depth map of the same field of view, edges to edges."""
    scale_v, scale_u = np.array(shape) / source_size
    return np.array(
        [
            [scale_u, 0, 0.5 * scale_u - 0.5],
            [0, scale_v, 0.5 * scale_v - 0.5],
            [0, 0, 1],
        ]
    )


def truth_from_view(views: Views, index: int, shape: tuple[int, int]) -> np.ndarray:
    """(3, 3): pixels of a view to pixels of its true depth map of (h, w) ``shape``."""
    return truth_from_source(shape, views.source_sizes[index]) @ views.source_from_view[index]


def _apply(matrix: np.ndarray, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y, w = (m[0] * column + m[1] * row + m[2] for m in matrix)
    return x / w, y / w


def truth_in_view(views: Views, index: int, truth: np.ndarray) -> np.ndarray:
    """(H, W) float32: the nearest true depth at every pixel of a view; 0: unknown, or padding."""
    height, width = views.size
    row, column = np.mgrid[:height, :width]
    u, v = _apply(truth_from_view(views, index, truth.shape[:2]), column, row)
    u, v = np.rint(u).astype(int), np.rint(v).astype(int)
    top, left, bottom, right = views.valid[index]
    seen = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    seen &= (u >= 0) & (u < truth.shape[1]) & (v >= 0) & (v < truth.shape[0])
    found = np.zeros((height, width), dtype=np.float32)
    found[seen] = truth[v[seen], u[seen]]
    return np.where(np.isfinite(found) & (found > 0), found, 0)


def view_at_truth(
    views: Views, index: int, values: np.ndarray, truth: np.ndarray, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted values and true depth, both (N,), at the pixels of the true depth map.

    Args:
        views: the input.
        index: of the view.
        values: (H, W) of the view, interpolated bilinearly within its valid part.
        truth: (h, w) true depth; pixels without one, or outside of the view, are left out.
        most: a larger map is thinned to every second, third, ... row and column, to at most so
            many pixels: a drone's picture need not cost a thousand times a phone's.
    """
    height, width = truth.shape
    step = int(np.ceil(np.sqrt(max(1.0, height * width / most))))
    row, column = np.meshgrid(
        np.arange(step // 2, height, step), np.arange(step // 2, width, step), indexing="ij"
    )
    true = truth[row, column]
    u, v = _apply(np.linalg.inv(truth_from_view(views, index, truth.shape)), column, row)
    top, left, bottom, right = views.valid[index]
    # Pixel edges, half a pixel beyond the outermost centres, up to rounding.
    slack = 0.5 + 1e-6
    seen = (u >= left - slack) & (u <= right - 1 + slack)
    seen &= (v >= top - slack) & (v <= bottom - 1 + slack)
    seen &= np.isfinite(true) & (true > 0)
    u, v = np.clip(u[seen], left, right - 1), np.clip(v[seen], top, bottom - 1)
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    u1, v1 = np.minimum(u0 + 1, right - 1), np.minimum(v0 + 1, bottom - 1)
    a, b = u - u0, v - v0
    above = values[v0, u0] * (1 - a) + values[v0, u1] * a
    below = values[v1, u0] * (1 - a) + values[v1, u1] * a
    return above * (1 - b) + below * b, true[seen].astype(np.float64)


def view_intrinsics(views: Views, source_intrinsics: np.ndarray) -> np.ndarray:
    """(S, 3, 3) intrinsics of the views from those of their source pictures."""
    return np.linalg.inv(views.source_from_view) @ source_intrinsics
