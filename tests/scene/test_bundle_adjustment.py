"""Bundle adjustment: cameras that are off come back to what the pictures say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_scene
from walks import trajectory_error

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.metrics import relative_pose_errors
from vggt_edge.scene.bundle import bundle_adjust, bundle_adjust_scene
from vggt_edge.scene.fuse import fuse
from vggt_edge.scene.measure import measure_observations
from vggt_edge.scene.sim3 import rotation_of
from vggt_edge.scene.tracks import build_sparse_model
from vggt_edge.types import Scene


@pytest.fixture(scope="module")
def truth() -> Scene:
    return make_scene(6, 84, 112)


def spoilt(cameras, amount: float, seed: int = 0):
    """The cameras, all but the first turned by about so many radians, and moved."""
    rng, count = np.random.default_rng(seed), len(cameras)
    turn = rotation_of(rng.normal(0, amount, (count, 3)))
    wobble = np.concatenate([turn, rng.normal(0, 3 * amount, (count, 3, 1))], axis=-1)
    wobble[0] = np.eye(3, 4)
    poses = geometry.compose_rigid(wobble, cameras.camera_from_world)
    return replace(cameras, camera_from_world=poses)


def test_exact_sightings_bring_cameras_and_points_back(truth):
    exact = build_sparse_model(truth, target_points=800)
    at = truth.cameras.camera_from_world[exact.observation_image]
    matrix = exact.cameras.intrinsics[exact.observation_image]
    points = exact.points[exact.observation_point]
    pixels = geometry.project(points[:, None], matrix, at)[:, 0, :2]
    noise = 0.01 * np.random.default_rng(0).normal(size=exact.points.shape)
    model = replace(
        exact,
        observations=pixels,
        cameras=spoilt(exact.cameras, 0.01),
        points=exact.points + noise,
    )
    assert np.nanmedian(model.reprojection_errors()) > 1
    adjusted = bundle_adjust(model, refine_focal_length=False)
    assert np.nanmax(adjusted.reprojection_errors()) < 1e-2
    assert adjusted.errors.max() < 1e-2
    before, after = (
        relative_pose_errors(m.cameras.camera_from_world, truth.cameras.camera_from_world)[0]
        for m in (model, adjusted)
    )
    assert after.max() < 1e-2 < 0.3 < before.mean()
    # The world is that of the input, as far as its wrong cameras say.
    gap = np.linalg.norm(adjusted.cameras.centers - model.cameras.centers, axis=1)
    assert np.median(gap) < 0.1


def test_sightings_are_measured_in_the_pictures(truth):
    model = build_sparse_model(truth, target_points=1500)
    measured = measure_observations(model, truth)
    errors = measured.reprojection_errors()
    assert len(measured.points) > 0.3 * len(model.points)
    assert np.median(errors) < 0.2 and np.percentile(errors, 90) < 1.2, "source pixels"
    off = replace(truth, prediction=replace(truth.prediction, cameras=spoilt(truth.cameras, 0.005)))
    off = fuse(off.prediction, percentile=0, mask_edges=False)
    moved = measure_observations(build_sparse_model(off, target_points=1500), off)
    assert np.median(moved.reprojection_errors()) > 2 * np.median(errors), "measured, not assumed"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_scene_with_wrong_cameras_is_mended(truth, seed):
    cameras = spoilt(truth.cameras, 0.006, seed)
    off = fuse(replace(truth.prediction, cameras=cameras), percentile=0, mask_edges=False)
    mended = bundle_adjust_scene(off, target_points=1500)
    before, after = (trajectory_error(s.cameras, truth.cameras) for s in (off, mended))
    assert after < before / 3, (before, after)
    assert np.allclose(mended.cameras.camera_from_world[0], off.cameras.camera_from_world[0])
    assert np.allclose(
        mended.prediction.world_points()[mended.view_index, mended.pixel[:, 1], mended.pixel[:, 0]],
        mended.points,
        atol=1e-4,
    )
    assert len(mended.points) == len(off.points) and mended.units == off.units


def test_nothing_to_adjust_is_refused(truth):
    model = build_sparse_model(truth, target_points=100)
    alone = replace(
        model,
        observations=model.observations[:1],
        observation_image=model.observation_image[:1],
        observation_point=model.observation_point[:1],
    )
    with pytest.raises(InputError, match="two images"):
        bundle_adjust(alone)
