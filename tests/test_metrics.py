from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from vggt_edge.metrics import depth_score, pose_auc, relative_pose_errors

SHAPE = (2, 4, 5)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
PERFECT = (0, 0, 0, 0, 1, 1, 1)
depths = arrays(np.float64, SHAPE, elements=st.floats(0.1, 50))
angles = arrays(np.float64, 12, elements=st.floats(0, 180))


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rotation = Rotation.random(count, rng=random).as_matrix()
    return np.concatenate([rotation, random.normal(size=(count, 3, 1))], axis=-1)


# Depth


def test_depth_by_hand():
    truth = np.array([1.0, 2, 4, 10])
    depth = np.array([1.1, 2, 2, 14])
    score = depth_score(depth, truth, np.ones(4, dtype=bool), align=False)
    assert score.abs_rel == pytest.approx((0.1 + 0 + 0.5 + 0.4) / 4)
    assert score.delta1 == 0.5
    assert (score.delta2, score.delta3) == (0.75, 0.75)
    assert score.sq_rel == pytest.approx((0.01 + 0 + 1 + 1.6) / 4)
    assert score.rmse == pytest.approx(np.sqrt((0.01 + 0 + 4 + 16) / 4))
    logs = np.log([1.1, 1, 2, 1.4])
    assert score.log_rmse == pytest.approx(np.sqrt(np.mean(logs**2)))


@given(depths)
def test_the_truth_scores_best(truth):
    assert depth_score(truth, truth, EVERYWHERE) == PERFECT
    assert depth_score(truth, truth, EVERYWHERE, align=False) == PERFECT


@given(depths, depths, st.floats(0.01, 100))
def test_alignment_makes_the_scale_irrelevant(depth, truth, scale):
    one = depth_score(depth, truth, EVERYWHERE)
    other = depth_score(depth * scale, truth, EVERYWHERE)
    assert other.abs_rel == pytest.approx(one.abs_rel)
    # A ratio of exactly 1.25 may fall on either side after rounding.
    assert other.delta1 == pytest.approx(one.delta1, abs=1 / EVERYWHERE.size)


@given(depths, st.floats(1.01, 3))
def test_a_wrong_scale_counts_without_alignment(truth, scale):
    score = depth_score(truth * scale, truth, EVERYWHERE, align=False)
    assert score.abs_rel == pytest.approx(scale - 1)
    assert score.delta1 == (scale < 1.25) or abs(scale - 1.25) < 1e-9


def test_one_factor_for_the_scene_not_one_an_image():
    truth = np.full(SHAPE, 2.0)
    depth = truth * np.array([1.0, 3.0])[:, None, None]
    assert depth_score(depth, truth, EVERYWHERE).abs_rel == pytest.approx(0.5)


def test_pixels_that_are_not_valid_do_not_count():
    truth = np.full(SHAPE, 2.0)
    depth, valid = truth.copy(), EVERYWHERE.copy()
    depth[0, 0], truth[0, 1], valid[0, :2] = np.nan, 0, False
    assert depth_score(depth, truth, valid) == PERFECT


def test_no_valid_pixel():
    with pytest.raises(ValueError, match="at least one valid pixel"):
        depth_score(np.ones(SHAPE), np.ones(SHAPE), ~EVERYWHERE)


# Cameras


def test_relative_rotation_is_scipys():
    ours, truth = random_poses(6), random_poses(6, seed=1)
    rotation, _ = relative_pose_errors(ours, truth)
    assert rotation.shape == (15,)
    a, b = (Rotation.from_matrix(poses[:, :, :3]) for poses in (ours, truth))
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    for error, (i, j) in zip(rotation, pairs, strict=True):
        spin = (a[j] * a[i].inv()) * (b[j] * b[i].inv()).inv()
        assert error == pytest.approx(np.degrees(spin.magnitude()))


def test_translation_by_hand():
    truth = np.tile(np.eye(3, 4), (2, 1, 1))
    ours = truth.copy()
    truth[1, :, 3], ours[1, :, 3] = [1, 0, 0], [3, 3, 0]
    assert relative_pose_errors(ours, truth)[1] == pytest.approx([45])
    ours[1, :, 3] = [-1, 0, 0]
    assert relative_pose_errors(ours, truth)[1] == pytest.approx([180])
    ours[1, :, 3] = 0
    assert relative_pose_errors(ours, truth)[1] == pytest.approx([90])


def test_identical_poses_have_no_error():
    poses = random_poses(5)
    rotation, translation = relative_pose_errors(poses, poses)
    assert rotation == pytest.approx(np.zeros(10), abs=1e-5)
    assert translation == pytest.approx(np.zeros(10), abs=1e-5)


def test_a_camera_that_stands_still_has_no_direction_to_miss():
    truth = np.tile(np.eye(3, 4), (3, 1, 1))
    _, translation = relative_pose_errors(random_poses(3), truth)
    assert np.array_equal(translation, np.zeros(3))


def test_world_frame_and_scale_do_not_matter():
    from vggt_edge.geometry import Similarity

    ours, truth = random_poses(5), random_poses(5, seed=1)
    moved = Similarity(3.0, Rotation.from_rotvec([1, 2, 3]).as_matrix(), np.array([4.0, 5, 6]))
    for one, other in zip(
        relative_pose_errors(ours, truth),
        relative_pose_errors(moved.apply_to_cameras(ours), truth),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-5)


@given(angles, angles, st.sampled_from([5.0, 15.0, 30.0]))
def test_pose_auc_is_the_limit_of_the_histogram(rotation, translation, threshold):
    """The area the literature sums over bins of a degree, with bins that are ever finer."""
    worst = np.maximum(rotation, translation)
    bins = 3000
    histogram, _ = np.histogram(worst, bins=np.linspace(0, threshold, bins + 1))
    # numpy's last bin is closed: what is wrong by the threshold itself is not right below it.
    histogram[-1] -= np.count_nonzero(worst == threshold)
    area = np.cumsum(histogram / len(worst)).mean()
    assert pose_auc(rotation, translation, threshold) == pytest.approx(area, abs=1.5 / bins)


def test_pose_auc_by_hand():
    rotation, translation = np.array([0.0, 3, 40]), np.array([0.0, 15, 0])
    assert pose_auc(rotation, translation) == pytest.approx((1 + 0.5 + 0) / 3)
    assert pose_auc(np.zeros(3), np.zeros(3), 5) == 1
    assert pose_auc(np.full(3, 30.0), np.zeros(3)) == 0


def test_one_view_has_no_pair():
    rotation, translation = relative_pose_errors(random_poses(1), random_poses(1))
    assert len(rotation) == len(translation) == 0
    with pytest.raises(ValueError, match="pair"):
        pose_auc(rotation, translation)
