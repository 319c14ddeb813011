"""Against evo (github.com/MichaelGrupp/evo), which the papers score trajectories by."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vggt_edge import geometry
from vggt_edge.evaluate import trajectories
from vggt_edge.evaluate.trajectories import trajectory_score

evo_ape = pytest.importorskip("evo.main_ape", reason="evo is not installed")
evo_rpe = pytest.importorskip("evo.main_rpe", reason="evo is not installed")
PoseRelation = pytest.importorskip("evo.core.metrics").PoseRelation
Unit = pytest.importorskip("evo.core.metrics").Unit
PosePath3D = pytest.importorskip("evo.core.trajectory").PosePath3D

seeds = st.integers(0, 2**32 - 1)
ARGUMENTS = {
    "sim3": {"align": True, "correct_scale": True},
    "se3": {"align": True, "correct_scale": False},
    "none": {"align": False, "correct_scale": False},
}


def walk(count: int, seed: int) -> np.ndarray:
    """Extrinsics of a camera that walks and turns."""
    random = np.random.default_rng(seed)
    turns = np.cumsum(random.normal(0, 0.2, (count, 3)), axis=0)
    rotation = Rotation.from_rotvec(turns).as_matrix()
    center = np.cumsum(random.normal(0, 1, (count, 3)), axis=0)[:, :, None]
    return np.concatenate([rotation, -rotation @ center], axis=-1)


def disturbed(truth: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(random.normal(0, 0.1, (len(truth), 3))).as_matrix()
    shift = random.normal(0, 0.3, (len(truth), 3, 1))
    moved = np.concatenate([turn @ truth[:, :, :3], turn @ truth[:, :, 3:] + shift], axis=-1)
    world = Rotation.random(rng=random).as_matrix()
    return geometry.Similarity(0.4, world, np.array([3.0, -1, 2])).apply_to_cameras(moved)


def path(poses: np.ndarray) -> PosePath3D:
    """evo's trajectory of (S, 3, 4) poses."""
    bottom = np.tile([[[0.0, 0, 0, 1]]], (len(poses), 1, 1))
    return PosePath3D(poses_se3=list(np.concatenate([poses, bottom], axis=1)))


def by_evo(poses: np.ndarray, truth: np.ndarray, **arguments: bool) -> dict[str, float]:
    found = {}
    for name, relation in (
        ("ate", PoseRelation.translation_part),
        ("are", PoseRelation.rotation_angle_deg),
    ):
        result = evo_ape.ape(path(truth), path(poses), relation, **arguments)
        found[name] = result.stats["rmse"]
    for name, relation in (
        ("rpe_translation", PoseRelation.translation_part),
        ("rpe_rotation", PoseRelation.rotation_angle_deg),
    ):
        result = evo_rpe.rpe(
            path(truth), path(poses), relation, delta=1, delta_unit=Unit.frames, all_pairs=True,
            **arguments,
        )  # fmt: skip
        found[name] = result.stats["rmse"]
    return found


@pytest.mark.parametrize("alignment", ARGUMENTS)
@pytest.mark.parametrize(("count", "seed"), [(3, 0), (7, 1), (40, 2)])
def test_as_evo(alignment, count, seed):
    truth = walk(count, seed)
    ours = disturbed(truth, seed + 100)
    expected = by_evo(
        geometry.invert_rigid(ours), geometry.invert_rigid(truth), **ARGUMENTS[alignment]
    )
    score = trajectory_score(ours, truth, alignment)._asdict()
    del score["ate_relative"]
    assert score == pytest.approx(expected, rel=1e-6)


def test_legacy_as_the_published_script():
    """Extrinsics for poses; evo aligned by Sim(3) and then at the origin, which it refuses now."""
    truth = walk(12, 3)
    ours = disturbed(truth, 4)
    first = geometry.invert_rigid(truth[:1])
    reference = path(geometry.compose_rigid(truth, first))
    estimate = path(ours)
    estimate.align(reference, correct_scale=True)
    estimate.align_origin(reference)
    result = evo_ape.ape(
        copy.deepcopy(reference), copy.deepcopy(estimate), PoseRelation.translation_part
    )
    score = trajectory_score(ours, truth, "legacy")
    assert score.ate == pytest.approx(result.stats["rmse"], rel=1e-6)
    assert score.ate != pytest.approx(trajectory_score(ours, truth).ate, rel=0.01)


@given(seeds, st.floats(0.01, 100))
def test_sim3_does_not_see_a_similarity(seed, scale):
    truth = walk(6, seed)
    ours = disturbed(truth, seed + 1)
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    moved = geometry.Similarity(scale, turn, np.array([1.0, 2, 3])).apply_to_cameras(ours)
    assert trajectory_score(moved, truth) == pytest.approx(
        trajectory_score(ours, truth), rel=1e-5, abs=1e-6
    )
    if abs(scale - 1) > 0.1:
        one, two = (trajectory_score(poses, truth, "se3").ate for poses in (moved, ours))
        assert one != pytest.approx(two, rel=1e-3)


@pytest.mark.parametrize("alignment", trajectories.ALIGNMENTS)
@given(seeds)
def test_the_truth_is_perfect(alignment, seed):
    truth = walk(5, seed)
    ours = geometry.compose_rigid(truth, geometry.invert_rigid(truth[:1]))
    if alignment == "none":
        ours = truth
    assert trajectory_score(ours, truth, alignment) == pytest.approx((0,) * 5, abs=1e-4)


def test_a_camera_that_never_moves_scores_one():
    truth = walk(9, 0)
    still = np.tile(np.eye(3, 4), (9, 1, 1))
    assert trajectory_score(still, truth).ate_relative == pytest.approx(1)
    # and nothing that moves scores worse after the best similarity.
    assert trajectory_score(walk(9, 5), truth).ate_relative <= 1


def test_too_few_cameras_and_unknown_alignments():
    with pytest.raises(ValueError, match="at least 3"):
        trajectory_score(walk(2, 0), walk(2, 0))
    with pytest.raises(ValueError, match="two cameras"):
        trajectory_score(walk(1, 0), walk(1, 0))
    with pytest.raises(ValueError, match="affine"):
        trajectory_score(walk(3, 0), walk(3, 0), "affine")
    assert trajectory_score(walk(2, 0), walk(2, 0), "none").ate == 0
