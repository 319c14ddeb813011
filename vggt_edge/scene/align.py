"""Where two reconstructions share pictures: the similarity that takes one onto the other.

The same pixel of a shared picture is the same spot of the world, whatever frame and scale a forward
pass chose for it. Every shared picture is by itself a full hypothesis (rotation and position from
its two cameras, scale from its two depth maps); all confident pixels and camera centres vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import geometry
from ..errors import InputError
from ..geometry import Similarity
from ..types import Prediction
from .robust_fit import RobustFit, robust_similarity
from .sim3 import skew

# Pixels compared, over all shared pictures together.
_PIXELS = 4000
# A camera's centre counts as much as this share of all its pixels.
_CENTER = 0.25
# Errors of the pixels of one picture go together: a picture counts as so many observations.
_INDEPENDENT = 6
# Relative error below which agreement is no further evidence of precision.
_FLOOR = 1e-3


@dataclass(frozen=True)
class Alignment:
    """How one reconstruction lies in another.

    Fields
        similarity    a_from_b.
        inlier_ratio  share of the compared pixels, weighted, that the similarity explains.
        error         median distance of the explained ones, as a share of their depth.
        shared        pictures compared.
        agreeing      pictures of which most pixels are explained.
        information   (7, 7) inverse covariance of (log scale, rotation vector applied from the
                      right, translation) of the similarity; translation in a's unit.
    """

    similarity: Similarity
    inlier_ratio: float
    error: float
    shared: int
    agreeing: int
    information: np.ndarray

    def accepted(self, min_inlier_ratio: float = 0.5) -> bool:
        """Whether most of what was compared agrees, in more than one picture if there are more."""
        return self.inlier_ratio >= min_inlier_ratio and self.agreeing >= min(2, self.shared)


def align(
    a: Prediction,
    b: Prediction,
    shared: Sequence[tuple[int, int]],
    *,
    tolerance: float = 0.1,
    confidence_percentile: float = 30.0,
    seed: int = 0,
) -> Alignment | None:
    """Fit ``a_from_b`` to the pictures that two predictions share.

    Args:
        a: with cameras and depth.
        b: likewise; views of the same size as a's.
        shared: number in a and number in b of each shared picture.
        tolerance: how far apart the two ideas of a pixel's place may be, as a share of its depth.
        confidence_percentile: pixels of lower confidence than this share of a picture's, in either
            prediction, are not compared.
        seed: of the random hypotheses.

    Returns:
        None when no similarity explains even a few of the pixels.

    Raises:
        InputError: no shared pictures, or predictions without cameras or depth.
    """
    if not shared:
        raise InputError("align needs at least one shared picture")
    pairs = [_compare(a, b, i, j, confidence_percentile, len(shared)) for i, j in shared]
    compared = [pair for pair in pairs if pair is not None]
    if not compared:
        return None
    points_a, points_b, depth, weights = (
        np.concatenate(column) for column in zip(*(pair[:4] for pair in compared), strict=True)
    )
    try:
        fit = robust_similarity(
            points_b,
            points_a,
            tolerance * depth,
            weights=weights,
            candidates=[pair[4] for pair in compared],
            seed=seed,
        )
    except ValueError:
        return None
    frame = np.repeat(np.arange(len(compared)), [len(pair[2]) for pair in compared])
    explained = np.bincount(frame, weights * fit.inliers) / np.bincount(frame, weights)
    agreeing = int((explained > 0.5).sum())
    return Alignment(
        similarity=fit.similarity,
        inlier_ratio=float(weights @ fit.inliers / weights.sum()),
        error=tolerance * float(np.median(fit.errors[fit.inliers])),
        shared=len(shared),
        agreeing=agreeing,
        information=_information(fit, points_b, depth, tolerance, agreeing),
    )


Compared = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Similarity]


def _compare(
    a: Prediction, b: Prediction, i: int, j: int, percentile: float, pictures: int
) -> Compared | None:
    """Places of the pixels of one picture in a's and b's world, their depth in a, their weights,
    and the similarity that this picture alone implies; None when hardly any pixel is known in both.
    """
    keep, seen = a.views[[i]].valid_mask()[0], []
    for prediction, number in ((a, i), (b, j)):
        cameras, confidence = prediction.cameras, prediction.depth_confidence
        if cameras is None or prediction.depth is None:
            raise InputError("align needs predictions with heads=('camera', 'depth')")
        depth = prediction.depth[number].astype(np.float64)
        seen.append((depth, cameras.intrinsics[number], cameras.camera_from_world[number]))
        keep = keep & np.isfinite(depth) & (depth > 0)
        if confidence is not None and keep.any():
            keep &= confidence[number] >= np.percentile(confidence[number][keep], percentile)
    pixels = np.flatnonzero(keep)
    if len(pixels) < 8:
        return None
    count = min(len(pixels), max(64, _PIXELS // pictures))
    pixels = pixels[np.linspace(0, len(pixels) - 1, count).astype(np.int64)]
    places, poses, depths = [], [], []
    for depth, intrinsics, pose in seen:
        world = geometry.unproject(depth, intrinsics, pose)
        center = geometry.invert_rigid(pose)[:, 3]
        places.append(np.concatenate([world.reshape(-1, 3)[pixels], center[None]]))
        poses.append(pose)
        depths.append(depth.ravel()[pixels])
    scale = float(np.median(depths[0] / depths[1]))
    rotation = poses[0][:, :3].T @ poses[1][:, :3]
    centers = places[0][-1], places[1][-1]
    alone = Similarity(scale, rotation, centers[0] - scale * rotation @ centers[1])
    depth = np.append(depths[0], np.median(depths[0]))
    weights = np.append(np.full(count, 1 / count), _CENTER)
    return places[0], places[1], depth, weights, alone


def _information(
    fit: RobustFit, points: np.ndarray, depth: np.ndarray, tolerance: float, agreeing: int
) -> np.ndarray:
    """Gauss-Newton's normal matrix over the explained points, thinned to independent ones."""
    scale, rotation, _ = fit.similarity
    inside = fit.inliers
    turned = scale * points[inside] @ rotation.T
    lever = -scale * rotation @ skew(points[inside])
    shift = np.broadcast_to(np.eye(3), lever.shape)
    jacobian = np.concatenate([turned[:, :, None], lever, shift], axis=-1)
    jacobian /= depth[inside, None, None]
    variance = float(np.mean((tolerance * fit.errors[inside]) ** 2)) / 3 + _FLOOR**2
    share = _INDEPENDENT * max(agreeing, 1) / inside.sum()
    normal = np.einsum("nij,nik->jk", jacobian, jacobian) * share / variance
    # What the points leave free, as the tilt about a line of them, must not be singular.
    information: np.ndarray = normal + np.eye(7) * 1e-9 * np.trace(normal)
    return information
