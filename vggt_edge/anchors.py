"""Which views stand for all others: farthest-point sampling of unit descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Anchors(NamedTuple):
    """Some of S views, and how well they cover the rest.

    Fields
        indices   (K,) int64, in the order they were chosen: the first K' of them are what asking
                  for K' would have given.
        nearest   (S,) int64: position in ``indices`` of the anchor most like each view.
        distance  (S,) float32: 1 - cosine to that anchor.
    """

    indices: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def farthest_points(descriptors: np.ndarray, count: int, *, first: Sequence[int] = (0,)) -> Anchors:
    """Views chosen one by one, each the least like all chosen before it (Gonzalez 1985).

    Deterministic: it starts at given views and ties go to the lowest index. The radius it reaches
    is at most twice the best possible one in Euclidean distance. Kept as one diverse set for all
    queries, such views are what sparse attention should see (Good Token Hunting, arXiv 2605.23892).

    Args:
        descriptors: (S, D) unit rows.
        count: how many views, those of ``first`` included; at most S are returned.
        first: views that are anchors in any case. View 0 fixes the world frame, so it belongs here.

    Raises:
        ValueError: without views, a count below that of ``first``, or views that are not there.
    """
    views = len(descriptors)
    start = list(dict.fromkeys(int(i) for i in first))
    if not views:
        raise ValueError("farthest_points needs at least one view")
    if not start or min(start) < 0 or max(start) >= views:
        raise ValueError(f"first={tuple(first)} must name views of 0 to {views - 1}")
    if count < len(start):
        raise ValueError(f"{count} anchors cannot hold the {len(start)} that are given")
    nearest = np.zeros(views, np.int64)
    distance = np.full(views, np.inf, np.float32)
    free = np.ones(views, bool)
    indices: list[int] = []
    while len(indices) < min(count, views):
        if len(indices) < len(start):
            chosen = start[len(indices)]
        else:
            # Where all are alike, rounding must not choose one twice.
            chosen = int(np.argmax(np.where(free, distance, -np.inf)))
        free[chosen] = False
        candidate = np.maximum(1 - descriptors @ descriptors[chosen], 0).astype(np.float32)
        closer = free & (candidate < distance)
        nearest[closer], distance[closer] = len(indices), candidate[closer]
        nearest[chosen], distance[chosen] = len(indices), 0
        indices.append(chosen)
    return Anchors(np.array(indices), nearest, distance)
