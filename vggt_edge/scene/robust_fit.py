"""A similarity between two point sets of which some correspond wrongly.

Hypotheses from random triples and from the caller are scored by truncated squared error (MSAC: Torr
and Zisserman 2000), and the best is polished by iteratively reweighted least squares with Tukey's
weight, which ignores what is far off altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import Similarity, fit_similarity

_POLISH = 30
# Tukey's weight keeps 95 % of least squares' efficiency at this many standard deviations.
_TUKEY = 4.685


@dataclass(frozen=True)
class RobustFit:
    """A fitted similarity and how well the points obey it.

    Fields
        similarity  target = similarity(source).
        errors      (N,) distance of each mapped source to its target, in units of its tolerance.
        inliers     (N,) bool: error of 1 or less.
    """

    similarity: Similarity
    errors: np.ndarray
    inliers: np.ndarray


def robust_similarity(
    source: np.ndarray,
    target: np.ndarray,
    tolerance: np.ndarray | float,
    *,
    weights: np.ndarray | None = None,
    candidates: Sequence[Similarity] = (),
    samples: int = 200,
    seed: int = 0,
) -> RobustFit:
    """Fit ``target = similarity(source)`` to (N, 3) pairs of points, at best half of them wrong.

    Args:
        source: points to move.
        target: where they should be.
        tolerance: (N,) or one: how far apart a correct pair may be, in units of the target.
        weights: (N,) non-negative importance of each pair; equal when None.
        candidates: hypotheses to score beside the random ones.
        samples: random triples to try.
        seed: of the draw.

    Raises:
        ValueError: fewer than three pairs, or no hypothesis that any three pairs agree with.
    """
    if len(source) < 3:
        raise ValueError(f"robust_similarity needs at least 3 pairs of points, got {len(source)}")
    source, target = source.astype(np.float64), target.astype(np.float64)
    tolerance = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), len(source))
    weights = np.ones(len(source)) if weights is None else weights.astype(np.float64)
    hypotheses = [*candidates, *_triples(source, target, weights, samples, seed)]

    def errors_of(similarity: Similarity) -> np.ndarray:
        return np.linalg.norm(similarity.apply(source) - target, axis=-1) / tolerance

    def cost_of(similarity: Similarity) -> float:
        return float(weights @ np.minimum(errors_of(similarity) ** 2, 1.0))

    if not hypotheses:
        raise ValueError("robust_similarity needs points that are not all in one place")
    best = min(hypotheses, key=cost_of)
    for _ in range(_POLISH):
        errors = errors_of(best)
        share = tukey(errors, weights)
        if np.count_nonzero(share) < 3:
            break
        try:
            polished = fit_similarity(source, target, weights * share / tolerance**2)
        except ValueError:
            break
        # Least squares may leave the truncated error's valley: never for the worse.
        if not cost_of(polished) <= cost_of(best) * (1 + 1e-9):
            break
        moved = np.abs(errors_of(polished) - errors).max()
        best = polished
        if moved < 1e-10:
            break
    errors = errors_of(best)
    inliers = errors <= 1
    if inliers.sum() < 3 or not best.scale > 0:
        raise ValueError("no similarity that three pairs of points agree with")
    return RobustFit(best, errors, inliers)


def tukey(errors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(N,) weights in [0, 1] of errors, in units of their tolerance, by their own spread.

    Args:
        errors: (N,) non-negative.
        weights: (N,) importance of each in the spread; equal when None.
    """
    inside = errors <= 1
    if not inside.any():
        return np.zeros(len(errors))
    importance = np.ones(len(errors)) if weights is None else weights
    spread = 1.4826 * _weighted_median(errors[inside], importance[inside])
    cut = np.clip(_TUKEY * spread, 1e-7, 1.0)
    share: np.ndarray = np.maximum(1 - (errors / cut) ** 2, 0.0) ** 2
    return share


def _triples(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray, samples: int, seed: int
) -> list[Similarity]:
    rng = np.random.default_rng(seed)
    drawable = np.flatnonzero(weights > 0)
    found = []
    for _ in range(samples if len(drawable) >= 3 else 0):
        three = rng.choice(drawable, 3, replace=False)
        try:
            similarity = fit_similarity(source[three], target[three])
        except ValueError:
            continue
        if similarity.scale > 0:
            found.append(similarity)
    return found


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
