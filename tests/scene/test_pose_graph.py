"""Pose graph: exact edges are met, drift is shared out, wrong loops are switched off."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.geometry import Similarity
from vggt_edge.scene.pose_graph import Edge, _Problem, optimize_pose_graph
from vggt_edge.scene.sim3 import compose, invert, rotation_of


def ring(count: int, rng: np.random.Generator) -> list[Similarity]:
    angle = 2 * np.pi * np.arange(count) / count
    at = count / 6 * np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=-1)
    scale = np.exp(rng.normal(0, 0.5, count))
    return [
        Similarity(float(s), rotation_of(np.array([0, a, 0])), t)
        for s, a, t in zip(scale, angle, at, strict=True)
    ]


def edge(world, i, j, rng, noise=0.0, loop=False) -> Edge:
    truth, n = compose(invert(world[i]), world[j]), noise * rng.normal(size=7)
    unit = np.linalg.norm(truth.translation)
    moved = Similarity(
        truth.scale * float(np.exp(n[0])),
        truth.rotation @ rotation_of(n[1:4]),
        truth.translation + unit * n[4:],
    )
    weight = 1 / max(noise, 1e-2) ** 2
    return Edge(i, j, moved, np.diag([weight] * 4 + [weight / unit**2] * 3), loop)


def error(graph, world) -> float:
    placed = [compose(world[0], node) for node in graph.world_from_node]
    gaps = [p.translation - w.translation for p, w in zip(placed, world, strict=True)]
    return float(np.sqrt(np.mean(np.square(gaps).sum(axis=-1))))


def wrong(count: int, rng: np.random.Generator) -> Edge:
    similarity = Similarity(1.4, rotation_of(rng.normal(size=3)), rng.normal(size=3))
    return Edge(1, count // 2, similarity, np.eye(7) * 1e4, loop=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(3, 12))
def test_exact_edges_are_met(seed, count):
    rng = np.random.default_rng(seed)
    world = ring(count, rng)
    chain = [edge(world, i, (i + 1) % count, rng) for i in range(count)]
    graph = optimize_pose_graph(count, chain)
    assert error(graph, world) < 1e-6 and graph.error.max() < 1e-5 and graph.trust.min() > 0.999


def test_derivatives_are_those_of_the_residuals():
    rng = np.random.default_rng(3)
    world = ring(5, rng)
    pairs = ((0, 1), (1, 2), (3, 2), (3, 4), (4, 0), (1, 3))
    edges = [edge(world, i, j, rng, noise=0.1) for i, j in pairs]
    problem = _Problem(world, np.zeros(5, dtype=int), edges)
    sides = problem.jacobian()
    for node in range(1, 5):
        for k in range(7):
            step = np.zeros((5, 7))
            step[node, k] = 1e-6
            numeric = (problem.residuals(step) - problem.residuals(-step)) / 2e-6
            exact = sum(
                side[:, :, k] * np.array([p[which] == node for p in pairs])[:, None]
                for which, side in enumerate(sides)
            )
            assert np.allclose(exact, numeric, rtol=1e-5, atol=1e-4)


def test_a_loop_shares_out_drift_of_place_and_scale():
    better = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        world = ring(40, rng)
        chain = [edge(world, i, i + 1, rng, noise=0.02) for i in range(39)]
        closed = [*chain, edge(world, 39, 0, rng, noise=0.02, loop=True)]
        graphs = optimize_pose_graph(40, chain), optimize_pose_graph(40, closed)
        better.append(error(graphs[1], world) / error(graphs[0], world))
        assert graphs[1].trust.min() > 0.5
    assert np.mean(better) < 0.7, better


def test_a_wrong_loop_is_switched_off():
    rng = np.random.default_rng(0)
    world = ring(40, rng)
    closed = [edge(world, i, (i + 1) % 40, rng, noise=0.01, loop=i == 39) for i in range(40)]
    alone = optimize_pose_graph(40, closed)
    spoilt = optimize_pose_graph(40, [*closed, wrong(40, rng)])
    assert spoilt.trust[-1] < 0.01 and spoilt.trust[:-1].min() > 0.9
    assert abs(error(spoilt, world) - error(alone, world)) < 1e-3


def test_what_nothing_ties_together_has_a_world_of_its_own():
    rng = np.random.default_rng(0)
    world = ring(6, rng)
    graph = optimize_pose_graph(6, [edge(world, 0, 1, rng), edge(world, 3, 4, rng)])
    assert graph.component.tolist() == [0, 0, 1, 2, 2, 3]
    assert graph.world_from_node[3].scale == 1
    assert optimize_pose_graph(2, []).component.tolist() == [0, 1]


def test_the_graph_does_not_depend_on_the_order_of_its_edges():
    rng = np.random.default_rng(1)
    world = ring(12, rng)
    edges = [edge(world, i, (i + 1) % 12, rng, noise=0.02, loop=i == 11) for i in range(12)]
    a, b = optimize_pose_graph(12, edges), optimize_pose_graph(12, edges[::-1])
    for one, other in zip(a.world_from_node, b.world_from_node, strict=True):
        assert np.allclose(one.translation, other.translation, atol=1e-6)
