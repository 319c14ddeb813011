from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.scene.fuse import fuse
from vggt_edge.types import Cameras, Prediction, Views

SIZE = (30, 40)


def wall(count=3, distance=4.0):
    """Cameras side by side, and turned a little, before a wall of constant z, seen exactly."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    intrinsics = np.tile([[35.0, 0, 19.5], [0, 35, 14.5], [0, 0, 1]], (count, 1, 1))
    angles = np.linspace(-0.1, 0.1, count) if count > 1 else np.zeros(1)
    rotation = geometry.quaternion_to_matrix(
        np.stack([0 * angles, np.sin(angles / 2), 0 * angles, np.cos(angles / 2)], axis=-1)
    )
    centers = np.stack([np.arange(count) * 0.2, np.zeros(count), np.zeros(count)], axis=-1)
    world_from_camera = np.concatenate([rotation, centers[:, :, None]], axis=2)
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(column - 19.5) / 35, (row - 14.5) / 35, np.ones(SIZE)], axis=-1)
    along = np.einsum("sj,hwj->shw", rotation[:, 2], rays)
    depth = (distance / along).astype(np.float32)
    cameras = Cameras(
        intrinsics, geometry.invert_rigid(world_from_camera), np.tile(SIZE, (count, 1))
    )
    views = Views.from_images(rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8))
    confidence = rng.uniform(1, 5, depth.shape).astype(np.float32)
    return Prediction(views, cameras, depth, confidence)


def test_every_pixel_of_a_clean_wall_becomes_its_point():
    prediction = wall()
    scene = fuse(prediction, percentile=0, max_points=None)
    assert len(scene.points) == prediction.depth.size
    np.testing.assert_allclose(scene.points[:, 2], 4.0, rtol=1e-5)
    for n in (0, 777, 3599):
        i, (column, row) = scene.view_index[n], scene.pixel[n]
        seen = geometry.project(
            scene.points[n : n + 1].astype(np.float64),
            prediction.cameras.intrinsics[i],
            prediction.cameras.camera_from_world[i],
        )[0]
        np.testing.assert_allclose(seen, [column, row, prediction.depth[i, row, column]], atol=1e-4)
        np.testing.assert_array_equal(scene.colors[n], prediction.views.images[i, row, column])
        assert scene.confidence[n] == prediction.depth_confidence[i, row, column]
    types = [scene.points.dtype, scene.colors.dtype, scene.view_index.dtype, scene.pixel.dtype]
    assert types == [np.float32, np.uint8, np.int32, np.int32]


@given(st.floats(0, 99), st.floats(1e-3, 1e3))
def test_the_percentile_is_a_rank_over_all_views_whatever_the_scale(percentile, scale):
    prediction = wall()
    confidence = prediction.depth_confidence * scale
    confidence[0] *= 0.01
    prediction = replace(prediction, depth_confidence=confidence)
    scene = fuse(prediction, percentile=percentile, max_points=None)
    assert len(scene.points) == pytest.approx(confidence.size * (1 - percentile / 100), abs=2)
    dropped = confidence.size - len(scene.points)
    assert (scene.view_index == 0).sum() == max(0, confidence[0].size - dropped)


def test_equal_confidence_drops_nothing_and_nan_is_never_kept():
    prediction = wall()
    confidence, depth = np.ones_like(prediction.depth), prediction.depth.copy()
    confidence[0, 0, 0], depth[1, :2], depth[2, 5, 5] = np.nan, [[np.nan], [-1]], np.inf
    bad = replace(prediction, depth=depth, depth_confidence=confidence)
    scene = fuse(bad, percentile=50, mask_edges=False)
    assert len(scene.points) == depth.size - 1 - 2 * 40 - 1
    assert np.isfinite(scene.points).all()


def test_padding_and_edges_and_sky_are_left_out():
    prediction = wall(1)
    depth = prediction.depth.copy()
    depth[0, :, 20:] = 9
    depth[0, :10] = 100
    images = prediction.views.images.copy()
    images[0, :10] = (110, 160, 230)
    images[0, 10:] //= 3
    views = replace(prediction.views, images=images, valid=np.array([[2, 0, 30, 40]]))
    prediction = replace(prediction, depth=depth, views=views)
    scene = fuse(prediction, percentile=0, mask_edges=True)
    assert scene.pixel[:, 1].min() == 2
    lower = scene.pixel[scene.pixel[:, 1] > 12]
    assert set(range(40)) - set(lower[:, 0].tolist()) == {19, 20}
    everything = fuse(prediction, percentile=0, mask_edges=False)
    assert len(everything.points) == 28 * 40
    no_sky = fuse(prediction, percentile=0, mask_edges=False, mask_sky=True)
    assert no_sky.pixel[:, 1].min() in (9, 10) and len(no_sky.points) >= 20 * 40


def test_a_wall_is_kept_up_to_the_padding_whatever_is_predicted_there():
    prediction = wall(2)
    depth = prediction.depth.copy()
    depth[:, :6], depth[:, 25:] = 9, 0.3
    views = replace(prediction.views, valid=np.array([[6, 0, 25, 40]] * 2))
    scene = fuse(replace(prediction, depth=depth, views=views), percentile=0, max_points=None)
    assert set(scene.pixel[:, 1].tolist()) == set(range(6, 25))
    assert len(scene.points) == 2 * 19 * 40
    consistent = fuse(
        replace(prediction, depth=depth, views=views), percentile=0, min_consistent_views=1
    )
    rows = consistent.pixel[:, 1]
    assert rows.min() == 6 and rows.max() == 24 and len(rows) > 0.7 * len(scene.points)


def test_drawing_few_points_of_many_takes_no_index_of_all():
    count, size = 40, (100, 100)
    pose = np.tile(np.eye(4)[:3], (count, 1, 1))
    cameras = Cameras(np.tile(np.diag([80.0, 80, 1]), (count, 1, 1)), pose, np.tile(size, (40, 1)))
    views = Views.from_images(np.zeros((count, *size, 3), np.uint8))
    ones = np.ones((count, *size), np.float32)
    prediction = Prediction(views, cameras, ones, ones)
    tracemalloc.start()
    try:
        scene = fuse(prediction, percentile=0, mask_edges=False, max_points=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(scene.points) == 1000
    assert peak < 6 * ones.size


def test_max_points_draws_evenly_and_repeatably():
    prediction = wall()
    scene = fuse(prediction, percentile=0, max_points=600)
    again = fuse(prediction, percentile=0, max_points=600)
    other = fuse(prediction, percentile=0, max_points=600, seed=1)
    assert len(scene.points) == 600
    np.testing.assert_array_equal(scene.pixel, again.pixel)
    assert (scene.pixel != other.pixel).any()
    assert np.bincount(scene.view_index, minlength=3).min() > 150
    keys = {(v, *p) for v, p in zip(scene.view_index.tolist(), scene.pixel.tolist(), strict=True)}
    assert len(keys) == 600
    for n in (0, 300, 599):
        i, (column, row) = scene.view_index[n], scene.pixel[n]
        np.testing.assert_array_equal(scene.colors[n], prediction.views.images[i, row, column])


def test_consistency_wants_other_views_to_see_the_same_surface():
    prediction = wall()
    depth = prediction.depth.copy()
    depth[1, 10:20, 15:25] *= 0.6
    prediction = replace(prediction, depth=depth)
    scene = fuse(prediction, percentile=0, mask_edges=False, min_consistent_views=1)
    bad = scene.pixel[scene.view_index == 1]
    assert not ((bad[:, 0] >= 15) & (bad[:, 0] < 25) & (bad[:, 1] >= 10) & (bad[:, 1] < 20)).any()
    assert len(scene.points) > 0.8 * depth.size
    two = fuse(prediction, percentile=0, mask_edges=False, min_consistent_views=2)
    assert 0 < len(two.points) < len(scene.points)
    np.testing.assert_allclose(two.points[:, 2], 4.0, rtol=1e-4)


def test_the_point_head_is_taken_as_it_is():
    prediction = wall()
    points = prediction.world_points() + np.float32([0, 0, 0.5])
    both = replace(prediction, points=points, points_confidence=prediction.depth_confidence)
    points[0, 3, 4] = np.inf
    scene = fuse(both, percentile=0, mask_edges=False, source="points", units="metres")
    np.testing.assert_array_equal(scene.points, np.delete(points.reshape(-1, 3), 3 * 40 + 4, 0))
    assert scene.units == "metres"


def test_nothing_left_is_an_empty_scene():
    prediction = wall()
    scene = fuse(replace(prediction, depth=np.full_like(prediction.depth, np.nan)))
    assert scene.points.shape == (0, 3) and scene.pixel.shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentile": 100}, "percentile"),
        ({"percentile": float("nan")}, "percentile"),
        ({"max_points": 0}, "max_points"),
        ({"source": "points"}, r"heads=\('camera', 'point'\)"),
        ({"source": "x"}, "source"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        fuse(wall(), **arguments)
    with pytest.raises(InputError, match="heads="):
        fuse(replace(wall(), cameras=None))
