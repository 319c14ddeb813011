from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge import geometry
from vggt_edge.scene import full_resolution as module
from vggt_edge.scene.full_resolution import full_resolution
from vggt_edge.types import Cameras, Prediction, Views


def view_of(source_size, view_size, scale, offset, valid=None):
    """A prediction of one view that shows ``view * scale + offset`` of its source picture."""
    height, width = view_size
    views = replace(
        Views.from_images(np.zeros((1, height, width, 3), np.uint8)),
        source_sizes=np.array([source_size]),
        source_from_view=np.array([[[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1.0]]]),
        valid=np.array([valid or (0, 0, height, width)]),
    )
    intrinsics = np.array([[[50.0, 0, (width - 1) / 2], [0, 50, (height - 1) / 2], [0, 0, 1]]])
    cameras = Cameras(intrinsics, np.eye(4)[None, :3], np.array([view_size]))
    shape = (1, height, width)
    return Prediction(views, cameras, np.ones(shape, np.float32), np.ones(shape, np.float32))


def plane_depth(intrinsics, size, normal=(0.1, 0.9, 0.2), distance=1.0):
    column, row = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    rays = np.stack([column, row, np.ones(size)], axis=-1) @ np.linalg.inv(intrinsics).T
    return distance / (rays @ np.array(normal))


@given(st.floats(1.3, 5.0), st.floats(-3, 3))
def test_a_slanted_plane_stays_that_plane(scale, shift):
    size = (int(40 * scale), int(50 * scale))
    prediction = view_of(size, (40, 50), scale, ((scale - 1) / 2 + shift, (scale - 1) / 2))
    # A floor whose depth grows by more than the threshold from row to row, but no edge.
    depth = plane_depth(prediction.cameras.intrinsics[0], (40, 50), (0.0, 0.9, 0.5))
    prediction = replace(prediction, depth=depth[None].astype(np.float32))
    full = full_resolution(prediction, 0)
    assert full.depth.shape == size and full.depth.dtype == np.float32
    truth = plane_depth(full.intrinsics, size, (0.0, 0.9, 0.5))
    margin = int(scale + abs(shift)) + 1
    inner = np.s_[margin:-margin, margin:-margin]
    np.testing.assert_allclose(full.depth[inner], truth[inner], rtol=1e-4)


def test_an_edge_stays_sharp_and_no_depth_lies_between():
    prediction = view_of((120, 160), (30, 40), 4, (1.5, 1.5))
    prediction.depth[0, 5:20, 10:30] = 0.5
    full = full_resolution(prediction, 0)
    assert set(np.unique(full.depth)) == {np.float32(0.5), np.float32(1)}
    truth = np.ones((120, 160))
    truth[20:80, 40:120] = 0.5
    np.testing.assert_array_equal(full.depth, truth)


def test_identity_returns_the_input(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)
    rng = np.random.default_rng(0)
    prediction = view_of((30, 40), (30, 40), 1, (0, 0))
    prediction = replace(
        prediction,
        depth=rng.uniform(1, 5, (1, 30, 40)).astype(np.float32),
        depth_confidence=rng.uniform(1, 5, (1, 30, 40)).astype(np.float32),
    )
    full = full_resolution(prediction, 0)
    np.testing.assert_allclose(full.depth, prediction.depth[0], rtol=1e-6)
    np.testing.assert_allclose(full.confidence, prediction.depth_confidence[0], rtol=1e-6)
    np.testing.assert_array_equal(full.intrinsics, prediction.cameras.intrinsics[0])


def test_padding_is_never_taken_and_the_picture_is_covered():
    prediction = view_of((60, 80), (40, 40), 2, (0.5, -9.5), valid=(5, 0, 35, 40))
    prediction.depth[:, :5] = prediction.depth[:, 35:] = 77
    full = full_resolution(prediction, 0)
    np.testing.assert_array_equal(full.depth, 1)
    np.testing.assert_array_equal(full.confidence, 1)


def test_what_was_cropped_away_has_no_depth():
    prediction = view_of((100, 80), (30, 40), 2, (0.5, 20.5))
    full = full_resolution(prediction, 0)
    known = np.isfinite(full.depth)
    assert known[20:80].all() and not known[:20].any() and not known[80:].any()
    assert (full.confidence[~known] == 0).all()


def test_invalid_pixels_stay_invalid_and_do_not_spread():
    prediction = view_of((120, 160), (30, 40), 4, (1.5, 1.5))
    prediction.depth[0, 10, 10] = np.nan
    full = full_resolution(prediction, 0)
    assert np.isnan(full.depth[40:44, 40:44]).all()
    assert np.isnan(full.depth).sum() == 16
    np.testing.assert_array_equal(full.depth[np.isfinite(full.depth)], 1)


def test_full_points_lie_on_the_view_s_points():
    """Unprojecting with the returned intrinsics agrees with unprojecting the view."""
    prediction = view_of((120, 160), (30, 40), 4, (1.5, 1.5))
    normal = (0.05, 0.1, 1.0)
    prediction.depth[0] = plane_depth(prediction.cameras.intrinsics[0], (30, 40), normal)
    full = full_resolution(prediction, 0)
    pose = prediction.cameras.camera_from_world[0]
    dense = geometry.unproject(full.depth, full.intrinsics, pose)
    view = geometry.unproject(prediction.depth[0], prediction.cameras.intrinsics[0], pose)
    # View pixel (12, 10) is the source position (49.5, 41.5), in the middle of four pixels.
    around = dense[41:43, 49:51].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(around, view[10, 12], rtol=1e-4)


def test_heads_that_were_not_run():
    prediction = view_of((60, 80), (30, 40), 2, (0.5, 0.5))
    alone = full_resolution(replace(prediction, cameras=None, depth_confidence=None), 0)
    assert alone.confidence is None and alone.intrinsics is None
    with pytest.raises(ValueError, match="heads="):
        full_resolution(replace(prediction, depth=None), 0)
