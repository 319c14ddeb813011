"""Similarities: the group, robust fits under outliers, and alignment of predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import Oracle, make_walk

from vggt_edge.errors import InputError
from vggt_edge.geometry import Similarity
from vggt_edge.scene.align import align
from vggt_edge.scene.robust_fit import robust_similarity
from vggt_edge.scene.sim3 import compose, invert, right_jacobian, rotation_of, vector_of

seeds = st.integers(0, 2**31)


def random_similarity(rng: np.random.Generator) -> Similarity:
    vector = rng.normal(size=3)
    vector *= rng.uniform(0, 3) / np.linalg.norm(vector)
    return Similarity(float(np.exp(rng.normal())), rotation_of(vector), 5 * rng.normal(size=3))


@settings(deadline=None)
@given(seed=seeds)
def test_similarities_are_a_group(seed):
    rng = np.random.default_rng(seed)
    a, b, points = random_similarity(rng), random_similarity(rng), rng.normal(size=(5, 3))
    assert np.allclose(compose(a, b).apply(points), a.apply(b.apply(points)))
    assert np.allclose(invert(a).apply(a.apply(points)), points)


@settings(deadline=None)
@given(seed=seeds, length=st.floats(0, 3.1))
def test_rotation_vectors(seed, length):
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=3)
    vector *= length / np.linalg.norm(vector)
    assert np.allclose(vector_of(rotation_of(vector)), vector, atol=1e-9)
    step = 1e-6 * rng.normal(size=3)
    moved = rotation_of(vector) @ rotation_of(right_jacobian(vector) @ step)
    assert np.allclose(rotation_of(vector + step), moved, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, count=st.integers(20, 200), wrong=st.floats(0, 0.5))
def test_any_similarity_is_found_among_outliers(seed, count, wrong):
    rng = np.random.default_rng(seed)
    truth, source = random_similarity(rng), rng.normal(size=(count, 3))
    target = truth.apply(source)
    bad = rng.permutation(count) < wrong * count
    target[bad] += 10 * truth.scale * rng.normal(size=(int(bad.sum()), 3))
    fit = robust_similarity(source, target, 0.05 * truth.scale)
    assert np.allclose(fit.similarity.scale, truth.scale, rtol=1e-6)
    assert np.allclose(fit.similarity.rotation, truth.rotation, atol=1e-6)
    assert np.allclose(fit.similarity.translation, truth.translation, atol=1e-5 * truth.scale)
    assert fit.inliers[~bad].all()


def test_hopeless_points_are_refused():
    with pytest.raises(ValueError, match="3 pairs"):
        robust_similarity(np.zeros((2, 3)), np.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match="one place"):
        robust_similarity(np.ones((9, 3)), np.ones((9, 3)), 1.0)


@pytest.fixture(scope="module")
def truth():
    return make_walk(60)


def pair(oracle, truth):
    """Two predictions that share frames 20 to 29."""
    return oracle(truth.views[list(range(30))]), oracle(truth.views[list(range(20, 50))])


SHARED = [(20 + i, i) for i in range(10)]


@pytest.mark.parametrize(
    ("noise", "outliers", "close"), [(0, 0, 1e-6), (0, 0.3, 1e-5), (0.02, 0.1, 0.03)]
)
def test_predictions_are_aligned_by_shared_frames(truth, noise, outliers, close):
    a, b = pair(Oracle(truth, noise=noise, outliers=outliers), truth)
    found = align(a, b, SHARED)
    assert found.accepted() and found.agreeing >= 9 and found.shared == 10
    expected = np.median(a.depth[20:30] / b.depth[:10])
    assert found.similarity.scale == pytest.approx(expected, rel=close)
    moved = found.similarity.apply(b.cameras.centers[:10])
    assert np.abs(moved - a.cameras.centers[20:30]).max() < close * np.median(a.depth) * 3
    assert (np.linalg.eigvalsh(found.information) > 0).all()


def test_one_shared_frame_is_enough(truth):
    a, b = pair(Oracle(truth), truth)
    found = align(a, b, SHARED[:1])
    assert found.accepted() and found.similarity.scale == pytest.approx(
        np.median(a.depth[20] / b.depth[0]), rel=1e-6
    )


def test_frames_that_only_pretend_to_be_shared_disagree(truth):
    a, b = pair(Oracle(truth), truth)
    found = align(a, b, [(i, 29 - i) for i in range(10)])
    assert found is None or not found.accepted()


def test_more_shared_frames_are_more_information(truth):
    a, b = pair(Oracle(truth, noise=0.01), truth)
    few, many = align(a, b, SHARED[:2]), align(a, b, SHARED)
    assert np.linalg.slogdet(many.information)[1] > np.linalg.slogdet(few.information)[1]


def test_unknown_depth_is_not_compared(truth):
    a, b = pair(Oracle(truth), truth)
    nothing = replace(a, depth=np.full_like(a.depth, np.nan))
    assert align(nothing, b, SHARED) is None
    half = a.depth.copy()
    half[:, :10] = 0
    assert align(replace(a, depth=half), b, SHARED).inlier_ratio == pytest.approx(1)


def test_bad_calls_are_refused(truth):
    a, b = pair(Oracle(truth), truth)
    with pytest.raises(InputError, match="at least one shared"):
        align(a, b, [])
    with pytest.raises(InputError, match="depth"):
        align(replace(a, depth=None), b, SHARED)
