"""Points into another view, and the depth that view says is there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import geometry


class Reprojected(NamedTuple):
    """Points that fall into the picture of a view, before its camera.

    Fields
        point  (M,) int64, increasing: which of the points.
        pixel  (M, 2) float64: (column, row) in the view.
        depth  (M,) float64: of the point in the view's camera.
        there  (M,) float64: what the view's depth map says at that place; NaN where it is unknown.
    """

    point: np.ndarray
    pixel: np.ndarray
    depth: np.ndarray
    there: np.ndarray

    def agreeing(self, tolerance: float) -> Reprojected:
        """Those where the two depths differ by no more than a share of the point's own."""
        agrees = np.abs(self.there - self.depth) <= tolerance * self.depth
        return Reprojected(*(column[agrees] for column in self))


def reproject(
    points: np.ndarray,
    depth_map: np.ndarray,
    intrinsics: np.ndarray,
    camera_from_world: np.ndarray,
    valid: np.ndarray,
) -> Reprojected:
    """Look up (N, 3) float64 world points in one view.

    Args:
        points: world frame.
        depth_map: (H, W) of the view.
        intrinsics: (3, 3) of the view.
        camera_from_world: (3, 4) of the view.
        valid: its box of picture, as in ``Views.valid``.
    """
    projected = geometry.project(points, intrinsics, camera_from_world)
    top, left, bottom, right = valid
    column, row, depth = projected.T
    # Half a pixel beyond the outermost centres is still picture.
    inside = (column >= left - 0.5) & (column < right - 0.5)
    inside &= (row >= top - 0.5) & (row < bottom - 0.5)
    point = np.flatnonzero(inside & (depth > 0))
    pixel = projected[point, :2]
    return Reprojected(point, pixel, depth[point], sample_depth(depth_map, pixel, valid))


def sample_depth(depth: np.ndarray, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W) depth at (N, 2) places, (column, row); NaN where a neighbour has no positive depth.

    Linear in inverse depth, which is exact on planes. Neighbours beyond the ``valid`` box are
    replaced by the nearest within.
    """
    top, left, bottom, right = valid
    column = np.clip(pixels[:, 0], left, right - 1)
    row = np.clip(pixels[:, 1], top, bottom - 1)
    c0, r0 = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    c1, r1 = np.minimum(c0 + 1, right - 1), np.minimum(r0 + 1, bottom - 1)
    fc, fr = column - c0, row - r0
    corners = np.stack([depth[r0, c0], depth[r0, c1], depth[r1, c0], depth[r1, c1]])
    known = np.isfinite(corners) & (corners > 0)
    inverse = 1 / np.where(known, corners.astype(np.float64), np.nan)
    weights = np.stack([(1 - fr) * (1 - fc), (1 - fr) * fc, fr * (1 - fc), fr * fc])
    result: np.ndarray = 1 / (weights * inverse).sum(axis=0)
    return result
