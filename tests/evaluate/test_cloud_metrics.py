from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from vggt_edge.evaluate import clouds
from vggt_edge.geometry import Similarity

seeds = st.integers(0, 2**32 - 1)


def sphere(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def room(seed: int = 0, count: int = 3000) -> np.ndarray:
    """Points on the floor and two walls of a room: rigid motions of it are unique."""
    points = np.random.default_rng(seed).uniform(0, 3, (count, 3)) * [1, 1, 0.7]
    points[np.arange(count), np.arange(count) % 3] = 0
    return points


def small_motion(degrees: float, shift: float) -> Similarity:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, -0.64, 0.48])).as_matrix()
    return Similarity(1.0, turn, shift * np.array([0.6, 0.0, -0.8]))


def test_distances_by_brute_force():
    random = np.random.default_rng(0)
    points, truth = random.normal(size=(80, 3)), random.normal(size=(60, 3))
    score = clouds.cloud_score(points, truth, thresholds=(0.3, 1.0))
    distance = cdist(points, truth)
    accuracy, completeness = distance.min(axis=1), distance.min(axis=0)
    assert score["acc_mean"] == pytest.approx(accuracy.mean())
    assert score["acc_median"] == pytest.approx(np.median(accuracy))
    assert score["comp_mean"] == pytest.approx(completeness.mean())
    assert score["comp_median"] == pytest.approx(np.median(completeness))
    assert score["chamfer"] == pytest.approx(accuracy.mean() + completeness.mean())
    assert score["overall"] == pytest.approx(score["chamfer"] / 2)
    precision, recall = (accuracy < 0.3).mean(), (completeness < 0.3).mean()
    assert score["precision_0.3"] == pytest.approx(precision)
    assert score["recall_0.3"] == pytest.approx(recall)
    assert score["fscore_0.3"] == pytest.approx(2 / (1 / precision + 1 / recall))
    assert "fscore_1" in score
    normals, true_normals = clouds.estimate_normals(points), clouds.estimate_normals(truth)
    dots = np.abs(normals @ true_normals.T)
    forth = dots[np.arange(80), distance.argmin(axis=1)]
    back = dots[distance.argmin(axis=0), np.arange(60)]
    assert score["nc_mean"] == pytest.approx((forth.mean() + back.mean()) / 2)
    assert score["nc_median"] == pytest.approx((np.median(forth) + np.median(back)) / 2)


def test_clipped_distances():
    score = clouds.cloud_score(np.array([[0.0, 0, 0], [9, 0, 0]]), np.zeros((1, 3)), clip=0.5)
    assert score["acc_mean"] == pytest.approx(0.25)
    assert score["comp_mean"] == 0


def test_the_truth_is_perfect():
    score = clouds.cloud_score(room(), room(), thresholds=(0.01,))
    assert score["chamfer"] == 0
    assert score["nc_mean"] == pytest.approx(1)
    assert score["fscore_0.01"] == 1


def test_two_parallel_walls():
    wall = np.random.default_rng(0).uniform(0, 5, (4000, 3)) * [1, 1, 0]
    score = clouds.cloud_score(wall + [0, 0, 0.2], wall, thresholds=(0.1, 0.25))
    assert score["acc_mean"] == pytest.approx(0.2)
    assert score["nc_mean"] == pytest.approx(1)
    assert (score["fscore_0.1"], score["fscore_0.25"]) == (0, 1)


def test_normals_of_a_sphere():
    points = sphere(4000)
    normals = clouds.estimate_normals(points)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(4000))
    assert np.abs(np.sum(normals * points, axis=1)).min() > 0.98


def test_normals_of_almost_nothing():
    assert np.array_equal(clouds.estimate_normals(np.zeros((2, 3))), [[0, 0, 1]] * 2)
    with pytest.raises(ValueError, match="without points"):
        clouds.estimate_normals(np.zeros((0, 3)))


def test_normals_do_not_depend_on_the_chunk():
    points = sphere((1 << 15) + 40)
    few = clouds.estimate_normals(points)[-40:]
    tree = clouds.tree(points)
    for point, normal in zip(points[-40:], few, strict=True):
        patch = points[tree.query(point, k=clouds.NEIGHBOURS)[1]]
        axis = np.linalg.svd(patch - patch.mean(axis=0))[2][2]
        assert abs(axis @ normal) == pytest.approx(1)


@pytest.mark.parametrize(("degrees", "shift"), [(1, 0.02), (2, 0.03)])
def test_icp_undoes_a_small_motion(degrees, shift):
    truth = room()
    points = small_motion(degrees, shift).apply(truth)
    aligned = clouds.icp(points, truth, 0.3).apply(points)
    before = np.linalg.norm(points - truth, axis=1).mean()
    assert np.linalg.norm(aligned - truth, axis=1).mean() < before / 5


def test_icp_keeps_the_size_and_leaves_what_is_out_of_reach():
    truth = room()
    motion = clouds.icp(truth * 1.05, truth, 0.3)
    assert motion.scale == 1
    far = clouds.icp(truth + 50, truth, 0.3)
    assert np.array_equal(far.apply(truth), truth)
    one_place = np.zeros((9, 3))
    assert np.isfinite(clouds.icp(one_place, truth, 0.3).apply(one_place)).all()


@settings(max_examples=30)
@given(seeds, st.floats(0.05, 20), st.floats(-9, 9))
def test_scale_shift_undoes_scale_and_depth_shift(seed, scale, shift):
    truth = room(seed, 300)
    points = truth * scale + [0, 0, shift]
    aligned, expected = clouds.median_scale_shift(points, truth)
    assert aligned == pytest.approx(expected, abs=1e-8)
    assert np.median(expected[:, 2]) == pytest.approx(0, abs=1e-12)


def test_scale_shift_does_not_turn():
    """Where the other alignment does, so that the two tables differ."""
    truth = room()
    points = small_motion(20, 0).apply(truth)
    aligned, expected = clouds.median_scale_shift(points, truth)
    assert np.linalg.norm(aligned - expected, axis=1).mean() > 0.1


def test_bounding_box():
    truth = room()
    points = truth * 0.3 + [5, 6, 7]
    found = clouds.bounding_box(points, truth)
    assert found.scale == pytest.approx(1 / 0.3)
    assert found.apply(points) == pytest.approx(truth)


def test_thinning_keeps_one_mean_a_voxel():
    points = np.array([[0.0, 0, 0], [0.1, 0, 0], [1, 0, 0], [1.1, 0, 0], [5, 5, 5]])
    found = clouds.thin(points, 1.0)
    assert sorted(map(tuple, found)) == [(0.05, 0, 0), (1.05, 0, 0), (5, 5, 5)]


def test_as_open3d():
    """The numbers of Open3D 0.20, whose ICP, normals and voxels the published scripts use.

    They are frozen, as it needs system libraries: registration_icp within 0.1 from the identity,
    estimate_normals() of both clouds, voxel_down_sample(0.05), with neighbours from cKDTree.
    """
    random = np.random.default_rng(0)
    truth = random.uniform(0, 3, (4000, 3)) * [1, 1, 0.7]
    truth[np.arange(4000), np.arange(4000) % 3] = 0
    turn = Rotation.from_rotvec([0.01, -0.02, 0.015]).as_matrix()
    points = (truth + random.normal(0, 0.02, (4000, 3))) @ turn.T + [0.02, 0, 0.01]
    motion = clouds.icp(points, truth, 0.1)
    assert motion.rotation[0] == pytest.approx([0.999676, 0.015159, 0.020445], abs=1e-6)
    assert motion.translation == pytest.approx([-0.020707, 0.000471, -0.00868], abs=1e-6)
    score = clouds.cloud_score(motion.apply(points), truth)
    expected = {
        "acc_mean": 0.02797976,
        "acc_median": 0.02673018,
        "comp_mean": 0.02666494,
        "comp_median": 0.02560513,
        "nc_mean": 0.99683390,
        "nc_median": 0.99901751,
    }
    assert {name: score[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert len(clouds.thin(truth, 0.05)) == 3190
    assert len(clouds.thin(points, 0.05)) == 3502


def test_scipy_is_optional(monkeypatch):
    import sys

    from vggt_edge.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingExtraError, match=r"vggt-edge\[evaluate\]"):
        clouds.tree(np.zeros((3, 3)))
