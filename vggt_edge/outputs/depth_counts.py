"""Numbers as the 16-bit counts of a PNG: depth on a linear scale, confidence by rank."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NONE, BEYOND = 0, 65535
_FURTHEST = BEYOND - 1
_MILLIMETRE = 0.001
# 16 bits hold depths up to this multiple of the nearer ones within 0.08 % of those.
_SPREAD = 100.0
_NEAR_PERCENTILE = 10.0
# More values than this in all are thinned evenly.
_SAMPLE = 1 << 22


def valid_depth(depth: np.ndarray) -> np.ndarray:
    """Bool: where a depth map holds a depth, positive and finite."""
    valid: np.ndarray = np.isfinite(depth) & (depth > 0)
    return valid


def depth_step(depth: np.ndarray, shown: np.ndarray, units: str) -> float:
    """Depth of one count.

    The deepest pixel gets the last count, unless it is more than a hundred times as deep as the
    tenth percentile of all depths: one sky would leave everything else a handful of counts, so that
    what is deeper than the hundredfold is ``BEYOND``. Metric depth is counted in millimetres, as
    RGB-D tools expect, where that reaches as far.

    Args:
        depth: (S, H, W), not positive or not finite where unknown.
        shown: (S, H, W) bool, False for pixels that do not count.
        units: "arbitrary" or "metres".
    """
    deepest, sample = 0.0, []
    stride = depth.size // _SAMPLE + 1
    for current, mask in zip(depth, shown, strict=True):
        values = current[mask & valid_depth(current)]
        deepest = max(deepest, float(values.max(initial=0.0)))
        sample.append(values[::stride])
    if deepest == 0:
        return 1.0
    near = float(np.percentile(np.concatenate(sample), _NEAR_PERCENTILE))
    furthest = min(deepest, _SPREAD * near) if near > 0 else deepest
    if units == "metres" and furthest <= _FURTHEST * _MILLIMETRE:
        return _MILLIMETRE
    return furthest / _FURTHEST


def count_depth(depth: np.ndarray, step: float) -> np.ndarray:
    """uint16 counts of a depth map: ``NONE`` where invalid, ``BEYOND`` where they do not reach."""
    valid = valid_depth(depth)
    counts = np.rint(np.where(valid, depth, 0).astype(np.float64) / step)
    return np.where(valid, np.clip(counts, 1, BEYOND), NONE).astype(np.uint16)


def confidence_quantiles(confidence: Iterable[np.ndarray], size: int) -> np.ndarray:
    """The 65,536 quantiles of confidence over all views, increasing: what ranks are taken in.

    Args:
        confidence: per view, the values that count; those that are not finite are left out.
        size: how many there are about, in all.
    """
    stride = size // _SAMPLE + 1
    sample = [values[np.isfinite(values)][::stride] for values in confidence]
    values = np.concatenate(sample) if sample else np.zeros(0)
    if not len(values):
        return np.zeros(0)
    quantiles: np.ndarray = np.quantile(values.astype(np.float64), np.linspace(0, 1, 1 << 16))
    return quantiles


def count_rank(confidence: np.ndarray, valid: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """uint16: the share of pixels that are at most as confident, of 65,535; 0 where invalid."""
    known = valid & np.isfinite(confidence)
    ranks = np.searchsorted(quantiles, confidence, side="right") - 1
    return np.where(known, np.clip(ranks, 1, BEYOND), NONE).astype(np.uint16)
