"""Where the clusters of a scene lie: least squares over similarities that disagree a little.

Each edge says how one cluster lies in another. Around a loop the edges do not quite close; the
discrepancy, of scale too, is shared out by their information (Strasdat, Montiel and Davison, "Scale
Drift-Aware Large Scale Monocular SLAM", RSS 2010). Wrong edges are switched off by graduated
non-convexity (Yang et al., RA-L 2020), which trusts all at first and doubts by and by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..geometry import Similarity
from .sim3 import IDENTITY, compose, invert, right_jacobian, rotation_of, skew, vector_of

# An edge is doubted from so many standard deviations on, a root mean square over its seven numbers.
_DOUBT = 5.0
_GRADUATION = (16.0, 4.0, 1.0)
_ITERATIONS = 50


@dataclass(frozen=True)
class Edge:
    """How node ``second`` lies in node ``first``.

    Fields
        similarity   first_from_second.
        information  (7, 7) inverse covariance of its log scale, rotation vector (from the right)
                     and translation.
        loop         whether it is to be doubted: trees grow along loops only where nothing else
                     leads on.
    """

    first: int
    second: int
    similarity: Similarity
    information: np.ndarray
    loop: bool = False


@dataclass(frozen=True)
class PoseGraph:
    """Nodes placed in the world of their component.

    Fields
        world_from_node  one similarity a node; the identity for the lowest node of a component.
        component        (N,) int64: nodes that no edge ties together are in different worlds.
        trust            (E,) in [0, 1]: how far each edge was believed in the end.
        error            (E,) what is left of each edge, in standard deviations.
    """

    world_from_node: tuple[Similarity, ...]
    component: np.ndarray
    trust: np.ndarray
    error: np.ndarray


def optimize_pose_graph(nodes: int, edges: Sequence[Edge]) -> PoseGraph:
    """Place nodes so that the edges are met as well as possible, all but wrong ones.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    start, component, tree = _spanning_tree(nodes, edges)
    if not edges:
        return PoseGraph(start, component, np.zeros(0), np.zeros(0))
    problem = _Problem(start, component, edges)
    loops = np.flatnonzero(~tree)
    trust = np.ones(len(edges))
    trust[loops] = [_closes(start, edges, tree, int(loop)) for loop in loops]
    # A tree is met exactly, whatever its edges say.
    if trust[loops].any():
        problem.solve(trust)
        for doubt in _GRADUATION:
            squared = (problem.errors() / _DOUBT) ** 2
            graduated = (doubt / (doubt + squared)) ** 2
            problem.solve(np.where(trust > 0, graduated, 0.0))
        trust = np.where(trust > 0, graduated, 0.0)
    return PoseGraph(problem.similarities(), component, trust, problem.errors())


def _spanning_tree(
    nodes: int, edges: Sequence[Edge]
) -> tuple[tuple[Similarity, ...], np.ndarray, np.ndarray]:
    """Nodes placed along the most certain edges, their components, and which edges were taken."""
    root = list(range(nodes))
    beside: list[list[tuple[int, Similarity]]] = [[] for _ in range(nodes)]
    taken = np.zeros(len(edges), dtype=bool)
    certainty = [float(np.linalg.slogdet(edge.information)[1]) for edge in edges]
    for number in sorted(range(len(edges)), key=lambda e: (edges[e].loop, -certainty[e], e)):
        edge = edges[number]
        a, b = root[edge.first], root[edge.second]
        if a != b:
            taken[number] = True
            root = [min(a, b) if r in (a, b) else r for r in root]
            beside[edge.first].append((edge.second, edge.similarity))
            beside[edge.second].append((edge.first, invert(edge.similarity)))
    placed: dict[int, Similarity] = {}
    for node in range(nodes):
        if root[node] == node:
            placed[node] = IDENTITY
            front = [node]
            while front:
                here = front.pop(0)
                for there, here_from_there in beside[here]:
                    if there not in placed:
                        placed[there] = compose(placed[here], here_from_there)
                        front.append(there)
    component = np.unique(np.array(root, dtype=np.int64), return_inverse=True)[1]
    return tuple(placed[node] for node in range(nodes)), component, taken


def _closes(
    start: Sequence[Similarity], edges: Sequence[Edge], tree: np.ndarray, loop: int
) -> bool:
    """Whether a loop's discrepancy is what the edges around it may add up to.

    The least sum of squares of the tree and this one edge is a chi-squared of seven degrees,
    however long the way round is.
    """
    path = _path(edges, tree, edges[loop].first, edges[loop].second)
    around = [edges[e] for e in path] + [edges[loop]]
    names = sorted({node for edge in around for node in (edge.first, edge.second)})
    number = {node: i for i, node in enumerate(names)}
    circle = [replace(e, first=number[e.first], second=number[e.second]) for e in around]
    problem = _Problem([start[node] for node in names], np.zeros(len(names), dtype=int), circle)
    problem.solve(np.ones(len(circle)))
    return float(np.sum(problem.errors() ** 2)) <= _DOUBT**2


def _path(edges: Sequence[Edge], tree: np.ndarray, start: int, end: int) -> list[int]:
    """Tree edges between two nodes of one component."""
    beside: dict[int, list[int]] = {}
    for e in np.flatnonzero(tree).tolist():
        beside.setdefault(edges[e].first, []).append(e)
        beside.setdefault(edges[e].second, []).append(e)
    came: dict[int, int] = {start: -1}
    front = [start]
    while end not in came:
        here = front.pop(0)
        for e in beside[here]:
            there = edges[e].first + edges[e].second - here
            if there not in came:
                came[there] = e
                front.append(there)
    path = []
    while end != start:
        path.append(came[end])
        end = edges[came[end]].first + edges[came[end]].second - end
    return path


class _Problem:
    """Residuals and their Jacobian in local coordinates around the present estimate."""

    def __init__(
        self, start: Sequence[Similarity], component: np.ndarray, edges: Sequence[Edge]
    ) -> None:
        try:
            from scipy import sparse
            from scipy.sparse.linalg import splu
        except ImportError as error:
            raise MissingExtraError("scipy", "clusters", "placing clusters") from error
        self.sparse, self.factorize = sparse, splu
        self.log_scale = np.log([similarity.scale for similarity in start])
        self.rotation = np.stack([similarity.rotation for similarity in start])
        self.translation = np.stack([similarity.translation for similarity in start])
        self.first = np.array([edge.first for edge in edges])
        self.second = np.array([edge.second for edge in edges])
        self.edge_log_scale = np.log([edge.similarity.scale for edge in edges])
        self.edge_rotation = np.stack([edge.similarity.rotation for edge in edges])
        self.edge_translation = np.stack([edge.similarity.translation for edge in edges])
        # The root W with W'W = information turns residuals into standard deviations.
        factors = np.stack([np.linalg.cholesky(edge.information) for edge in edges])
        self.whiten = np.swapaxes(factors, 1, 2)
        # The lowest node of each component stays where it is; so does a node that has no edge.
        _, lowest = np.unique(component, return_index=True)
        self.column = np.full(len(component), -1)
        moving = np.setdiff1d(np.arange(len(component)), lowest)
        self.column[moving] = np.arange(len(moving))
        self.moving = moving

    def _moved(self, step: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if step is None:
            return self.log_scale, self.rotation, self.translation
        rotation = self.rotation @ rotation_of(step[:, 1:4])
        return self.log_scale + step[:, 0], rotation, self.translation + step[:, 4:]

    def residuals(self, step: np.ndarray | None = None) -> np.ndarray:
        """(E, 7) in standard deviations, at the estimate moved by (N, 7) local coordinates."""
        log_scale, rotation, translation = self._moved(step)
        i, j = self.first, self.second
        back = np.swapaxes(rotation[i], 1, 2)
        shift = (back @ (translation[j] - translation[i])[:, :, None])[:, :, 0]
        shift = shift * np.exp(-log_scale[i])[:, None]
        turn = vector_of(np.swapaxes(self.edge_rotation, 1, 2) @ back @ rotation[j])
        stretch = log_scale[j] - log_scale[i] - self.edge_log_scale
        raw = np.concatenate([stretch[:, None], turn, shift - self.edge_translation], axis=1)
        result: np.ndarray = (self.whiten @ raw[:, :, None])[:, :, 0]
        return result

    def jacobian(self) -> tuple[np.ndarray, np.ndarray]:
        """(E, 7, 7) derivatives of the residuals by the first and by the second node's seven."""
        i, j = self.first, self.second
        back = np.swapaxes(self.rotation[i], 1, 2)
        shrink = np.exp(-self.log_scale[i])[:, None, None]
        shift = shrink * (back @ (self.translation[j] - self.translation[i])[:, :, None])
        relative = back @ self.rotation[j]
        turn = vector_of(np.swapaxes(self.edge_rotation, 1, 2) @ relative)
        by_turn = np.linalg.inv(right_jacobian(turn))
        by_first, by_second = np.zeros((2, len(i), 7, 7))
        by_first[:, 0, 0], by_second[:, 0, 0] = -1, 1
        by_first[:, 1:4, 1:4] = -by_turn @ np.swapaxes(relative, 1, 2)
        by_second[:, 1:4, 1:4] = by_turn
        by_first[:, 4:, 0] = -shift[:, :, 0]
        by_first[:, 4:, 1:4] = skew(shift[:, :, 0])
        by_first[:, 4:, 4:], by_second[:, 4:, 4:] = -shrink * back, shrink * back
        return self.whiten @ by_first, self.whiten @ by_second

    def _normal_equations(self, root: np.ndarray) -> tuple[Any, np.ndarray]:
        """Gauss-Newton's sparse matrix and right side; edges are scaled by ``root``."""
        # Blocks of nodes that stay where they are have no column.
        ends = np.concatenate([self.column[self.first], self.column[self.second]])
        block = np.flatnonzero(ends >= 0)
        row, column = block % len(root), ends[block]
        order = np.lexsort((column, row))
        starts = np.searchsorted(row[order], np.arange(len(root) + 1))
        blocks = np.concatenate(self.jacobian())[block] * root[row][:, None, None]
        jacobian = self.sparse.bsr_matrix(
            (blocks[order], column[order], starts), shape=(7 * len(root), 7 * len(self.moving))
        ).tocsc()
        right = jacobian.T @ (self.residuals() * root[:, None]).ravel()
        return (jacobian.T @ jacobian).tocsc(), right

    def solve(self, trust: np.ndarray) -> None:
        """Move the estimate to the least sum of trusted squares (Levenberg-Marquardt)."""
        if not len(self.moving):
            return
        root, damping = np.sqrt(trust), 1e-6
        cost = self._cost(trust)
        for _ in range(_ITERATIONS):
            matrix, right = self._normal_equations(root)
            diagonal = matrix.diagonal()
            improved = False
            while not improved and damping < 1e8:
                damped = matrix + self.sparse.diags(damping * np.maximum(diagonal, 1e-12))
                step = np.zeros((len(self.column), 7))
                step[self.moving] = -self.factorize(damped.tocsc()).solve(right).reshape(-1, 7)
                moved = self._cost(trust, step)
                improved = moved < cost
                damping = max(damping / 10, 1e-9) if improved else damping * 10
            if not improved:
                return
            self.log_scale, self.rotation, self.translation = self._moved(step)
            done, cost = cost - moved <= 1e-10 * cost, moved
            if done:
                return

    def _cost(self, trust: np.ndarray, step: np.ndarray | None = None) -> float:
        return float(trust @ np.sum(self.residuals(step) ** 2, axis=1))

    def errors(self) -> np.ndarray:
        """(E,) root mean square of each edge's seven residuals at the estimate."""
        result: np.ndarray = np.sqrt(np.mean(self.residuals() ** 2, axis=1))
        return result

    def similarities(self) -> tuple[Similarity, ...]:
        """The estimate."""
        columns = zip(np.exp(self.log_scale), self.rotation, self.translation, strict=True)
        return tuple(Similarity(float(s), r, t) for s, r, t in columns)
