"""Means over sequences with bootstrap intervals, by sequence; the mathematics is in ``bootstrap``.

The sequence is what is drawn, never the frame or the pair: frames of one scene are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..bootstrap import DRAWS, Interval, interval

__all__ = ["DRAWS", "Interval", "compare", "group_of", "interval", "summarize"]


def group_of(name: str, average: str) -> str:
    """The group a recording counts in under ``Protocol.average``."""
    return name.split("/")[0] if average == "groups" else ""


def summarize(
    scores: Mapping[str, Mapping[str, float]],
    average: str = "sequences",
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Metric to interval, of recording name to metric to value.

    A metric that some recordings do not have is averaged over those that do; ``sequences`` tells.
    """
    names = sorted(scores)
    found = {}
    for metric in dict.fromkeys(metric for name in names for metric in scores[name]):
        having = [name for name in names if metric in scores[name]]
        found[metric] = interval(
            [scores[name][metric] for name in having],
            [group_of(name, average) for name in having],
            level,
            draws,
            seed,
        )
    return found


def compare(
    scores: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    average: str = "sequences",
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Metric to interval of the difference ``scores - baseline``, paired by sequence.

    Only recordings that both have count. Pairing removes what makes one scene harder than another,
    so differences far smaller than either interval can be told from noise.
    """
    paired = {
        name: {
            metric: value - baseline[name][metric]
            for metric, value in metrics.items()
            if metric in baseline[name]
        }
        for name, metrics in scores.items()
        if name in baseline
    }
    return summarize(paired, average, level, draws, seed)
