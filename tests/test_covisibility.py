from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge import covisibility
from vggt_edge.covisibility import (
    Graph,
    components,
    covisibility_graph,
    join_components,
    lone_views,
    nearest,
    outlier_scores,
)

quick = settings(max_examples=40, deadline=None)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def random_unit(seed: int, views: int, width: int = 6) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(views, width)))


def places(*sizes: int, noise: float = 0.2, width: int = 24, seed: int = 0) -> np.ndarray:
    """Views of several places: each place a direction of its own, each view near its place's."""
    rng = np.random.default_rng(seed)
    centres = np.eye(width)[: len(sizes)]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return unit(centres[labels] + noise * rng.normal(size=(len(labels), width)) / np.sqrt(width))


@pytest.fixture(params=[3, 1024])
def block(request, monkeypatch):
    monkeypatch.setattr(covisibility, "BLOCK", request.param)


@quick
@given(seed=st.integers(0, 999), views=st.integers(1, 30), k=st.integers(0, 35))
def test_nearest_are_the_nearest(seed, views, k):
    x = random_unit(seed, views)
    found = nearest(x, k)
    assert found.indices.shape == found.similarity.shape == (views, min(k, views - 1))
    table = x @ x.T
    np.fill_diagonal(table, -np.inf)
    wanted = -np.sort(-table, axis=1)[:, : found.indices.shape[1]]
    assert np.allclose(found.similarity, wanted, atol=1e-6)
    assert np.allclose(np.take_along_axis(table, found.indices, 1), wanted, atol=1e-6)


def test_blocks_change_nothing(block):
    x = random_unit(1, 20)
    table = x @ x.T - 9 * np.eye(20)
    assert np.array_equal(nearest(x, 4).indices, np.argsort(-table, 1, kind="stable")[:, :4])
    sparse = covisibility_graph(x, k=1)
    joined = join_components(x, sparse)
    assert joined.components().max() == 0


@quick
@given(seed=st.integers(0, 999), views=st.integers(1, 25), k=st.integers(1, 6))
def test_every_edge_has_its_reason(seed, views, k):
    x = random_unit(seed, views)
    near = nearest(x, k).indices
    chosen = {(i, int(j)) for i in range(views) for j in near[i]}
    graph = covisibility_graph(x, k, threshold=0.1)
    assert {tuple(e) for e in graph.edges.tolist()} == {
        (min(i, j), max(i, j)) for i, j in chosen if x[i] @ x[j] >= 0.1
    }
    assert np.allclose(graph.similarity, np.sum(x[graph.edges[:, 0]] * x[graph.edges[:, 1]], 1))


def test_of_equal_views_the_nearest_in_order_are_preferred():
    x = np.tile(random_unit(0, 1), (9, 1))
    assert nearest(x, 2).indices.tolist()[4] == [3, 5]
    assert nearest(x, 2).indices.tolist()[0] == [1, 2]


@quick
@given(
    count=st.integers(1, 20),
    edges=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30),
)
def test_components_are_what_search_finds(count, edges):
    table = np.array([e for e in edges if max(e) < count], np.int64).reshape(-1, 2)
    reach = np.eye(count, dtype=bool)
    for i, j in table:
        reach[i, j] = reach[j, i] = True
    for _ in range(5):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    labels = components(count, table)
    assert np.array_equal(labels[:, None] == labels[None], reach)
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(labels.max() + 1)]
    assert firsts == sorted(firsts)


@quick
@given(seed=st.integers(0, 999), views=st.integers(2, 25))
def test_joining_adds_a_maximum_spanning_forest_and_nothing_else(seed, views):
    x = random_unit(seed, views)
    none = Graph(views, np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    joined = join_components(x, none)
    assert joined.components().max() == 0
    assert len(joined.edges) == views - 1
    # Kruskal, on all pairs.
    first, second = np.triu_indices(views, 1)
    weight = np.sum(x[first] * x[second], axis=1)
    total, labels = 0.0, np.arange(views)
    for e in np.argsort(-weight):
        a, b = labels[first[e]], labels[second[e]]
        if a != b:
            labels[labels == b] = a
            total += float(weight[e])
    assert np.isclose(joined.similarity.sum(), total, atol=1e-4)


def test_two_places_come_apart_and_are_never_glued():
    x = places(8, 6)
    graph = covisibility_graph(x, k=10, threshold=0.5)
    labels = graph.components()
    assert labels.tolist() == [0] * 8 + [1] * 6
    assert join_components(x, graph, at_least=0.5).components().max() == 1
    assert join_components(x, graph).components().max() == 0
    assert len(join_components(x, graph).edges) == len(graph.edges) + 1


def test_neighbours_of_the_graph():
    graph = Graph(5, np.array([[0, 1], [0, 3], [1, 3]]), np.ones(3, np.float32))
    assert [n.tolist() for n in graph.neighbours()] == [[1, 3], [0, 3], [], [0, 1], []]
    empty = Graph(2, np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    assert [n.tolist() for n in empty.neighbours()] == [[], []]


@pytest.mark.parametrize("position", [0, 5, 12])
def test_a_lone_view_is_found_and_nobody_else(position):
    x = places(12)
    x = np.insert(x, position, np.eye(24, dtype=np.float32)[20], axis=0)
    assert outlier_scores(x).argmax() == position
    assert lone_views(x, threshold=0.5).tolist() == [position]
    assert not len(lone_views(np.delete(x, position, axis=0), threshold=0.5))


def test_a_second_place_is_no_outlier():
    assert not len(lone_views(places(10, 3), threshold=0.5))


def test_small_sets_and_equal_views_have_no_outliers():
    assert not outlier_scores(random_unit(0, 3)).any()
    assert not len(lone_views(random_unit(0, 3), threshold=2))
    alike = np.tile(random_unit(0, 1), (7, 1))
    assert not len(lone_views(alike, threshold=2))


def test_all_identical_views():
    x = np.tile(random_unit(4, 1), (9, 1))
    assert not covisibility_graph(x, k=3, threshold=0.9).components().any()


def test_one_view_and_none():
    one = random_unit(0, 1)
    assert covisibility_graph(one).components().tolist() == [0]
    none = one[:0]
    graph = join_components(none, covisibility_graph(none))
    assert graph.components().shape == (0,) and graph.neighbours() == ()
