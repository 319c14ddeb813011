"""Accuracy of depth and cameras: pure functions on numpy arrays.

Depth: the measures of Eigen et al. 2014, after scale alignment by the ratio of medians.
Cameras: relative rotation and translation-direction errors over all pairs of views and the area
under their accuracy curve, as scored for Co3Dv2 by Wang et al., "PoseDiffusion", 2023, and VGGT.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import geometry


class DepthScore(NamedTuple):
    """Means over valid pixels of depth d against truth t.

    Fields
        abs_rel   |d - t| / t.
        sq_rel    (d - t)^2 / t, in the unit of t.
        rmse      root of the mean of (d - t)^2, in the unit of t.
        log_rmse  root of the mean of (ln d - ln t)^2, with d held above 1e-5.
        delta1    share with max(d / t, t / d) < 1.25; delta2 and delta3: < 1.25^2 and < 1.25^3.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    log_rmse: float
    delta1: float
    delta2: float
    delta3: float


def median_scale(depth: np.ndarray, truth: np.ndarray) -> float:
    """The factor that gives positive ``depth`` the median of ``truth``."""
    return float(np.median(truth) / np.median(depth))


def depth_score(
    depth: np.ndarray, truth: np.ndarray, valid: np.ndarray, align: bool = True
) -> DepthScore:
    """Score depth against truth where ``valid``; arrays of one shape.

    Args:
        depth: predicted depth, positive.
        truth: true depth, positive where valid.
        valid: bool.
        align: multiply the prediction by ``median_scale`` over all valid pixels, one factor for
            everything that is handed in (a scene, not an image).

    Raises:
        ValueError: when nothing is valid.
    """
    if not valid.any():
        raise ValueError("depth_score needs at least one valid pixel")
    d, t = depth[valid].astype(np.float64), truth[valid].astype(np.float64)
    if align:
        d = d * median_scale(d, t)
    ratio = np.maximum(d / t, t / np.maximum(d, 1e-12))
    error = d - t
    logarithm = np.log(np.maximum(d, 1e-5)) - np.log(t)
    return DepthScore(
        abs_rel=float(np.mean(np.abs(error) / t)),
        sq_rel=float(np.mean(error**2 / t)),
        rmse=float(np.sqrt(np.mean(error**2))),
        log_rmse=float(np.sqrt(np.mean(logarithm**2))),
        delta1=float(np.mean(ratio < 1.25)),
        delta2=float(np.mean(ratio < 1.25**2)),
        delta3=float(np.mean(ratio < 1.25**3)),
    )


def rotation_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...,) degrees between (..., 3, 3) rotations."""
    spin = a @ np.swapaxes(b, -1, -2)
    cosine = (np.trace(spin, axis1=-2, axis2=-1) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def relative_pose_errors(
    camera_from_world: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors in degrees over all pairs of (S, 3, 4) extrinsics: rotation, translation direction.

    The direction's sign counts (the error reaches 180); pairs whose true baseline is zero score 0
    in translation, as there is no direction to get wrong.
    """
    first, second = np.triu_indices(len(truth), k=1)

    def relative(poses: np.ndarray) -> np.ndarray:
        return geometry.compose_rigid(poses[second], geometry.invert_rigid(poses[first]))

    ours, theirs = relative(camera_from_world), relative(truth)
    rotation = rotation_angle(ours[:, :, :3], theirs[:, :, :3])
    a, b = ours[:, :, 3], theirs[:, :, 3]
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)
    translation = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    still = np.linalg.norm(b, axis=1) < 1e-9
    return rotation, np.where(still, 0.0, translation)


def pose_auc(rotation: np.ndarray, translation: np.ndarray, threshold: float = 30.0) -> float:
    """Area under accuracy against threshold up to ``threshold`` degrees, in [0, 1].

    A pair is right at t when both errors are below t. The area is exact: the mean of
    ``max(0, 1 - error / threshold)``.

    Raises:
        ValueError: without any pair.
    """
    if not len(rotation):
        raise ValueError("pose_auc needs at least one pair of views")
    worst = np.maximum(rotation, translation)
    return float(np.mean(np.maximum(0.0, 1.0 - worst / threshold)))
