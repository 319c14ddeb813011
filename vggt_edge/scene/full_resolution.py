"""Depth, confidence and intrinsics at the resolution of the source picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..types import Prediction
from .masks import edge_mask

# Rows of the source picture at a time: bounds the memory for pictures of any size.
_ROWS = 256


class FullResolution(NamedTuple):
    """One view's maps at the (h, w) of the picture it came from.

    Fields
        depth       (h, w) float32; NaN where the view did not show the picture (cropped away) or
                    the network gave no valid depth.
        confidence  (h, w) float32, 0 there; None if there was none.
        intrinsics  (3, 3) float64 of the source picture; None without the camera head.
    """

    depth: np.ndarray
    confidence: np.ndarray | None
    intrinsics: np.ndarray | None


def full_resolution(
    prediction: Prediction, index: int, *, threshold: float = 0.05
) -> FullResolution:
    """Resample one view's maps to its source picture, without inventing points across edges.

    Inverse depth, which is linear in the pixels of a plane under perspective, is interpolated
    bilinearly, so planes stay planes. At a discontinuity (``masks.edge_mask``) only those of the
    four neighbours count whose inverse depth is within ``threshold``, relative, of the nearest
    one's: each source pixel takes the side it is nearer to, and no flying pixels arise. Between
    the outermost pixel centres of the view and its border, the outermost pixels serve.

    Args:
        prediction: with depth.
        index: of the view.
        threshold: relative step of depth that makes an edge.

    Raises:
        ValueError: predicted without the depth head.
    """
    if prediction.depth is None:
        raise ValueError("full_resolution needs the depth head: heads=('camera', 'depth')")
    views = prediction.views
    height, width = views.source_sizes[index].tolist()
    top, left, bottom, right = views.valid[index].tolist()
    depth = prediction.depth[index, top:bottom, left:right].astype(np.float32)
    valid = np.isfinite(depth) & (depth > 0)
    inverse = np.where(valid, 1 / np.where(valid, depth, 1), 0)
    confidence = None
    if prediction.depth_confidence is not None:
        confidence = prediction.depth_confidence[index, top:bottom, left:right]
    edges = edge_mask(depth, threshold) | ~valid

    view_from_source = np.linalg.inv(views.source_from_view[index])
    full_depth = np.full((height, width), np.nan, dtype=np.float32)
    full_confidence = None if confidence is None else np.zeros((height, width), dtype=np.float32)
    for start in range(0, height, _ROWS):
        rows = slice(start, min(start + _ROWS, height))
        x, y = _view_pixels(view_from_source, rows, width)
        corners, weights = _neighbours(x - left, y - top, inverse, edges, threshold)
        total = sum(weights)
        inside = (total > 0) & (np.abs(x - (left + right - 1) / 2) <= (right - left) / 2 + 1e-6)
        inside &= np.abs(y - (top + bottom - 1) / 2) <= (bottom - top) / 2 + 1e-6
        total = np.where(inside, total, 1)
        mean = sum(w * inverse[c] for c, w in zip(corners, weights, strict=True)) / total
        full_depth[rows][inside] = 1 / mean[inside]
        if confidence is not None and full_confidence is not None:
            mean = sum(w * confidence[c] for c, w in zip(corners, weights, strict=True)) / total
            full_confidence[rows][inside] = mean[inside]
    cameras = None if prediction.cameras is None else prediction.source_cameras
    intrinsics = None if cameras is None else cameras.intrinsics[index]
    return FullResolution(full_depth, full_confidence, intrinsics)


def _view_pixels(
    view_from_source: np.ndarray, rows: slice, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) columns and rows in the view of a band of source pixels."""
    v, u = np.mgrid[rows, :width].astype(np.float64)
    x, y, w = (m[0] * u + m[1] * v + m[2] for m in view_from_source)
    return x / w, y / w


def _neighbours(
    x: np.ndarray, y: np.ndarray, inverse: np.ndarray, edges: np.ndarray, threshold: float
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
    """Indices and weights of the four pixels around each place; all weights 0 where none counts."""
    height, width = inverse.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = x.astype(np.intp), y.astype(np.intp)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    a, b = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    corners = [(y0, x0), (y0, x1), (y1, x0), (y1, x1)]
    weights = [(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]
    at_edge = edges[y0, x0] | edges[y0, x1] | edges[y1, x0] | edges[y1, x1]
    nearest = inverse[np.where(b < 0.5, y0, y1), np.where(a < 0.5, x0, x1)]
    for weight, corner in zip(weights, corners, strict=True):
        apart = np.abs(inverse[corner] - nearest) > threshold * nearest
        weight[at_edge & (apart | (nearest == 0))] = 0
    return corners, weights
