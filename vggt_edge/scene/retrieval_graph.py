"""Which pictures may show the same place: a sparse graph of the nearest by retrieval.

Retrieval proposes; features and geometry decide. An edge here only says that two pictures are worth
putting in one forward pass. Memory is one block of similarities, never S x S of them, so that
100,000 descriptors pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..covisibility import components, nearest_in, row_blocks, similarities
from ..errors import InputError


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

    def only(self, kept: np.ndarray) -> RetrievalGraph:
        """The same graph with those of its edges for which ``kept``, (E,) bool, is true."""
        first, second, score = self.first[kept], self.second[kept], self.similarity[kept]
        return replace(self, first=first, second=second, similarity=score)

    def components(self) -> np.ndarray:
        """(S,) int64: the component of each picture, numbered in order of first appearance."""
        return components(self.count, np.stack([self.first, self.second], axis=1))


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
    table = ((rows, given[rows]) for rows in row_blocks(count))
    near = nearest_in(table if descriptors is None else similarities(given), count, neighbours)
    best, best_score = np.full(count, -1), np.full(count, -np.inf)
    if near.indices.shape[1]:
        best, best_score = near.indices[:, 0], near.similarity[:, 0]
    empty = np.zeros(0, dtype=np.int64)
    graph = RetrievalGraph(count, empty, empty, np.zeros(0), best, best_score)
    rows, place = np.nonzero(near.similarity >= threshold)
    return graph.linked(rows, near.indices[rows, place], near.similarity[rows, place])


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
