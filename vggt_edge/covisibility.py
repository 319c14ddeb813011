"""Which views likely show the same place, from unit descriptors: neighbours, graph, components.

Likeness is not proof: these graphs propose, geometry or the network's own features decide.
Nothing here holds more than a block of the S x S similarities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BLOCK = 1024  # rows of the similarity matrix at a time


class Neighbours(NamedTuple):
    """(S, k) int64 indices and (S, k) float64 cosines of the views most like each, best first."""

    indices: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Graph:
    """Undirected graph over ``count`` views.

    Fields
        count       S.
        edges       (E, 2) int64, each once, first < second, in lexicographic order.
        similarity  (E,) float32, cosine of each edge's descriptors.
    """

    count: int
    edges: np.ndarray
    similarity: np.ndarray

    def neighbours(self) -> tuple[np.ndarray, ...]:
        """For each view the sorted indices of the views it shares an edge with."""
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        degrees = np.bincount(both[:, 0], minlength=self.count)
        ends = np.cumsum(degrees)
        return tuple(both[start:end, 1] for start, end in zip(ends - degrees, ends, strict=True))

    def components(self) -> np.ndarray:
        """(S,) int64 number of the connected component of each view, in order of first view."""
        return components(self.count, self.edges)


def row_blocks(count: int) -> Iterator[slice]:
    """All rows of a table of ``count``, in turn, as many as are held at a time."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


def similarities(descriptors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The cosines between (S, D) unit descriptors: which rows, and (rows, S) of them, in turn."""
    for rows in row_blocks(len(descriptors)):
        yield rows, descriptors[rows] @ descriptors.T


def nearest(descriptors: np.ndarray, k: int) -> Neighbours:
    """The ``min(k, S - 1)`` views most like each of S views, never itself.

    Of equal ones those nearest in order are preferred: the graph of 200 copies of one picture is
    then a band that can be cut, and not a few hubs.

    Args:
        descriptors: (S, D) unit rows.
        k: how many neighbours.
    """
    return nearest_in(similarities(descriptors), len(descriptors), k)


def nearest_in(blocks: Iterable[tuple[slice, np.ndarray]], count: int, k: int) -> Neighbours:
    """``nearest`` in a table of S x S similarities that comes in blocks.

    Args:
        blocks: which rows, and (rows, S) similarities of them.
        count: S.
        k: how many neighbours.
    """
    k = max(min(k, count - 1), 0)
    indices = np.empty((count, k), np.int64)
    similarity = np.empty((count, k), np.float64)
    for rows, block in blocks:
        own = np.arange(rows.start, rows.stop)
        away = np.abs(np.arange(count) - own[:, None])
        rank = 1e-9 * away / count - block.astype(np.float64)
        rank[own - rows.start, own] = np.inf
        found = np.argpartition(rank, max(k - 1, 0), axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(rank, found, axis=1), axis=1, kind="stable")
        indices[rows] = np.take_along_axis(found, order, axis=1)
        similarity[rows] = np.take_along_axis(block, indices[rows], axis=1)
    return Neighbours(indices, similarity)


def _graph(descriptors: np.ndarray, pairs: np.ndarray) -> Graph:
    edges = np.unique(np.sort(pairs.reshape(-1, 2), axis=1), axis=0).astype(np.int64)
    similarity = np.empty(len(edges), np.float32)
    for rows in row_blocks(len(edges)):
        a, b = edges[rows].T
        similarity[rows] = np.sum(descriptors[a] * descriptors[b], axis=1)
    return Graph(len(descriptors), edges, similarity)


def covisibility_graph(descriptors: np.ndarray, k: int = 10, threshold: float = -1.0) -> Graph:
    """Each view tied to its ``k`` nearest of at least ``threshold`` cosine.

    Args:
        descriptors: (S, D) unit rows.
        k: neighbours of a view; it may have more, as others may choose it.
        threshold: cosine an edge needs.
    """
    count = len(descriptors)
    near = nearest(descriptors, k)
    first = np.repeat(np.arange(count), near.indices.shape[1])
    pairs = np.stack([first, near.indices.ravel()], axis=1)
    return _graph(descriptors, pairs[near.similarity.ravel() >= threshold])


class _Sets:
    """Disjoint sets with path halving; the least member stands for its set."""

    def __init__(self, count: int):
        self.parent = list(range(count))

    def find(self, i: int) -> int:
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, i: int, j: int) -> bool:
        """Whether they were apart."""
        i, j = self.find(i), self.find(j)
        self.parent[max(i, j)] = min(i, j)
        return i != j


def components(count: int, edges: np.ndarray) -> np.ndarray:
    """(count,) int64 number of the connected component of each view, in order of first view."""
    sets = _Sets(count)
    for i, j in edges.tolist():
        sets.join(i, j)
    return np.unique([sets.find(i) for i in range(count)], return_inverse=True)[1].reshape(count)


def join_components(descriptors: np.ndarray, graph: Graph, at_least: float = -1.0) -> Graph:
    """The graph with the best edges that are missing to connect it, and no others.

    They are edges of the maximum spanning forest between components (Boruvka 1926). The weaker
    an edge is the less it means: what is below ``at_least`` stays apart, as two components.

    Args:
        descriptors: (S, D) unit rows.
        graph: over the same views.
        at_least: least cosine of an edge that may join.
    """
    sets = _Sets(graph.count)
    for i, j in graph.edges.tolist():
        sets.join(i, j)
    added: list[tuple[int, int]] = []
    grown = True
    while grown:
        grown = False
        labels = np.array([sets.find(i) for i in range(graph.count)], np.int64)
        best: dict[int, tuple[float, int, int]] = {}
        for rows, block in similarities(descriptors):
            block[labels[rows, None] == labels[None]] = -np.inf
            partner = block.argmax(axis=1)
            value = block[np.arange(len(block)), partner]
            for row in np.flatnonzero(value >= at_least).tolist():
                i, j = row + rows.start, int(partner[row])
                # One order for all, so that equal cosines make no circles.
                entry = (float(value[row]), -min(i, j), -max(i, j))
                label = int(labels[i])
                best[label] = max(best.get(label, entry), entry)
        for _, i, j in sorted(best.values(), reverse=True):
            if sets.join(-i, -j):
                added.append((-i, -j))
                grown = True
    extra = np.array(added, np.int64).reshape(-1, 2)
    return _graph(descriptors, np.concatenate([graph.edges, extra]))


def outlier_scores(descriptors: np.ndarray, support: int = 1) -> np.ndarray:
    """(S,) float32: how much less like the others each view is than is usual in its set.

    The mean cosine to the ``support`` most like it, below the median of all views' in units of
    1.4826 median absolute deviations, as in the robust z-score of Iglewicz and Hoaglin 1993. Zero
    for sets of fewer than four views, where nothing is usual.
    """
    count = len(descriptors)
    if count < 4:
        return np.zeros(count, np.float32)
    likeness = nearest(descriptors, support).similarity.mean(axis=1)
    below = np.median(likeness) - likeness
    spread = 1.4826 * np.median(np.abs(below))
    # Cosines of one set differ by rounding at least.
    return (below / max(float(spread), 1e-3)).astype(np.float32)


def lone_views(
    descriptors: np.ndarray, threshold: float, score: float = 2.0, support: int = 1
) -> np.ndarray:
    """Indices of views unlike all others: exceptional by ``outlier_scores`` and in absolute terms.

    Args:
        descriptors: (S, D) unit rows.
        threshold: no other view reaches this cosine; ``retrieval.SAME_PLACE``.
        score: least outlier score.
        support: see ``outlier_scores``.
    """
    if len(descriptors) < 4:
        return np.zeros(0, np.int64)
    best = nearest(descriptors, 1).similarity[:, 0]
    return np.flatnonzero((best < threshold) & (outlier_scores(descriptors, support) > score))
