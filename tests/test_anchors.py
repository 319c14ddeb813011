from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_edge.anchors import farthest_points

quick = settings(max_examples=40, deadline=None)


def unit(seed: int, views: int, width: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(views, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def distances(descriptors: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return 1 - descriptors @ descriptors[indices].T


@quick
@given(seed=st.integers(0, 999), views=st.integers(1, 40), count=st.integers(1, 45))
def test_anchors_are_distinct_start_at_view_zero_and_know_their_distances(seed, views, count):
    x = unit(seed, views)
    anchors = farthest_points(x, count)
    assert len(set(anchors.indices.tolist())) == len(anchors.indices) == min(count, views)
    assert anchors.indices[0] == 0
    table = distances(x, anchors.indices)
    assert np.allclose(anchors.distance, table.min(axis=1), atol=1e-5)
    rows = np.arange(views)
    assert np.allclose(table[rows, anchors.nearest], table.min(axis=1), atol=1e-5)
    assert np.array_equal(anchors.nearest[anchors.indices], np.arange(len(anchors.indices)))


@quick
@given(seed=st.integers(0, 999), views=st.integers(2, 30))
def test_fewer_anchors_are_the_beginning_of_more_and_cover_less(seed, views):
    x = unit(seed, views)
    full = farthest_points(x, views)
    radii = [farthest_points(x, count).distance.max() for count in range(1, views + 1)]
    assert all(a >= b for a, b in zip(radii, radii[1:], strict=False))
    assert radii[-1] == 0
    few = farthest_points(x, views // 2)
    assert np.array_equal(few.indices, full.indices[: views // 2])


@quick
@given(seed=st.integers(0, 999), views=st.integers(3, 9), count=st.integers(1, 3))
def test_the_radius_is_at_most_twice_the_best(seed, views, count):
    """Gonzalez's bound, in Euclidean distance: |a - b|^2 = 2 (1 - cos)."""
    from itertools import combinations

    x = unit(seed, views, width=3)
    best = min(
        distances(x, np.array(chosen)).min(axis=1).max()
        for chosen in combinations(range(views), count)
    )
    radius = farthest_points(x, count).distance.max()
    assert np.sqrt(2 * radius) <= 2 * np.sqrt(2 * max(best, 0)) + 1e-3


def test_the_farthest_comes_next():
    angles = np.radians([0, 10, 170, 95])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert farthest_points(x, 3).indices.tolist() == [0, 2, 3]


def test_given_anchors_come_first_and_once():
    x = unit(3, 10)
    assert farthest_points(x, 4, first=(0, 7, 0)).indices[:2].tolist() == [0, 7]


def test_all_alike_gives_all_in_order():
    x = np.tile(unit(1, 1), (6, 1))
    assert farthest_points(x, 9).indices.tolist() == [0, 1, 2, 3, 4, 5]


def test_deterministic():
    x = unit(5, 50)
    assert np.array_equal(farthest_points(x, 20).indices, farthest_points(x.copy(), 20).indices)


@pytest.mark.parametrize(
    ("views", "count", "first"),
    [(0, 1, (0,)), (3, 0, (0,)), (3, 1, (0, 1)), (3, 2, (3,)), (3, 2, (-1,)), (3, 2, ())],
)
def test_nonsense_is_refused(views, count, first):
    with pytest.raises(ValueError, match="view|anchors"):
        farthest_points(unit(0, views), count, first=first)
