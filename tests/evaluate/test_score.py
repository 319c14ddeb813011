"""Whole scores of predictions that are made from the truth, through resize, crop and padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vggt_edge import geometry, preprocess
from vggt_edge.errors import InputError
from vggt_edge.evaluate.protocol import CloudRule, DepthRule, Protocol
from vggt_edge.evaluate.protocols import protocol
from vggt_edge.evaluate.score import score
from vggt_edge.recording import Recording
from vggt_edge.types import Cameras, Prediction, Views

PICTURE = (60, 90)
TRUTH = (40, 60)  # the depth maps are smaller than the pictures
FRAMES = 6
FOCAL = 70.0
RADIUS = 5.0


def true_cameras() -> Cameras:
    """Cameras that look around inside of a sphere, each another way and from another place."""
    random = np.random.default_rng(0)
    rotation = Rotation.from_euler("yx", random.uniform(-0.5, 0.5, (FRAMES, 2))).as_matrix()
    center = random.uniform(-1, 1, (FRAMES, 3, 1))
    intrinsics = np.array([[FOCAL, 0, PICTURE[1] / 2], [0, FOCAL, PICTURE[0] / 2], [0, 0, 1]])
    return Cameras(
        np.tile(intrinsics, (FRAMES, 1, 1)),
        np.concatenate([rotation, -rotation @ center], axis=-1),
        np.tile(np.array(PICTURE), (FRAMES, 1)),
    )


def sphere_depth(
    intrinsics: np.ndarray, camera_from_world: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """(H, W) depth of the sphere around the origin, seen from inside."""
    row, column = np.mgrid[: size[0], : size[1]]
    ray = np.stack([column, row, np.ones(size)], axis=-1) @ np.linalg.inv(intrinsics).T
    pose = geometry.invert_rigid(camera_from_world)
    ray, center = ray @ pose[:, :3].T, pose[:, 3]
    a, b = np.sum(ray * ray, axis=-1), ray @ center
    return (-b + np.sqrt(b * b - a * (center @ center - RADIUS**2))) / a


def true_recording(**changes: object) -> Recording:
    cameras = true_cameras()
    scale = np.array(TRUTH) / PICTURE
    matrix = np.array(
        [[scale[1], 0, 0.5 * scale[1] - 0.5], [0, scale[0], 0.5 * scale[0] - 0.5], [0, 0, 1]]
    )

    def depth(i: int) -> np.ndarray:
        k = matrix @ cameras.intrinsics[i]
        return sphere_depth(k, cameras.camera_from_world[i], TRUTH).astype(np.float32)

    paths = tuple(Path(f"{i}.png") for i in range(FRAMES))
    return replace(Recording("sphere", paths, cameras, depth), **changes)


def true_prediction(mode: str = "keep", scale: float = 1.0, size: int = 42) -> Prediction:
    """What a perfect network says, in a world of its own: of the first camera, ``scale`` as big."""
    placed = preprocess.place([PICTURE], mode, size, 14)[0]
    truth = true_cameras()
    views = Views(
        images=np.full((FRAMES, *placed.view, 3), 255, dtype=np.uint8),
        names=tuple(f"{i}" for i in range(FRAMES)),
        sources=tuple(f"{i}.png" for i in range(FRAMES)),
        source_sizes=np.tile(np.array(PICTURE), (FRAMES, 1)),
        source_from_view=np.tile(placed.source_from_view, (FRAMES, 1, 1)),
        valid=np.tile(np.array(placed.valid), (FRAMES, 1)),
    )
    intrinsics = np.linalg.inv(views.source_from_view) @ truth.intrinsics
    depth = np.stack(
        [
            sphere_depth(k, pose, views.size)
            for k, pose in zip(intrinsics, truth.camera_from_world, strict=True)
        ]
    )
    first = geometry.invert_rigid(truth.camera_from_world[:1])
    poses = geometry.compose_rigid(truth.camera_from_world, first)
    poses[:, :, 3] *= scale
    cameras = Cameras(intrinsics, poses, np.tile(np.array(views.size), (FRAMES, 1)))
    found = Prediction(views, cameras, (depth * scale).astype(np.float32))
    return replace(found, points=found.world_points())


EVERYTHING = Protocol(
    "everything",
    "",
    poses=("usual", "strict", "legacy"),
    trajectories=("sim3", "se3", "none"),
    depth=DepthRule(("median", "scale_shift", "none")),
    cloud=CloudRule(("umeyama", "scale_shift", "bounds", "cameras"), thresholds=(0.1,)),
)
UNITS_AGREE = ("se3_", "none_")


@pytest.mark.parametrize("mode", preprocess.MODES)
@pytest.mark.parametrize("grid", ["truth", "view"])
def test_a_perfect_prediction_is_perfect(mode, grid):
    rules = replace(EVERYTHING, depth=replace(EVERYTHING.depth, grid=grid))
    found = score(rules, true_recording(), true_prediction(mode))
    for kind in ("", "strict_", "legacy_"):
        assert found[f"{kind}auc3"] == pytest.approx(1, abs=1e-4)
    assert found["focal_error"] < 1e-9 and found["found"] == 1
    assert found["none_ate"] > 0.1  # the truth's world is another one than the first camera's
    for kind in ("", "se3_"):
        assert found[f"{kind}ate"] < 1e-6 and found[f"{kind}rpe_rotation"] < 1e-4
    for kind in ("", "scale_shift_", "none_"):
        # Interpolation, or half a true pixel.
        assert found[f"{kind}abs_rel"] < 0.02 and found[f"{kind}delta1"] == 1
    for kind in ("", "scale_shift_", "cameras_"):
        assert found[f"{kind}acc_mean"] < 0.05 and found[f"{kind}comp_mean"] < 0.05
        assert found[f"{kind}nc_mean"] > 0.98 and found[f"{kind}fscore_0.1"] > 0.95
    assert found["bounds_acc_mean"] < 0.3


@settings(max_examples=8, deadline=None)
@given(st.floats(0.05, 20), st.sampled_from(preprocess.MODES))
def test_the_size_of_the_predicted_world_does_not_matter(scale, mode):
    rules = replace(EVERYTHING, cloud=CloudRule(limit=500))
    one, other = (score(rules, true_recording(), true_prediction(mode, s)) for s in (1.0, scale))
    for name, value in one.items():
        if not name.startswith(UNITS_AGREE):
            assert other[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    if abs(scale - 1) > 0.1:
        assert other["none_abs_rel"] == pytest.approx(abs(scale - 1), rel=0.05)
        assert other["se3_ate"] > 0.05


def test_a_wrong_prediction_is_wrong_in_every_measure():
    truth = true_prediction()
    random = np.random.default_rng(0)
    turn = Rotation.from_rotvec(random.normal(0, 0.3, (FRAMES, 3))).as_matrix()
    poses = turn @ truth.cameras.camera_from_world
    poses[:, :, 3] += random.normal(0, 0.3, (FRAMES, 3))
    wrong = replace(
        truth,
        cameras=replace(truth.cameras, camera_from_world=poses),
        depth=truth.depth * random.lognormal(0, 0.5, truth.depth.shape).astype(np.float32),
    )
    good, bad = (score(EVERYTHING, true_recording(), found) for found in (truth, wrong))
    assert good.keys() == bad.keys()
    better = ("auc", "rra", "rta", "delta", "nc_", "precision", "recall", "fscore")
    for name in good.keys() - {"found", "focal_error"}:
        if any(part in name for part in better):
            assert bad[name] <= good[name], name
        elif not name.startswith("bounds_"):
            assert bad[name] > good[name], name
    assert bad["auc30"] < 0.8 and bad["abs_rel"] > 0.2 and bad["acc_mean"] > 0.2


def test_lengths_need_a_unit():
    found = score(EVERYTHING, true_recording(units="arbitrary"), true_prediction())
    assert {"auc30", "abs_rel", "delta1", "ate_relative", "nc_mean", "log_rmse"} <= found.keys()
    for name in ("ate", "rmse", "sq_rel", "acc_mean", "chamfer", "fscore_0.1", "rpe_translation"):
        assert not any(other.endswith(name) for other in found if "log_" not in other), name


def test_only_what_there_is_truth_of():
    poses_only = score(EVERYTHING, true_recording(depth=None), true_prediction())
    assert "auc30" in poses_only and "abs_rel" not in poses_only and "acc_mean" not in poses_only
    depth_only = score(EVERYTHING, true_recording(cameras=None), true_prediction())
    assert "abs_rel" in depth_only and "auc30" not in depth_only and "acc_mean" not in depth_only
    assert score(EVERYTHING, true_recording(cameras=None, depth=None), true_prediction()) == {}
    unknown = true_recording(depth=lambda _: np.zeros(TRUTH, dtype=np.float32))
    assert "abs_rel" not in score(EVERYTHING, unknown, true_prediction())


def test_only_what_was_predicted():
    truth = true_prediction()
    found = score(EVERYTHING, true_recording(), replace(truth, depth=None, points=None))
    assert "auc30" in found and "abs_rel" not in found and "acc_mean" not in found
    found = score(EVERYTHING, true_recording(), Prediction(truth.views, depth=truth.depth))
    assert "abs_rel" in found and "auc30" not in found and "acc_mean" not in found


def test_cameras_that_were_not_found():
    truth = true_prediction()
    poses = truth.cameras.camera_from_world.copy()
    poses[0] = np.nan
    rules = replace(EVERYTHING, depth=None, cloud=None)
    found = score(
        rules,
        true_recording(),
        replace(truth, cameras=replace(truth.cameras, camera_from_world=poses)),
    )
    assert found["found"] == pytest.approx(5 / 6)
    assert found["auc30"] == pytest.approx(10 / 15, abs=1e-4)
    assert found["ate"] < 1e-6  # of those that were
    poses[:4] = np.nan
    found = score(
        rules,
        true_recording(),
        replace(truth, cameras=replace(truth.cameras, camera_from_world=poses)),
    )
    assert "ate" not in found and found["auc30"] == pytest.approx(1 / 15, abs=1e-4)


def test_a_surface_without_depth_is_aligned_by_cameras():
    points = np.random.default_rng(0).normal(size=(6_000, 3))
    surface = RADIUS * points / np.linalg.norm(points, axis=1, keepdims=True)
    truth = true_recording(depth=None, points=lambda: surface)
    found = score(replace(EVERYTHING, depth=None), truth, true_prediction(scale=0.3))
    assert "acc_mean" not in found
    # Half the spacing of 6,000 points on this sphere.
    assert found["cameras_acc_mean"] < 0.13
    assert found["cameras_comp_mean"] > found["cameras_acc_mean"]  # not all of it is in view
    # Baselines do not fail: cameras in one place have no scale.
    still = true_prediction()
    still = replace(
        still,
        cameras=replace(still.cameras, camera_from_world=np.tile(np.eye(3, 4), (FRAMES, 1, 1))),
        depth=np.ones_like(still.depth),
    )
    worse = score(EVERYTHING, truth, still)
    assert worse["cameras_acc_mean"] > 1 and worse["ate_relative"] == pytest.approx(1)
    assert worse["auc30"] < 0.5


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("quantvggt", "co3d", {"legacy_auc30", "auc30"}),
        ("quantvggt", "7scenes", {"scale_shift_acc_mean", "scale_shift_nc_median", "acc_mean"}),
        ("pi3", "7scenes", {"acc_mean", "comp_median", "nc_mean"}),
        ("pi3", "tum", {"ate", "rpe_translation", "rpe_rotation"}),
        ("vggt", "eth3d", {"acc_mean", "comp_mean", "overall"}),
        ("fastvggt", "scannet", {"legacy_ate", "ate", "bounds_chamfer"}),
        ("vggt-edge", None, {"auc30", "strict_auc30", "ate", "abs_rel", "acc_mean", "nc_mean"}),
    ],
)
def test_named_protocols_give_the_columns_of_their_table(name, dataset, expected):
    found = score(protocol(name, dataset), true_recording(), true_prediction())
    assert expected <= found.keys()
    assert all(np.isfinite(list(found.values())))


def test_the_crop_of_the_point_maps():
    rules = Protocol("crop", "", cloud=CloudRule(("scale_shift",), "points", crop=20, limit=None))
    random = np.random.default_rng(0)
    found = true_prediction()
    height, width = found.views.size
    broken = found.points + random.normal(0, 1, found.points.shape)
    middle = (slice(None), *(slice(n // 2 - 10, n // 2 + 10) for n in (height, width)))
    broken[middle] = found.points[middle]
    everywhere = replace(rules, cloud=replace(rules.cloud, crop=None))
    prediction = replace(found, points=broken)
    assert (
        score(rules, true_recording(), prediction)["scale_shift_acc_mean"]
        < score(everywhere, true_recording(), prediction)["scale_shift_acc_mean"] / 2
    )


def test_icp_repairs_what_the_alignment_left():
    rules = Protocol("icp", "", cloud=CloudRule(("cameras",), limit=None, icp=0.5))
    found = true_prediction()
    poses = found.cameras.camera_from_world.copy()
    poses[:, :, 3] += np.random.default_rng(1).normal(0, 0.05, (FRAMES, 3))
    found = replace(found, cameras=replace(found.cameras, camera_from_world=poses))
    without = replace(rules, cloud=replace(rules.cloud, icp=None))
    one, other = (score(r, true_recording(), found) for r in (rules, without))
    assert one["cameras_acc_mean"] <= other["cameras_acc_mean"]


def test_scores_are_the_same_each_time():
    rules = replace(EVERYTHING, cloud=CloudRule(limit=300, thresholds=(0.1,)))
    one, other = (score(rules, true_recording(), true_prediction()) for _ in range(2))
    assert one == other


def test_thinned_clouds_keep_their_pairs():
    rules = Protocol("few", "", cloud=CloudRule(limit=200))
    exact = true_recording()
    prediction = true_prediction()
    shape = prediction.views.size
    views = replace(
        prediction.views,
        source_sizes=np.tile(np.array(shape), (FRAMES, 1)),
        source_from_view=np.tile(np.eye(3), (FRAMES, 1, 1)),
    )
    cameras = replace(exact.cameras, intrinsics=prediction.cameras.intrinsics)
    exact = replace(exact, cameras=cameras, depth=lambda i: prediction.depth[i])
    found = score(rules, exact, replace(prediction, views=views))
    assert found["acc_mean"] < 1e-5 and found["comp_mean"] < 1e-5


def test_other_frames_than_predicted():
    with pytest.raises(InputError, match="sphere: 4 frames, but 6 were predicted"):
        score(EVERYTHING, true_recording()[:4], true_prediction())
