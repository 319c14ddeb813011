"""Clusters: whole, balanced, overlapping, connected, repeatable; outliers and islands apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import make_walk, similarity_of

from vggt_edge.errors import InputError
from vggt_edge.scene.clusters import cluster_views
from vggt_edge.scene.retrieval_graph import retrieval_graph, sequence_graph


def scattered(count: int, seed: int = 0) -> np.ndarray:
    places = np.random.default_rng(seed).uniform(0, 1, (count, 2))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return np.exp(-((distance / 0.2) ** 2))


def islands(*counts: int) -> np.ndarray:
    """Descriptors of sets that have nothing in common, each along a quarter circle."""
    parts = np.zeros((sum(counts), 2 * len(counts)))
    start = 0
    for island, count in enumerate(counts):
        angle = np.linspace(0, np.pi / 2, count)
        parts[start : start + count, 2 * island] = np.cos(angle)
        parts[start : start + count, 2 * island + 1] = np.sin(angle)
        start += count
    return parts


@settings(max_examples=15, deadline=None)
@given(count=st.integers(2, 150), size=st.integers(6, 40), seed=st.integers(0, 99))
def test_every_picture_has_one_home_and_tree_neighbours_share(count, size, seed):
    graph = retrieval_graph(similarity=scattered(count, seed), threshold=0.2)
    overlap = max(2, size // 4)
    made = cluster_views(graph, size=size, overlap=overlap)
    homes = [frame for cluster in made.clusters for frame in cluster.home]
    assert sorted(homes + list(made.outliers)) == list(range(count))
    for cluster in made.clusters:
        assert set(cluster.home) <= set(cluster.frames)
        assert len(set(cluster.frames)) == len(cluster.frames)
        assert cluster.frames[0] in cluster.home
        assert list(cluster.frames[1:]) == sorted(cluster.frames[1:])
    components = graph.components()
    for component in {cluster.component for cluster in made.clusters}:
        members = [set(c.frames) for c in made.clusters if c.component == component]
        assert {int(components[f]) for group in members for f in group} == {component}
        reached, rest = members[0], members[1:]
        while near := [group for group in rest if group & reached]:
            reached, rest = reached.union(*near), [g for g in rest if g not in near]
        assert not rest, "clusters of one component hang together by shared pictures"


def test_clusters_of_a_walk_are_balanced_and_bridged_where_it_closes():
    graph = retrieval_graph(similarity=similarity_of(make_walk(200)))
    made = cluster_views(graph, size=40, overlap=8)
    homes = [len(cluster.home) for cluster in made.clusters]
    assert max(homes) - min(homes) <= 2
    assert all(len(cluster.frames) <= 40 for cluster in made.clusters)
    shared = [set(a.frames) & set(b.frames) for a in made.clusters for b in made.clusters if a != b]
    assert sum(len(both) == 8 for both in shared) == 2 * (len(homes) - 1)
    (bridge,) = made.bridges
    ends = [np.mean(np.exp(2j * np.pi * np.array(end) / 200)) for end in bridge.ends]
    assert abs(np.angle(ends[0] / ends[1])) < 2 * np.pi * 10 / 200, "its ends meet on the ring"
    assert made == cluster_views(graph, size=40, overlap=8)


def test_a_set_no_larger_than_a_cluster_is_one():
    graph = retrieval_graph(similarity=scattered(30), threshold=0.0)
    made = cluster_views(graph, size=30, overlap=5)
    assert [sorted(cluster.frames) for cluster in made.clusters] == [list(range(30))]
    assert made.bridges == ()


def test_islands_stay_apart():
    made = cluster_views(retrieval_graph(descriptors=islands(40, 25)), size=20, overlap=4)
    for cluster in made.clusters:
        assert max(cluster.frames) < 40 or min(cluster.frames) >= 40
    assert len({cluster.component for cluster in made.clusters}) == 2


def test_a_lone_picture_is_left_out_unless_kept():
    descriptors = islands(30, 1)
    descriptors[30, 1] = 0.1
    graph = retrieval_graph(descriptors=descriptors)
    assert cluster_views(graph, size=12, overlap=3).outliers == (30,)
    kept = cluster_views(graph, size=12, overlap=3, keep_outliers=True)
    assert kept.outliers == ()
    assert sum(30 in cluster.home for cluster in kept.clusters) == 1


def test_one_picture_is_a_cluster_and_no_outlier():
    for graph in (retrieval_graph(similarity=np.eye(1)), sequence_graph(1)):
        assert [c.frames for c in cluster_views(graph).clusters] == [(0,)]


def test_equal_pictures_are_cut_evenly():
    made = cluster_views(retrieval_graph(similarity=np.ones((150, 150))), size=40, overlap=8)
    homes = [len(cluster.home) for cluster in made.clusters]
    assert max(homes) - min(homes) <= 2
    assert max(len(cluster.frames) for cluster in made.clusters) <= 40


def test_large_sets_use_sparse_eigenvectors_and_repeat():
    graph = sequence_graph(900)
    made = cluster_views(graph, size=60, overlap=12)
    assert made == cluster_views(graph, size=60, overlap=12)
    spans = [max(c.home) - min(c.home) + 1 for c in made.clusters]
    assert spans == [len(c.home) for c in made.clusters], "clusters of a video are runs of it"


def test_descriptors_and_their_similarities_give_one_graph():
    descriptors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float64)
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    a = retrieval_graph(descriptors=3 * descriptors)
    b = retrieval_graph(similarity=unit @ unit.T)
    assert np.array_equal(a.first, b.first) and np.array_equal(a.second, b.second)
    assert (a.similarity >= 0.3).all() and (a.first < a.second).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either"),
        ({"descriptors": np.ones((3, 2)), "similarity": np.ones((3, 3))}, "either"),
        ({"similarity": np.ones((3, 2))}, r"\(3, 2\)"),
        ({"descriptors": np.full((3, 2), np.nan)}, "finite"),
        ({"descriptors": np.ones((3, 2)), "neighbours": 0}, "neighbours"),
    ],
)
def test_bad_graphs_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        retrieval_graph(**arguments)


def test_sizes_that_make_no_sense_are_refused():
    for size, overlap in ((1, 1), (10, 10), (10, 0)):
        with pytest.raises(InputError, match="make no sense"):
            cluster_views(sequence_graph(5), size=size, overlap=overlap)
