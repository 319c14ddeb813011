"""Accuracy of depth and cameras: pure functions on numpy arrays.

Depth: AbsRel and delta as in Eigen et al. 2014, after scale alignment by the ratio of medians.
Cameras: relative rotation and translation-direction errors over all pairs of views and the area
under their accuracy curve, as scored for Co3Dv2 by Wang et al., "PoseDiffusion", 2023, and VGGT.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import geometry


class DepthScore(NamedTuple):
    """``abs_rel``: mean of |d - t| / t; ``delta1``: share with max(d / t, t / d) < 1.25."""

    abs_rel: float
    delta1: float


def depth_score(
    depth: np.ndarray, truth: np.ndarray, valid: np.ndarray, align: bool = True
) -> DepthScore:
    """Score depth against truth where ``valid``; arrays of one shape.

    Args:
        depth: predicted depth, positive.
        truth: true depth, positive where valid.
        valid: bool.
        align: multiply the prediction by median(truth) / median(depth) over all valid pixels, one
            factor for everything that is handed in (a scene, not an image).

    Raises:
        ValueError: when nothing is valid.
    """
    if not valid.any():
        raise ValueError("depth_score needs at least one valid pixel")
    d, t = depth[valid].astype(np.float64), truth[valid].astype(np.float64)
    if align:
        d = d * (np.median(t) / np.median(d))
    ratio = np.maximum(d / t, t / np.maximum(d, 1e-12))
    return DepthScore(float(np.mean(np.abs(d - t) / t)), float(np.mean(ratio < 1.25)))


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
    spin = ours[:, :, :3] @ np.swapaxes(theirs[:, :, :3], 1, 2)
    cosine = (np.trace(spin, axis1=1, axis2=2) - 1) / 2
    rotation = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
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
