"""From a prediction to a scene: the points worth keeping, with their colours and pixels."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .. import geometry
from ..errors import InputError
from ..types import Cameras, Prediction, Scene
from .masks import edge_mask, sky_mask
from .reproject import reproject

# More values than this are thinned evenly before a percentile is taken of them.
_RANKED = 1 << 24
# Depths of two views agree when they differ by no more than this share.
_AGREEMENT = 0.05


def fuse(
    prediction: Prediction,
    *,
    percentile: float = 20.0,
    mask_sky: bool = False,
    mask_edges: bool = True,
    max_points: int | None = 1_000_000,
    min_consistent_views: int = 0,
    source: Literal["depth", "points"] = "depth",
    units: str = "arbitrary",
    seed: int = 0,
) -> Scene:
    """One point for each pixel that is picture, trusted and not at an edge.

    Works a view at a time; beside the result it needs a few bytes per pixel, and for the draw at
    most 160 for each of ``max_points``.

    Args:
        prediction: with cameras, and with depth or the point head's points.
        percentile: drop this share of all pixels, those with the lowest confidence. The rank is
            taken over all views together, since confidence has no scale of its own.
        mask_sky: drop what ``masks.sky_mask`` takes for sky.
        mask_edges: drop flying pixels, ``masks.edge_mask``.
        max_points: keep at most so many points, drawn uniformly; None keeps all.
        min_consistent_views: keep a point only if so many other views put a surface, by their own
            depth, within 5 % of it; the cost grows with the square of the number of views.
        source: "depth" unprojects depth with the cameras, "points" takes the point head.
        units: of the result, "arbitrary" or "metres".
        seed: of the draw.

    Raises:
        InputError: an argument out of range, or a head that ``source`` needs was not run.
    """
    if not 0 <= percentile < 100:
        raise InputError(f"percentile must be at least 0 and below 100, got {percentile}")
    if max_points is not None and max_points < 1:
        raise InputError(f"max_points must be at least 1, got {max_points}")
    surface = _surface(prediction, source)
    keep = _trusted(surface, percentile)
    if mask_edges:
        for depth, shown, mask in zip(surface.depth, surface.shown, keep, strict=True):
            # What the network makes of the padding is no neighbour of the picture.
            mask &= ~edge_mask(np.where(shown, depth, np.nan))
    if mask_sky:
        images = prediction.views.images
        keep &= ~sky_mask(images, surface.depth, surface.confidence, surface.shown)
    if min_consistent_views > 0:
        keep = np.stack(
            [_consistent(surface, keep[i], i, min_consistent_views) for i in range(len(keep))]
        )

    counts = keep.sum(axis=(1, 2))
    starts, count = np.cumsum(counts) - counts, int(counts.sum())
    chosen = None
    if max_points is not None and count > max_points:
        # Shuffling would take 8 bytes for each pixel kept, however few are drawn.
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(count, max_points, replace=False, shuffle=False))
        counts = np.diff(np.searchsorted(chosen, [*starts, count]))
        count = max_points
    view_index = np.repeat(np.arange(len(keep), dtype=np.int32), counts)
    scene = Scene(
        prediction=prediction,
        points=np.empty((count, 3), dtype=np.float32),
        colors=np.empty((count, 3), dtype=np.uint8),
        confidence=np.empty(count, dtype=np.float32),
        view_index=view_index,
        pixel=np.empty((count, 2), dtype=np.int32),
        units=units,
    )
    for i, mask in enumerate(keep):
        part = slice(*np.searchsorted(view_index, [i, i + 1]))
        row, column = np.nonzero(mask)
        if chosen is not None:
            own = chosen[part] - starts[i]
            row, column = row[own], column[own]
        scene.points[part] = surface.points_of(i)[row, column]
        scene.colors[part] = prediction.views.images[i, row, column]
        scene.confidence[part] = surface.confidence[i, row, column]
        scene.pixel[part] = np.stack([column, row], axis=1)
    return scene


class _Surface(NamedTuple):
    """What the chosen head says: depth and confidence per pixel, and the world points.

    ``valid`` and ``shown`` are the boxes and the mask of where views show picture.
    """

    cameras: Cameras
    valid: np.ndarray
    shown: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    points: np.ndarray | None

    def points_of(self, i: int) -> np.ndarray:
        """(H, W, 3) world points of one view."""
        if self.points is not None:
            view_points: np.ndarray = self.points[i]
            return view_points
        cameras, depth = self.cameras, np.where(np.isfinite(self.depth[i]), self.depth[i], 0)
        return geometry.unproject(depth, cameras.intrinsics[i], cameras.camera_from_world[i])


def _surface(prediction: Prediction, source: str) -> _Surface:
    cameras, shown = prediction.cameras, prediction.views.valid_mask()
    if source == "depth":
        depth, confidence, points = prediction.depth, prediction.depth_confidence, None
        if cameras is None or depth is None:
            raise InputError("points from depth need predict(..., heads=('camera', 'depth'))")
    elif source == "points":
        points, confidence = prediction.points, prediction.points_confidence
        if cameras is None or points is None:
            raise InputError(
                "points of the point head need predict(..., heads=('camera', 'point'))"
            )
        depth = np.empty(points.shape[:3], dtype=np.float32)
        for i, pose in enumerate(cameras.camera_from_world):
            with np.errstate(invalid="ignore"):
                depth[i] = points[i] @ pose[2, :3] + pose[2, 3]
    else:
        raise InputError(f"source must be 'depth' or 'points', got {source!r}")
    if confidence is None:
        confidence = np.ones_like(depth)
    return _Surface(cameras, prediction.views.valid, shown, depth, confidence, points)


def _trusted(surface: _Surface, percentile: float) -> np.ndarray:
    """(S, H, W) bool: picture with a valid depth, and confidence of sufficient rank."""
    keep = np.stack(
        [
            shown & np.isfinite(depth) & (depth > 0) & np.isfinite(confidence)
            for shown, depth, confidence in zip(
                surface.shown, surface.depth, surface.confidence, strict=True
            )
        ]
    )
    if percentile > 0 and keep.any():
        step = keep.size // _RANKED + 1
        ranked = np.concatenate(
            [c[k][::step] for c, k in zip(surface.confidence, keep, strict=True)]
        )
        keep &= surface.confidence >= np.percentile(ranked, percentile)
    return keep


def _consistent(surface: _Surface, mask: np.ndarray, i: int, wanted: int) -> np.ndarray:
    """(H, W) bool: the pixels of ``mask`` whose point lies on a surface of enough other views."""
    row, column = np.nonzero(mask)
    points = surface.points_of(i)[row, column].astype(np.float64)
    agreeing = np.zeros(len(points), dtype=np.int32)
    cameras = surface.cameras
    for j, pose in enumerate(cameras.camera_from_world):
        if j != i:
            depth, box = surface.depth[j], surface.valid[j]
            seen = reproject(points, depth, cameras.intrinsics[j], pose, box)
            agreeing[seen.agreeing(_AGREEMENT).point] += 1
    result = np.zeros_like(mask)
    result[row, column] = agreeing >= wanted
    return result
