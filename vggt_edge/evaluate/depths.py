"""Depth against truth under the alignments in use. The measures are ``metrics.DepthScore``.

Predicted depth has no unit, so a protocol says what may be fitted before it is scored:

none             nothing: metric depth.
median           one factor, the ratio of medians.
scale            one factor, least squares.
scale_lad        one factor, least absolute differences: exact. The "scale" of MonST3R, CUT3R and
                 pi3, which takes ten steps of Weiszfeld's iteration towards it.
scale_shift      factor and offset, least squares.
scale_shift_lad  factor and offset, least absolute differences. The "scale & shift" of the same
                 papers stops an optimizer before it is there, so their numbers are a little worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import metrics

ALIGNMENTS = ("none", "median", "scale", "scale_lad", "scale_shift", "scale_shift_lad")


def fit(depth: np.ndarray, truth: np.ndarray, alignment: str) -> tuple[float, float]:
    """(factor, offset) that take (N,) depths to (N,) positive true depths under an alignment.

    Raises:
        ValueError: an unknown alignment, or no depth at all.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"no alignment of depth is called {alignment!r}")
    if not len(depth):
        raise ValueError("aligning depth needs at least one pixel")
    depth, truth = depth.astype(np.float64), truth.astype(np.float64)
    if alignment == "none" or not depth.any():
        return 1.0, 0.0
    if alignment == "median":
        return (metrics.median_scale(depth, truth) if np.median(depth) else 1.0), 0.0
    if alignment == "scale":
        return float(depth @ truth / (depth @ depth)), 0.0
    if alignment == "scale_lad":
        return _weighted_median(truth, depth), 0.0
    weights = np.ones_like(depth)
    factor, offset = _least_squares(depth, truth, weights)
    if alignment == "scale_shift_lad":
        floor = 1e-6 * float(np.median(truth))
        for _ in range(50):  # iteratively reweighted least squares
            weights = 1 / np.maximum(np.abs(factor * depth + offset - truth), floor)
            factor, offset = _least_squares(depth, truth, weights)
    return factor, offset


def _weighted_median(truth: np.ndarray, depth: np.ndarray) -> float:
    """The factor s of the least sum of ``|s d - t|``: the median of t / d, weighted by d."""
    seen = depth > 0
    ratio, weight = truth[seen] / depth[seen], depth[seen]
    order = np.argsort(ratio)
    total = np.cumsum(weight[order])
    return float(ratio[order][np.searchsorted(total, total[-1] / 2)])


def _least_squares(
    depth: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    mean, true_mean = (float(np.average(x, weights=weights)) for x in (depth, truth))
    variance = float(np.average((depth - mean) ** 2, weights=weights))
    if variance <= 1e-12 * mean * mean:  # constant depth: an offset alone, or a factor, is as good
        return true_mean / mean, 0.0
    factor = float(np.average((depth - mean) * (truth - true_mean), weights=weights)) / variance
    return factor, true_mean - factor * mean


def depth_score(
    depths: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    alignment: str = "median",
    per_image: bool = False,
) -> metrics.DepthScore:
    """Score the valid pixels of a scene, each pixel counting the same.

    Args:
        depths: for every image (N_i,) predicted depths at its valid pixels. A depth that is not
            finite counts as zero: nothing was predicted there.
        truths: for every image (N_i,) true depths of the same pixels, positive.
        alignment: of ``ALIGNMENTS``.
        per_image: fit every image by itself instead of the scene as a whole.

    Raises:
        ValueError: an unknown alignment, or no pixel in any image.
    """
    found = [np.where(np.isfinite(d), d, 0.0).astype(np.float64) for d in depths]
    if per_image:
        found = [
            factor * d + offset
            for d, t in zip(found, truths, strict=True)
            if len(d)
            for factor, offset in [fit(d, t, alignment)]
        ]
        depth = np.concatenate(found) if found else np.zeros(0)
    else:
        depth = np.concatenate(found)
        factor, offset = fit(depth, np.concatenate(truths), alignment)
        depth = factor * depth + offset
    truth = np.concatenate(truths)
    return metrics.depth_score(depth, truth, np.ones(len(truth), dtype=bool), align=False)
