"""The point cloud of a prediction against the true one of its recording, under a protocol."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import geometry, pixels
from ..recording import Recording
from ..types import Cameras, Prediction
from . import clouds, trajectories
from .protocol import CloudRule, generator

# Pixels beyond this many are thinned evenly: a thousand views would not fit in memory.
MOST_PIXELS = 20_000_000


def score_cloud(
    rule: CloudRule, recording: Recording, prediction: Prediction
) -> dict[str, dict[str, float]]:
    """Alignment to metrics (``clouds.cloud_score``).

    With true depth, predicted and true points are those of the view's pixels that have one; without
    it, or for the alignment "bounds", the truth is ``recording.points`` and the prediction all
    pixels that show picture; "umeyama" and "scale_shift" then have no pairs, and "cameras" takes
    their place. Empty when truth or prediction has nothing to compare.
    """
    cameras, shape = recording.cameras, _predicted(rule, prediction)
    if cameras is None or shape is None:
        return {}
    surface = recording.points() if recording.points is not None else None
    true_depth = recording.depth
    if true_depth is None and surface is None:
        return {}
    kinds = rule.alignments
    if true_depth is None:
        kinds = tuple(dict.fromkeys(k if k == "bounds" else "cameras" for k in kinds))
    measured = {}
    for kind in kinds:
        if kind in ("bounds", "cameras") and surface is not None:
            points, truth = _all_points(shape, prediction), surface
            kept = np.ones(len(points), dtype=bool)
        elif true_depth is not None:
            points, truth, kept = _pairs(rule, cameras, true_depth, shape, prediction)
        if not kept.any() or not len(truth):
            continue
        aligned = _align(kind, points, truth, kept, cameras, prediction)
        if aligned is not None:
            measured[kind] = _finish(rule, recording.name, *aligned)
    return measured


def _predicted(rule: CloudRule, prediction: Prediction) -> Callable[[int], np.ndarray] | None:
    """Index of a view to its (H, W, 3) predicted points, or None where the heads were not run."""
    depth, cameras, points = prediction.depth, prediction.cameras, prediction.points
    if rule.points == "points":
        return None if points is None else points.__getitem__
    if depth is None or cameras is None:
        return None
    k, poses = cameras.intrinsics, cameras.camera_from_world
    return lambda i: geometry.unproject(depth[i], k[i], poses[i])


def _every(prediction: Prediction) -> int:
    height, width = prediction.views.size
    return -(-len(prediction.views) * height * width // MOST_PIXELS)


def _all_points(shape: Callable[[int], np.ndarray], prediction: Prediction) -> np.ndarray:
    found = []
    for index, shown in enumerate(prediction.views.valid_mask()):
        points = shape(index)
        found.append(points[shown & np.isfinite(points).all(axis=-1)][:: _every(prediction)])
    return np.concatenate(found).astype(np.float64)


def _pairs(
    rule: CloudRule,
    cameras: Cameras,
    true_depth: Callable[[int], np.ndarray],
    shape: Callable[[int], np.ndarray],
    prediction: Prediction,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true points of the same pixels, (N, 3) each, and (N,): inside the crop."""
    views, every = prediction.views, _every(prediction)
    intrinsics = pixels.view_intrinsics(views, cameras.intrinsics)
    middle = _middle(views.size, rule.crop)
    predicted, truths, kept = [], [], []
    for index in range(len(views)):
        depth = pixels.truth_in_view(views, index, true_depth(index))
        points = shape(index)
        seen = (depth > 0) & (depth <= rule.farthest) & np.isfinite(points).all(axis=-1)
        true = geometry.unproject(
            depth.astype(np.float64), intrinsics[index], cameras.camera_from_world[index]
        )
        predicted.append(points[seen][::every])
        truths.append(true[seen][::every])
        kept.append(middle[seen][::every])
    return (
        np.concatenate(predicted).astype(np.float64),
        np.concatenate(truths),
        np.concatenate(kept),
    )


def _middle(size: tuple[int, int], crop: int | None) -> np.ndarray:
    inside = np.zeros(size, dtype=bool)
    half = max(size) if crop is None else crop // 2
    row, column = size[0] // 2, size[1] // 2
    inside[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = True
    return inside


def _align(
    kind: str,
    points: np.ndarray,
    truth: np.ndarray,
    kept: np.ndarray,
    cameras: Cameras,
    prediction: Prediction,
) -> tuple[np.ndarray, np.ndarray] | None:
    if kind == "umeyama":
        if kept.sum() < 3:
            return None
        points, truth = points[kept], truth[kept]
        return trajectories.align(points, truth).apply(points), truth
    if kind == "scale_shift":
        # Over all pixels, before the crop, as published.
        truth = geometry.transform(cameras.camera_from_world[0], truth)
        points, truth = clouds.median_scale_shift(points, truth)
        return points[kept], truth[kept]
    if kind == "bounds":
        points = geometry.transform(cameras.world_from_camera[0], points)
        return clouds.bounding_box(points, truth).apply(points), truth
    if kind != "cameras":
        raise ValueError(f"no alignment of clouds is called {kind!r}")
    if prediction.cameras is None:
        return None
    found = np.isfinite(prediction.cameras.camera_from_world).all(axis=(1, 2))
    if found.sum() < 3:
        return None
    centers, true_centers = (c.centers[found] for c in (prediction.cameras, cameras))
    return trajectories.align(centers, true_centers).apply(points), truth


def _finish(rule: CloudRule, name: str, points: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    points, truth = _drawn(rule.limit, name, points, truth)
    if rule.icp is not None:
        points = clouds.icp(points, truth, rule.icp).apply(points)
    if rule.voxel is not None:
        points, truth = clouds.thin(points, rule.voxel), clouds.thin(truth, rule.voxel)
    return clouds.cloud_score(points, truth, rule.thresholds, rule.clip)


def _drawn(
    limit: int | None, name: str, points: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """At most ``limit`` points of either cloud.

    The same pixels of both where these are pairs: drawn apart, even a perfect prediction would be
    wrong by the distance between the points.
    """
    if limit is None:
        return points, truth
    random = generator(0, name)
    if len(points) == len(truth) > limit:
        kept = random.choice(len(points), limit, replace=False)
        return points[kept], truth[kept]
    if len(points) > limit:
        points = points[random.choice(len(points), limit, replace=False)]
    if len(truth) > limit:
        truth = truth[random.choice(len(truth), limit, replace=False)]
    return points, truth
