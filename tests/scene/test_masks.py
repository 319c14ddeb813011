from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from vggt_edge.scene.masks import _connected_to_top, edge_mask, sky_mask

ROWS, COLUMNS = np.mgrid[:60, :80].astype(np.float32)


def box_before_wall(smear=0):
    """A box at 1 before a wall at 4, with ``smear`` columns of flying pixels between."""
    ramp = np.clip((COLUMNS - 40 + smear) / (smear + 1), 0, 1) if smear else COLUMNS >= 40
    return (1 + 3 * ramp).astype(np.float32)


def test_a_step_is_marked_and_flat_surfaces_are_not():
    mask = edge_mask(box_before_wall())
    assert mask[:, 39:41].all()
    assert not mask[:, :39].any() and not mask[:, 41:].any()


def test_flying_pixels_between_two_surfaces_are_all_marked():
    depth = box_before_wall(smear=3)
    flying = (depth > 1.001) & (depth < 3.999)
    assert flying.any() and edge_mask(depth)[flying].all()


def test_a_floor_at_a_grazing_angle_is_kept_though_its_depth_changes_as_fast():
    floor = (40 / (ROWS + 3)).astype(np.float32)
    assert (np.abs(np.diff(floor, axis=0)) / floor[1:] > 0.05).sum() > 1000
    assert not edge_mask(floor).any()


def test_invalid_pixels_are_no_edges_and_hide_none():
    depth = box_before_wall()
    depth[:, 10:15] = np.nan
    depth[0] = 0
    mask = edge_mask(depth)
    assert not mask[:, :39].any() and mask[1:, 39:41].all()
    assert not mask[0].any()


@given(st.floats(1e-3, 1e3), st.booleans())
def test_edges_depend_on_neither_scale_nor_batching_nor_mirroring(scale, mirror):
    rng = np.random.default_rng(0)
    depth = ndimage.gaussian_filter(rng.uniform(1, 6, (2, 20, 30)), (0, 2, 2)) ** 2
    other = depth[..., ::-1] if mirror else depth
    mask = edge_mask(other * scale)
    np.testing.assert_array_equal(mask[..., ::-1] if mirror else mask, edge_mask(depth))
    np.testing.assert_array_equal(edge_mask(depth[0]), edge_mask(depth)[0])
    assert 0.02 < edge_mask(depth).mean() < 0.98


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_connection_to_the_top_is_what_scipy_says(candidates):
    labels, _ = ndimage.label(candidates)
    wanted = np.isin(labels, labels[0][candidates[0]]) & candidates
    np.testing.assert_array_equal(_connected_to_top(candidates), wanted)


def landscape(sky_color, sky_depth=40.0, sky_confidence=1.0):
    """Sky above a textured slope, with a building in the sky's colour that does not reach up."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 140, (60, 80, 3)).astype(np.float32)
    sky = 25 + 5 * np.sin(COLUMNS / 9) > ROWS
    fade = 1 - 0.15 * ROWS[..., None] / 60
    image = np.where(
        sky[..., None], np.array(sky_color) * fade + rng.normal(0, 2, image.shape), image
    )
    depth = np.where(sky, sky_depth, 2 + 200 / (ROWS + 5))
    image[40:50, 20:40], depth[40:50, 20:40] = sky_color, 100
    confidence = np.where(sky, sky_confidence, rng.uniform(2, 9, sky.shape))
    return np.clip(image, 0, 255).astype(np.uint8), depth, confidence, sky


@pytest.mark.parametrize("color", [(110, 160, 230), (235, 238, 243), (70, 110, 190)])
def test_sky_goes_and_the_ground_stays(color):
    image, depth, confidence, sky = landscape(color)
    mask = sky_mask(image[None], depth[None], confidence[None])[0]
    assert mask[sky].mean() > 0.85
    assert not mask[~sky].any()


def test_sky_in_the_middle_distance_goes_where_the_network_doubts_it():
    image, depth, confidence, sky = landscape((110, 160, 230), sky_depth=1.7 * 6)
    doubtful = sky_mask(image[None], depth[None], np.where(sky, 1, confidence)[None])[0]
    certain = sky_mask(image[None], depth[None], np.where(sky, 9.5, confidence)[None])[0]
    assert doubtful[sky].mean() > 0.85 and not certain.any()


@pytest.mark.parametrize("confidence_of_ceiling", [1.0, 20.0])
def test_a_white_ceiling_stays(confidence_of_ceiling):
    image, depth, confidence, ceiling = landscape((235, 238, 243), 5.0, confidence_of_ceiling)
    assert not sky_mask(image[None], depth[None], confidence[None]).any()


def test_the_top_is_that_of_the_picture_not_of_the_padding():
    image, depth, confidence, sky = landscape((110, 160, 230))
    pad = ((8, 8), (5, 5))
    image = np.pad(image, (*pad, (0, 0)), constant_values=255)
    valid = np.pad(np.ones_like(sky), pad)
    depth, confidence = (np.pad(a, pad, constant_values=1) for a in (depth, confidence))
    mask = sky_mask(image[None], depth[None], confidence[None], valid[None])[0]
    assert mask[8:-8, 5:-5][sky].mean() > 0.85 and not mask[~valid].any()


def test_outlines_of_clouds_leave_no_cracks():
    image, depth, confidence, sky = landscape((70, 110, 190))
    image[8:14, 20:50] = (250, 250, 252)
    mask = sky_mask(image[None], depth[None], confidence[None])[0]
    assert mask[5:17, 10:60].all() and not mask[~sky].any()
