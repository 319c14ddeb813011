"""Multi-view tracks from depth: which views see a point, and where; the way to bundle adjustment.

A point of the scene is projected into every other view and counts as seen there when the view's own
depth at that place agrees with the point's. The geometric consistency check is the one multi-view
stereo filters its depth maps with (Schönberger et al., "Pixelwise View Selection for Unstructured
Multi-View Stereo", ECCV 2016).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .. import geometry
from ..sparse_model import SparseModel
from ..types import Cameras, Scene
from .reproject import Reprojected, reproject

logger = logging.getLogger(__name__)

# So many times the longest track are gathered, since ``max_error`` drops some of them.
_SPARE = 2


class Observations(NamedTuple):
    """Sightings of points, one a row, in order of view.

    Fields
        point     (M,) int64: the point, an index.
        view      (M,) int32: the view that sees it.
        pixel     (M, 2) float64: (column, row) in the view.
        position  (M, 3) float64: where this view's own depth puts the point in the world.
        weight    (M,) float64: this view's confidence in that.
    """

    point: np.ndarray
    view: np.ndarray
    pixel: np.ndarray
    position: np.ndarray
    weight: np.ndarray

    def select(self, chosen: np.ndarray) -> Observations:
        """Those that a boolean mask or increasing indices choose."""
        return Observations(*(column[chosen] for column in self))


def build_sparse_model(
    scene: Scene,
    *,
    target_points: int = 100_000,
    voxel: float | None = None,
    min_track: int = 2,
    max_track: int = 20,
    depth_tolerance: float = 0.03,
    confidence_percentile: float = 5.0,
    max_error: float = 2.0,
    shared_camera: bool = False,
) -> SparseModel:
    """Thin a scene's points and find the views that see each of them.

    A point's position is the confidence-weighted mean of what the views that see it say; its errors
    therefore measure how far their depths disagree. The observed pixels come from the same cameras
    and depth as the points, so bundle adjustment on them polishes, but cannot correct what all
    views agree on.

    Args:
        scene: with camera and depth heads.
        target_points: about how many points to try, by the choice of ``voxel``; fewer where voxels
            would become smaller than a pixel sees. Those that too few views see are then dropped.
        voxel: edge of the voxels, of which each keeps its most confident point; world units.
        min_track: keep points that at least so many views see. When no point has as many, as in a
            scene of one view, all points are kept and a warning is logged.
        max_track: keep only the most confident sightings of a point. Its position is the mean of
            twice as many at most, which bounds the memory for any number of views.
        depth_tolerance: largest relative difference between a view's depth and the point's.
        confidence_percentile: depths of lower confidence than this percentile confirm nothing.
        max_error: sightings further than this from the projected point are dropped, view pixels.
        shared_camera: images of equal source size share the median of their intrinsics.

    Raises:
        ValueError: the scene has no cameras or no depth.
    """
    prediction = scene.prediction
    if prediction.cameras is None or prediction.depth is None:
        raise ValueError("build_sparse_model needs heads=('camera', 'depth')")
    candidates = np.flatnonzero(np.isfinite(scene.points).all(axis=-1))
    if len(candidates) > 20 * target_points:
        chosen = np.random.default_rng(0).choice(len(candidates), 20 * target_points, replace=False)
        candidates = candidates[np.sort(chosen)]
    if voxel is None:
        voxel = voxel_for(scene, candidates, target_points)
    kept = candidates[thin(scene.points[candidates], scene.confidence[candidates], voxel)]
    found = find_observations(
        scene, prediction.depth, kept, depth_tolerance, confidence_percentile, _SPARE * max_track
    )
    positions = _mean_positions(found, len(kept))
    close = np.zeros(len(found.point), dtype=bool)
    for i, rows in _by_view(found.view, len(scene.views)):
        seen = geometry.project(
            positions[found.point[rows]],
            prediction.cameras.intrinsics[i],
            prediction.cameras.camera_from_world[i],
        )
        distance = np.linalg.norm(seen[:, :2] - found.pixel[rows], axis=-1)
        close[rows] = (distance <= max_error) & (seen[:, 2] > 0)
    found = _most_confident(found.select(close), max_track)
    lengths = np.bincount(found.point, minlength=len(kept))
    enough = lengths >= min_track
    if not enough.any():
        enough = lengths >= 1
        logger.warning(
            "no point is seen by %d views: %d points of one view are kept; "
            "bundle adjustment cannot use them",
            min_track,
            enough.sum(),
        )
    found = found.select(enough[found.point])
    number = np.cumsum(enough) - 1
    found = found._replace(point=number[found.point])
    cameras, camera_index = _source_cameras(prediction.source_cameras, shared_camera)
    ones = np.ones((len(found.pixel), 1))
    source = prediction.views.source_from_view[found.view]
    pixels = (source @ np.concatenate([found.pixel, ones], axis=-1)[..., None])[..., :2, 0]
    model = SparseModel(
        names=prediction.views.names,
        cameras=cameras,
        camera_index=camera_index,
        points=_mean_positions(found, int(enough.sum())),
        colors=scene.colors[kept[enough]],
        errors=np.zeros(int(enough.sum())),
        observations=pixels,
        observation_image=found.view,
        observation_point=found.point,
    )
    lengths = np.maximum(model.track_lengths, 1)
    errors = np.bincount(found.point, model.reprojection_errors(), len(lengths)) / lengths
    logger.info(
        "%d points of %d, mean track %.2f, mean error %.2f source pixels",
        len(errors),
        len(scene.points),
        lengths.mean() if len(lengths) else 0,
        errors.mean() if len(errors) else 0,
    )
    return replace(model, errors=errors)


def voxel_for(scene: Scene, candidates: np.ndarray, target: int) -> float:
    """Edge of the voxels, world units, of which the candidate points occupy about ``target``.

    Never smaller than what a pixel sees at the median depth: finer voxels would keep the same spot
    once for every view that sees it.
    """
    points = scene.points[candidates].astype(np.float64)
    if not len(points):
        return 1.0
    view = scene.view_index[candidates]
    pose = scene.cameras.camera_from_world[view]
    depth = np.einsum("nj,nj->n", pose[:, 2, :3], points) + pose[:, 2, 3]
    footprint = float(np.median(np.abs(depth) / scene.cameras.intrinsics[view, 0, 0]))
    extent = float(np.ptp(points, axis=0).max())
    smallest = max(footprint, extent / 2**20, 1e-12)
    voxel = smallest
    for _ in range(10):
        occupied = len(np.unique(_voxel_keys(points, voxel)))
        if 0.9 * target <= occupied <= 1.1 * target or (voxel == smallest and occupied < target):
            break
        # Surfaces fill voxels as the square of the resolution; curves and solids converge too.
        voxel = max(voxel * np.sqrt(occupied / target), smallest)
    return voxel


def thin(points: np.ndarray, confidence: np.ndarray, voxel: float) -> np.ndarray:
    """Increasing indices of the most confident of the (N, 3) points in each occupied voxel."""
    keys = _voxel_keys(points.astype(np.float64), voxel)
    order = np.lexsort((-confidence, keys))
    first = np.ones(len(order), dtype=bool)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    return np.sort(order[first])


def _voxel_keys(points: np.ndarray, voxel: float) -> np.ndarray:
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    cell = np.floor((points - points.min(axis=0)) / voxel)
    x, y, z = np.minimum(cell, 2**21 - 1).astype(np.int64).T
    keys: np.ndarray = (x << 42) | (y << 21) | z
    return keys


def find_observations(
    scene: Scene,
    depths: np.ndarray,
    kept: np.ndarray,
    depth_tolerance: float,
    confidence_percentile: float,
    most: int,
) -> Observations:
    """Sightings of the kept points: in their own view, and where another's depth agrees.

    The ``most`` confident of each point are kept, and hardly more are ever held at a time, however
    many views there are.
    """
    cameras, views, confidence = scene.cameras, scene.views, scene.prediction.depth_confidence
    points = scene.points[kept].astype(np.float64)
    own_view, centers = scene.view_index[kept], cameras.centers
    threshold = 0.0
    if confidence is not None and len(views):
        threshold = float(np.percentile(confidence[views.valid_mask()], confidence_percentile))
    parts: list[Observations] = []
    for i in range(len(views)):
        theirs = np.flatnonzero(own_view != i)
        seen = reproject(
            points[theirs],
            depths[i],
            cameras.intrinsics[i],
            cameras.camera_from_world[i],
            views.valid[i],
        ).agreeing(depth_tolerance)
        weight = np.ones(len(seen.point))
        if confidence is not None:
            column, row = np.rint(seen.pixel).astype(np.int64).T
            weight = confidence[i, row, column].astype(np.float64)
            certain = weight >= threshold
            weight, seen = weight[certain], Reprojected(*(part[certain] for part in seen))
        rows, mine = theirs[seen.point], np.flatnonzero(own_view == i)
        along = (seen.there / seen.depth)[:, None]
        parts.append(
            Observations(
                point=np.concatenate([mine, rows]),
                view=np.full(len(mine) + len(rows), i, dtype=np.int32),
                pixel=np.concatenate([scene.pixel[kept[mine]], seen.pixel]),
                position=np.concatenate(
                    [points[mine], centers[i] + along * (points[rows] - centers[i])], axis=0
                ),
                weight=np.concatenate([scene.confidence[kept[mine]], weight]),
            )
        )
        if sum(len(part.point) for part in parts) > 1.5 * most * len(kept):
            parts = [_most_confident(_joined(parts), most)]
    return _most_confident(_joined(parts), most)


def _joined(parts: list[Observations]) -> Observations:
    return Observations(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _by_view(view: np.ndarray, count: int) -> list[tuple[int, slice]]:
    ends = np.searchsorted(view, np.arange(count), side="right")
    return [(i, slice(ends[i - 1] if i else 0, ends[i])) for i in range(count)]


def _mean_positions(found: Observations, count: int) -> np.ndarray:
    """(count, 3) weighted mean of what each point's views say."""
    total = np.maximum(np.bincount(found.point, found.weight, count), 1e-30)
    axes = [np.bincount(found.point, found.weight * p, count) / total for p in found.position.T]
    return np.stack(axes, axis=-1)


def _most_confident(found: Observations, longest: int) -> Observations:
    order = np.lexsort((-found.weight, found.point))
    starts = np.searchsorted(found.point[order], found.point[order])
    return found.select(np.sort(order[np.arange(len(order)) - starts < longest]))


def _source_cameras(cameras: Cameras, shared: bool) -> tuple[Cameras, np.ndarray]:
    """Cameras of the source pictures, and which camera each image has."""
    if not shared:
        return cameras, np.arange(len(cameras), dtype=np.int32)
    _, index = np.unique(cameras.sizes, axis=0, return_inverse=True)
    intrinsics = cameras.intrinsics.copy()
    for camera in np.unique(index):
        intrinsics[index == camera] = np.median(cameras.intrinsics[index == camera], axis=0)
    return replace(cameras, intrinsics=intrinsics), index.astype(np.int32)
