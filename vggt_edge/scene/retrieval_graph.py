"""Which pictures may show the same place: a sparse graph of the nearest by retrieval.

Retrieval proposes; geometry decides. An edge here only says that two pictures are worth putting in
one forward pass. Memory is one block of similarities, never S x S of them, so that 100,000
descriptors pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError

_BLOCK = 1024


@dataclass(frozen=True)
class RetrievalGraph:
    """An undirected graph of S pictures.

    Fields
        count       S.
        first       (E,) int64.
        second      (E,) int64, above ``first``; edges are unique and sorted.
        similarity  (E,) float64, of the edge, in [-1, 1].
        best        (S,) int64: the most similar other picture, linked or not; -1 when alone.
        best_score  (S,) float64: its similarity.
    """

    count: int
    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    best: np.ndarray
    best_score: np.ndarray

    def linked(self, first: np.ndarray, second: np.ndarray, score: np.ndarray) -> RetrievalGraph:
        """The same graph with further edges; an edge that is there already stays as it is."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        keys = np.concatenate([self.first * self.count + self.second, low * self.count + high])
        scores = np.concatenate([self.similarity, score])
        proper = keys // self.count != keys % self.count
        unique, index = np.unique(keys[proper], return_index=True)
        return replace(
            self,
            first=unique // self.count,
            second=unique % self.count,
            similarity=scores[proper][index],
        )

    def components(self) -> np.ndarray:
        """(S,) int64: the component of each picture, numbered in order of first appearance."""
        parent = np.arange(self.count)

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = int(parent[i])
            return i

        for a, b in zip(self.first.tolist(), self.second.tolist(), strict=True):
            a, b = root(a), root(b)
            # The lower number stays the root, so that numbering follows the order of pictures.
            parent[max(a, b)] = min(a, b)
        roots = np.array([root(i) for i in range(self.count)], dtype=np.int64)
        return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def retrieval_graph(
    *,
    descriptors: np.ndarray | None = None,
    similarity: np.ndarray | None = None,
    neighbours: int = 12,
    threshold: float = 0.3,
) -> RetrievalGraph:
    """Link each picture to its ``neighbours`` most similar ones that are similar enough.

    Args:
        descriptors: (S, D) of any length but zero; similarity is their cosine.
        similarity: (S, S), symmetric, instead of descriptors.
        neighbours: edges that each picture may propose; it may have more, proposed by others.
        threshold: no edge below this similarity. What is right depends on the descriptor.

    Raises:
        InputError: neither or both given, of the wrong shape, or with numbers that are not finite.
    """
    if (descriptors is None) == (similarity is None):
        raise InputError("retrieval_graph needs either descriptors or similarity")
    if neighbours < 1:
        raise InputError(f"neighbours must be at least 1, got {neighbours}")
    given = np.asarray(similarity if descriptors is None else descriptors)
    if given.ndim != 2 or (descriptors is None and given.shape[0] != given.shape[1]):
        wanted = "(S, S) similarities" if descriptors is None else "(S, D) descriptors"
        raise InputError(f"retrieval_graph needs {wanted}, got an array of shape {given.shape}")
    if not np.isfinite(given).all():
        raise InputError("descriptors or similarities hold numbers that are not finite")
    count = len(given)
    if descriptors is not None:
        length = np.linalg.norm(given, axis=1, keepdims=True)
        given = given / np.maximum(length, 1e-12)
    pairs, scores = [], []
    best, best_score = np.full(count, -1), np.full(count, -np.inf)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        block = given[rows] if descriptors is None else given[rows] @ given.T
        block = block.astype(np.float64)
        block[np.arange(len(rows)), rows] = -np.inf
        # Of equal pictures those nearest in order are preferred: the graph of 200 copies of one
        # picture is then a band that can be cut, and not a few hubs.
        rank = 1e-9 * np.abs(np.arange(count) - rows[:, None]) / count - block
        most = min(neighbours, count - 1)
        nearest = np.argpartition(rank, max(most - 1, 0), axis=1)[:, :most]
        order = np.argsort(np.take_along_axis(rank, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        score = np.take_along_axis(block, nearest, axis=1)
        if nearest.shape[1]:
            best[rows], best_score[rows] = nearest[:, 0], score[:, 0]
        keep = score >= threshold
        pairs.append(np.stack([np.repeat(rows, keep.sum(axis=1)), nearest[keep]], axis=1))
        scores.append(score[keep])
    empty = np.zeros(0, dtype=np.int64)
    graph = RetrievalGraph(count, empty, empty, np.zeros(0), best, best_score)
    if not count:
        return graph
    pair = np.concatenate(pairs).astype(np.int64)
    return graph.linked(pair[:, 0], pair[:, 1], np.concatenate(scores))


def sequence_graph(count: int, neighbours: int = 12) -> RetrievalGraph:
    """The graph of frames in the order they were taken, when nothing else is known of them.

    Each is linked to ``neighbours / 2`` frames before and after it, with a similarity that falls
    evenly with the distance. Nothing says where the camera came back, so no loop is closed.
    """
    empty = np.zeros(0, dtype=np.int64)
    best = np.arange(count) - 1
    best[:1] = min(1, count - 1) or -1
    graph = RetrievalGraph(count, empty, empty, np.zeros(0), best, np.full(count, 1.0))
    reach = max(1, neighbours // 2)
    for step in range(1, min(reach, count - 1) + 1):
        first = np.arange(count - step)
        score = np.full(count - step, 1.0 - (step - 1) / (reach + 1))
        graph = graph.linked(first, first + step, score)
    return graph
