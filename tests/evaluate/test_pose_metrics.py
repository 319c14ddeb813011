from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vggt_edge import geometry, metrics
from vggt_edge.evaluate import poses

seeds = st.integers(0, 2**32 - 1)


def cameras(count: int, seed: int, turn: float = 3.0, move: float = 1.0) -> np.ndarray:
    """Extrinsics of which those of equal seed and other ``turn`` are alike."""
    random = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(random.uniform(-turn, turn, (count, 3))).as_matrix()
    return np.concatenate([rotation, random.normal(size=(count, 3, 1)) * move], axis=-1)


def disturbed(truth: np.ndarray, seed: int, degrees: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(np.radians(random.normal(0, degrees, (len(truth), 3)))).as_matrix()
    shift = random.normal(0, np.radians(degrees), (len(truth), 3, 1))
    return np.concatenate([turn @ truth[:, :, :3], turn @ truth[:, :, 3:] + shift], axis=-1)


def square(pose: np.ndarray) -> np.ndarray:
    return np.vstack([pose, [0, 0, 0, 1]])


def by_hand(ours: np.ndarray, truth: np.ndarray, definition: str) -> tuple[np.ndarray, np.ndarray]:
    """The definitions pair by pair, with inverses of 4x4 matrices and scipy's quaternions."""
    ours, truth = ([square(p) for p in poses] for poses in (ours, truth))
    if definition == "legacy":
        ours, truth = ([p @ np.linalg.inv(every[0]) for p in every] for every in (ours, truth))
    turns, directions = [], []
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            if definition == "legacy":
                a, b = (np.linalg.inv(every[i]) @ every[j] for every in (ours, truth))
            else:
                a, b = (every[j] @ np.linalg.inv(every[i]) for every in (ours, truth))
            spin = Rotation.from_matrix(a[:3, :3]).inv() * Rotation.from_matrix(b[:3, :3])
            turns.append(np.degrees(spin.magnitude()))
            cosine = a[:3, 3] @ b[:3, 3] / np.linalg.norm(a[:3, 3]) / np.linalg.norm(b[:3, 3])
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            directions.append(angle if definition == "strict" else min(angle, 180 - angle))
    return np.array(turns), np.array(directions)


@pytest.mark.parametrize("definition", poses.DEFINITIONS)
@given(seeds)
def test_pair_errors_by_hand(definition, seed):
    ours, truth = cameras(5, seed), cameras(5, seed + 1)
    found = poses.pair_errors(ours, truth, definition)
    expected = by_hand(ours, truth, definition)
    # The pairs' order is free, but rotation and translation must stay together.
    order, other = (np.lexsort(np.round(pair, 3)) for pair in (found, expected))
    for one, two in zip(found, expected, strict=True):
        assert one[order] == pytest.approx(two[other], abs=1e-4)


@pytest.mark.parametrize("definition", poses.DEFINITIONS)
@given(seeds)
def test_the_truth_is_perfect(definition, seed):
    truth = cameras(4, seed)
    score = poses.pose_score(truth, truth, definition)
    assert score == pytest.approx(dict.fromkeys(score, 1), abs=1e-5)


@given(seeds, st.floats(0.01, 100))
def test_the_world_and_its_scale_do_not_matter(seed, scale):
    truth = cameras(4, seed)
    ours = disturbed(truth, seed + 1, 10)
    random = np.random.default_rng(seed)
    turn = Rotation.random(rng=random).as_matrix()
    moved = geometry.Similarity(scale, turn, random.normal(size=3)).apply_to_cameras(ours)
    for definition in ("usual", "strict"):
        for one, two in zip(
            poses.pair_errors(ours, truth, definition),
            poses.pair_errors(moved, truth, definition),
            strict=True,
        ):
            assert one == pytest.approx(two, abs=1e-3)


def test_legacy_is_another_measure():
    """It follows the choice of the first frame, which relative poses know nothing of."""
    # Cameras around an object at distance 4: where Co3Dv2's are.
    angles = np.linspace(0, 5, 8)
    rotation = Rotation.from_euler("y", angles[:, None]).as_matrix()
    truth = np.concatenate([rotation, np.tile([[0.0], [0], [4]], (8, 1, 1))], axis=-1)
    ours = disturbed(truth, 1, 3)
    usual, legacy = (
        np.sort(poses.pair_errors(ours, truth, definition)[1]) for definition in ("usual", "legacy")
    )
    assert np.abs(usual - legacy).max() > 1
    # Without the first frame, the pairs of the others keep their errors, but not in legacy.
    for definition in ("usual", "legacy"):
        every = poses.pair_errors(ours, truth, definition)[1]
        rest = poses.pair_errors(ours[1:], truth[1:], definition)[1]
        kept = [np.abs(every - error).min() < 1e-4 for error in rest]
        assert all(kept) == (definition == "usual")


def test_a_direction_backwards_is_forgiven_but_by_strict():
    truth = np.tile(np.eye(3, 4), (2, 1, 1))
    ours = truth.copy()
    truth[1, :, 3], ours[1, :, 3] = [1, 0, 0], [-1, 0, 0]
    assert poses.pair_errors(ours, truth)[1] == pytest.approx([0])
    assert poses.pair_errors(ours, truth, "legacy")[1] == pytest.approx([0])
    assert poses.pair_errors(ours, truth, "strict")[1] == pytest.approx([180])
    assert poses.pose_score(ours, truth)["auc30"] == 1
    assert poses.pose_score(ours, truth, "strict")["auc30"] == 0


@given(seeds, st.floats(0.1, 40))
def test_strict_is_never_above_usual(seed, degrees):
    truth = cameras(5, seed)
    ours = disturbed(truth, seed + 1, degrees)
    usual, strict = (poses.pose_score(ours, truth, d) for d in ("usual", "strict"))
    assert all(strict[name] <= usual[name] + 1e-9 for name in usual)


def test_binned_auc_by_hand():
    rotation, translation = np.array([0.5, 2.5, 40]), np.array([0.0, 14.5, 0])
    # Right from bin 1 on (30 of 30) and from bin 15 on (16 of 30).
    assert poses.binned_auc(rotation, translation) == pytest.approx((30 + 16) / 30 / 3)
    assert poses.binned_auc(rotation, translation, 3) == pytest.approx(1 / 3)
    # numpy closes the last bin.
    assert poses.binned_auc(np.array([3.0]), np.zeros(1), 3) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="pair"):
        poses.binned_auc(np.zeros(0), np.zeros(0))


@given(st.lists(st.floats(0, 180), min_size=1, max_size=30), st.sampled_from([30, 15, 5, 3]))
def test_binned_auc_is_above_the_exact_one_by_half_a_bin_on_average(errors, threshold):
    errors = np.array(errors)
    binned = poses.binned_auc(errors, np.zeros(len(errors)), threshold)
    exact = metrics.pose_auc(errors, np.zeros(len(errors)), threshold)
    assert -1e-9 <= binned - exact <= 1 / threshold + 1e-9


def test_accuracy_counts_pairs_below_the_threshold():
    truth = np.tile(np.eye(3, 4), (3, 1, 1))
    truth[:, 0, 3] = [0, 1, 2]
    ours = truth.copy()
    turn = Rotation.from_euler("x", 10, degrees=True).as_matrix()
    ours[2] = np.concatenate([turn @ truth[2, :, :3], turn @ truth[2, :, 3:]], axis=-1)
    score = poses.pose_score(ours, truth)
    assert score["rra15"] == 1
    assert score["rra5"] == pytest.approx(1 / 3)
    assert score["rta5"] == 1  # the turn is around the axis of motion


def test_a_camera_that_was_not_found_is_wrong():
    truth = cameras(4, 0)
    ours = truth.copy()
    ours[2] = np.nan
    for definition in poses.DEFINITIONS:
        score = poses.pose_score(ours, truth, definition)
        assert score["auc30"] == pytest.approx(0.5)
        assert score["rra3"] == score["rta3"] == pytest.approx(0.5)


def test_unknown_definition_and_single_view():
    with pytest.raises(ValueError, match="modern"):
        poses.pair_errors(cameras(2, 0), cameras(2, 0), "modern")
    with pytest.raises(ValueError, match="pair"):
        poses.pose_score(cameras(1, 0), cameras(1, 0))


def test_focal_error():
    truth = np.tile(np.diag([100.0, 100, 1]), (3, 1, 1))
    ours = truth * np.array([1.0, 1.1, 1.3])[:, None, None]
    assert poses.focal_error(ours, truth) == pytest.approx(0.1)
    truth[:, 1, 1] = -100
    assert poses.focal_error(ours, truth) == pytest.approx(0.1)
