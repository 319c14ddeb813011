"""A mean with its percentile-bootstrap interval (Efron 1979), seeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000


class Interval(NamedTuple):
    """A mean, the ends of its interval, and how many sequences it is of.

    One sequence says nothing about another: ``low`` and ``high`` are then NaN.
    """

    mean: float
    low: float
    high: float
    sequences: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of zero: a difference that is not noise."""
        return self.low > 0 or self.high < 0


def interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The mean of one value a sequence, with a bootstrap interval.

    Args:
        values: one a sequence.
        groups: when given, the mean is of the means of the groups (categories), and sequences are
            drawn within their group. A group of one sequence adds no spread.
        level: share of the resampled means inside the interval.
        draws: resampled means.
        seed: of the draws; equal seeds and counts draw equal sequences, so that intervals of two
            metrics are comparable.

    Raises:
        ValueError: no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("an interval needs at least one value")
    labels = np.zeros(len(values), dtype=int)
    if groups is not None:
        labels = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    random = np.random.default_rng(seed)
    means, drawn = [], np.zeros(draws)
    for label in range(labels.max() + 1):
        members = values[labels == label]
        means.append(members.mean())
        drawn += members[random.integers(len(members), size=(draws, len(members)))].mean(axis=1)
    mean = float(np.mean(means))
    if len(values) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn / len(means), [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(values))
