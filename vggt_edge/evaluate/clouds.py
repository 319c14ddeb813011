"""A point cloud against the true surface: accuracy, completeness, normals, F-score.

Accuracy is the distance of a predicted point to the nearest true one, completeness that of a true
point to the nearest predicted one, normal consistency |n . n'| between these neighbours, averaged
over both directions. As in the scripts of Spann3R, CUT3R, QuantVGGT and pi3, with their parameters:
normals from 30 neighbours, ICP point to point, at most 30 steps (Open3D's defaults).

Alignments, before an optional ICP:

umeyama      the least-squares similarity between corresponding pixels (pi3; VGGT's paper).
scale_shift  both clouds in the frame of the first camera; the median z of each subtracted; the
             prediction scaled by the ratio of median distances to the median point (DUSt3R's
             criterion, in Spann3R, CUT3R and QuantVGGT's run_7andN.py). Does not rotate.
bounds       the prediction, in the first camera's true pose, is scaled and moved until centre and
             diagonal of its bounding box are those of the truth (FastVGGT's ScanNet-50).
cameras      the similarity of the camera centres; all there is where the truth has no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import geometry
from ..errors import MissingExtraError
from ..geometry import Similarity

ALIGNMENTS = ("umeyama", "scale_shift", "bounds", "cameras")

NEIGHBOURS = 30
ICP_STEPS = 30
ICP_TOLERANCE = 1e-6


def tree(points: np.ndarray) -> Any:
    """A k-d tree of (N, 3) points.

    Raises:
        MissingExtraError: scipy is not installed.
        ValueError: there are no points.
    """
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise MissingExtraError("scipy", "evaluate", "scoring point clouds") from error
    if not len(points):
        raise ValueError("a point cloud without points cannot be scored")
    return cKDTree(points)


def median_scale_shift(points: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (N, 3) clouds after the alignment ``scale_shift``, in a frame of its own."""
    points, truth = points.astype(np.float64), truth.astype(np.float64)
    depth_axis = np.array([0.0, 0.0, 1.0])
    points = points - depth_axis * np.median(points[:, 2])
    truth = truth - depth_axis * np.median(truth[:, 2])

    def size(cloud: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(cloud - np.median(cloud, axis=0), axis=1)))

    return points * (size(truth) / np.clip(size(points), 1e-3, 1e3)), truth


def bounding_box(points: np.ndarray, truth: np.ndarray) -> Similarity:
    """The scaling and shift between the bounding boxes of two clouds, (N, 3) and (M, 3)."""
    low, high, true_low, true_high = (
        f(x, axis=0) for x in (points, truth) for f in (np.min, np.max)
    )
    diagonal = float(np.linalg.norm(high - low))
    scale = float(np.linalg.norm(true_high - true_low)) / diagonal if diagonal > 1e-8 else 1.0
    return Similarity(scale, np.eye(3), (true_low + true_high) / 2 - scale * (low + high) / 2)


def thin(points: np.ndarray, voxel: float) -> np.ndarray:
    """(M, 3): the mean of the (N, 3) points in each occupied voxel of side ``voxel``."""
    cell = np.floor((points - points.min(axis=0)) / voxel + 0.5).astype(np.int64)
    _, which, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    sums = [np.bincount(which, weights=points[:, axis]) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def icp(points: np.ndarray, truth: np.ndarray, reach: float) -> Similarity:
    """The rigid motion of (N, 3) points to a true cloud (M, 3) that ICP finds from where they are.

    Point to point (Besl and McKay 1992) on the neighbours within ``reach``; stops after 30 steps,
    or when neither their share nor their root mean square distance changes by more than 1e-6.
    """
    neighbours = tree(truth)
    motion = Similarity(1.0, np.eye(3), np.zeros(3))
    before = (-1.0, -1.0)
    for step in range(ICP_STEPS + 1):
        moved = motion.apply(points)
        distance, index = neighbours.query(moved, distance_upper_bound=reach, workers=-1)
        near = np.isfinite(distance)
        if near.sum() < 3:
            break
        now = float(near.mean()), float(np.sqrt(np.mean(distance[near] ** 2)))
        settled = all(abs(a - b) < ICP_TOLERANCE for a, b in zip(now, before, strict=True))
        if settled or step == ICP_STEPS or np.ptp(moved[near], axis=0).max() == 0:
            break
        before = now
        motion = geometry.fit_similarity(points[near], truth[index[near]], with_scale=False)
    return motion


def estimate_normals(points: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """(N, 3) unit normals, of either sign: the least principal axis of each point's neighbours.

    The point itself is one of them; with fewer than three, the normal is the z axis.
    """
    search, count = tree(points), min(neighbours, len(points))
    normals = np.tile(np.array([0.0, 0.0, 1.0]), (len(points), 1))
    if count < 3:
        return normals
    for start in range(0, len(points), 1 << 15):
        part = slice(start, start + (1 << 15))
        patch = points[search.query(points[part], k=count, workers=-1)[1]]
        patch = patch - patch.mean(axis=1, keepdims=True)
        normals[part] = np.linalg.eigh(np.swapaxes(patch, 1, 2) @ patch)[1][:, :, 0]
    return normals


def cloud_score(
    points: np.ndarray,
    truth: np.ndarray,
    thresholds: Sequence[float] = (),
    clip: float | None = None,
) -> dict[str, float]:
    """Score an aligned (N, 3) cloud against the true one (M, 3).

    Args:
        points: predicted, in the frame and unit of the truth.
        truth: the true surface.
        thresholds: distances at which precision, recall and F-score are taken.
        clip: distances count at most this much.

    Returns:
        ``acc_mean``, ``acc_median``, ``comp_mean``, ``comp_median``; ``overall``, the mean of the
        two means (DTU, ETH3D), ``chamfer``, their sum; ``nc_mean`` and ``nc_median``, means over
        both directions; for each threshold ``precision_0.05``, ``recall_0.05``, ``fscore_0.05``
        (Knapitsch et al., "Tanks and Temples", 2017).

    Raises:
        ValueError: a cloud without points.
    """
    points, truth = points.astype(np.float64), truth.astype(np.float64)
    accuracy, nearest_truth = tree(truth).query(points, workers=-1)
    completeness, nearest_point = tree(points).query(truth, workers=-1)
    if clip is not None:
        accuracy, completeness = np.minimum(accuracy, clip), np.minimum(completeness, clip)
    normals, true_normals = estimate_normals(points), estimate_normals(truth)
    agree = np.abs(np.sum(normals * true_normals[nearest_truth], axis=1))
    true_agree = np.abs(np.sum(true_normals * normals[nearest_point], axis=1))
    mean, true_mean = float(accuracy.mean()), float(completeness.mean())
    score = {
        "acc_mean": mean,
        "acc_median": float(np.median(accuracy)),
        "comp_mean": true_mean,
        "comp_median": float(np.median(completeness)),
        "overall": (mean + true_mean) / 2,
        "chamfer": mean + true_mean,
        "nc_mean": float(agree.mean() + true_agree.mean()) / 2,
        "nc_median": float(np.median(agree) + np.median(true_agree)) / 2,
    }
    for threshold in thresholds:
        precision = float(np.mean(accuracy < threshold))
        recall = float(np.mean(completeness < threshold))
        both = precision + recall
        score[f"precision_{threshold:g}"] = precision
        score[f"recall_{threshold:g}"] = recall
        score[f"fscore_{threshold:g}"] = 2 * precision * recall / both if both else 0.0
    return score
