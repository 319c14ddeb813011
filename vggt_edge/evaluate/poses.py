"""Relative pose over all pairs of views: RRA, RTA and AUC, in the definitions in use.

``usual``
    j_from_i of every pair; the angle between translation directions regardless of sign, at most 90;
    AUC sums a histogram with bins of one degree. As in Wang et al., "PoseDiffusion", 2023, and the
    evaluation of pi3; the papers' numbers.
``strict``
    The same pairs, but a direction that points backwards is wrong (up to 180 degrees) and the area
    is exact. A feed-forward network has no sign to be forgiven. Never above ``usual``; what
    training validates by (``metrics``).
``legacy``
    The published script of VGGT and QuantVGGT (run_co3d.py): inv(E_i) E_j of camera-from-world
    matrices E after the first camera was made the world. Its translation is a difference of the
    *translation vectors of extrinsics*, not a baseline, and its rotation errors differ as well;
    both depend on which frame came first. Sign and bins as in ``usual``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import geometry, metrics

DEFINITIONS = ("usual", "strict", "legacy")


def pair_errors(
    camera_from_world: np.ndarray, truth: np.ndarray, definition: str = "usual"
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation-direction errors in degrees over all pairs of (S, 3, 4) extrinsics.

    A camera that is not finite was not found: its pairs are wrong by 180 degrees in both. The order
    of the pairs is not that of another definition.

    Raises:
        ValueError: an unknown definition.
    """
    if definition not in DEFINITIONS:
        raise ValueError(f"no definition of pose errors is called {definition!r}")
    ours, theirs = camera_from_world, truth
    if definition == "legacy":
        ours, theirs = _as_published(ours), _as_published(theirs)
    rotation, translation = metrics.relative_pose_errors(ours, theirs)
    if definition != "strict":
        translation = np.minimum(translation, 180 - translation)
    lost = ~np.isfinite(rotation)
    return np.where(lost, 180.0, rotation), np.where(lost, 180.0, translation)


def _as_published(camera_from_world: np.ndarray) -> np.ndarray:
    """Poses whose usual relative poses are the script's.

    ``inv(E_i) E_j`` is the usual relative pose of the inverses in reverse order.
    """
    first = geometry.invert_rigid(camera_from_world[:1])
    return geometry.invert_rigid(geometry.compose_rigid(camera_from_world, first))[::-1]


def binned_auc(rotation: np.ndarray, translation: np.ndarray, threshold: int = 30) -> float:
    """Area under the accuracy curve as the literature sums it: bins of one degree, in [0, 1].

    Each bin counts with its upper edge, so this is above the exact ``metrics.pose_auc``, and by the
    more the smaller the threshold: by up to 0.017 at 30 degrees, 0.17 at 3.

    Raises:
        ValueError: without any pair.
    """
    if not len(rotation):
        raise ValueError("binned_auc needs at least one pair of views")
    worst = np.maximum(rotation, translation)
    histogram, _ = np.histogram(worst, bins=np.arange(threshold + 1))
    return float(np.mean(np.cumsum(histogram / len(worst))))


def pose_score(
    camera_from_world: np.ndarray,
    truth: np.ndarray,
    definition: str = "usual",
    thresholds: Sequence[int] = (30, 15, 5, 3),
) -> dict[str, float]:
    """``auc30``, ``rra30`` and ``rta30`` and so on, shares in [0, 1], of (S, 3, 4) extrinsics.

    ``rra30`` and ``rta30`` are the shares of pairs whose rotation and translation direction are
    wrong by less than 30 degrees.

    Raises:
        ValueError: an unknown definition, or fewer than two views.
    """
    rotation, translation = pair_errors(camera_from_world, truth, definition)
    area = metrics.pose_auc if definition == "strict" else binned_auc
    score: dict[str, float] = {}
    for degrees in thresholds:
        score[f"auc{degrees}"] = area(rotation, translation, degrees)
        score[f"rra{degrees}"] = float(np.mean(rotation < degrees))
        score[f"rta{degrees}"] = float(np.mean(translation < degrees))
    return score


def focal_error(intrinsics: np.ndarray, truth: np.ndarray) -> float:
    """Median over (S, 3, 3) intrinsics of the relative error of the mean focal length.

    Images must be of one size in both; the sign of a focal length (a flipped axis) does not count.
    """
    ours, theirs = (np.abs(k[:, [0, 1], [0, 1]]).mean(axis=1) for k in (intrinsics, truth))
    error = np.abs(ours / theirs - 1)
    return float(np.median(np.where(np.isfinite(error), error, np.inf)))
