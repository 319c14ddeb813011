from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_scene, trace

from vggt_edge import geometry
from vggt_edge.scene import tracks
from vggt_edge.scene.reproject import sample_depth
from vggt_edge.scene.tracks import build_sparse_model, find_observations, thin, voxel_for
from vggt_edge.sparse_model import SparseModel
from vggt_edge.types import Scene


def with_prediction(scene: Scene, **changes) -> Scene:
    return replace(scene, prediction=replace(scene.prediction, **changes))


def visible(scene: Scene, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(S, N) bool by ray tracing: the point is in view and nothing lies before it."""
    seen = []
    height, width = scene.views.size
    for i, center in enumerate(scene.cameras.centers):
        distance, _ = trace(center, points - center)
        pixel = geometry.project(
            points, scene.cameras.intrinsics[i], scene.cameras.camera_from_world[i]
        )
        inside = (pixel[:, :2] >= margin - 0.5).all(-1) & (pixel[:, 2] > 0)
        inside &= (pixel[:, :2] < np.array([width, height]) - 0.5 - margin).all(-1)
        seen.append(inside & (np.abs(distance - 1) < 0.01))
    return np.stack(seen)


def observed(model: SparseModel) -> np.ndarray:
    """(S, N) bool: which image observes which point."""
    table = np.zeros((len(model), len(model.points)), dtype=bool)
    table[model.observation_image, model.observation_point] = True
    return table


def test_tracks_are_what_ray_tracing_sees():
    scene = make_scene(views=6)
    model = build_sparse_model(scene, confidence_percentile=0, depth_tolerance=0.02)
    assert len(model.points) > 4000 and model.track_lengths.mean() > 3
    truth, found = visible(scene, model.points), observed(model)
    assert (found & ~truth).sum() < 0.01 * found.sum()
    sure = visible(scene, model.points, margin=1.0)
    # At 70 x 56 one pixel in twenty lies at an edge of depth, where interpolation confirms nothing.
    assert (found & sure).sum() > 0.93 * sure.sum()
    errors = model.reprojection_errors()
    assert np.median(errors) < 0.01 and errors.max() < 2 * 2.0
    mean = np.bincount(model.observation_point, errors) / model.track_lengths
    np.testing.assert_allclose(model.errors, mean)


def test_the_table_is_in_order_and_colours_are_of_the_picture():
    scene = make_scene()
    model = build_sparse_model(scene, min_track=3)
    assert (np.diff(model.observation_image) >= 0).all()
    assert model.observation_counts.sum() == len(model.observations)
    pairs = np.stack([model.observation_image, model.observation_point])
    assert len(np.unique(pairs, axis=1).T) == len(model.observations)
    assert model.track_lengths.min() >= 3 and model.track_lengths.max() <= len(model)
    view = np.clip(np.rint((model.observations - 0.5) / 2), 0, [69, 55]).astype(int)
    pixel = scene.views.images[model.observation_image, view[:, 1], view[:, 0]].astype(int)
    difference = np.abs(pixel - model.colors[model.observation_point]).max(axis=-1)
    assert np.median(difference) < 12


def test_padding_confirms_nothing():
    scene = make_scene(views=3)
    valid = np.tile(np.array([8, 10, 48, 60]), (3, 1))
    views = replace(scene.views, valid=valid)
    keep = views.valid_mask().ravel()
    scene = with_prediction(scene, views=views)
    scene = replace(
        scene,
        **{
            name: getattr(scene, name)[keep]
            for name in ("points", "colors", "confidence", "view_index", "pixel")
        },
    )
    model = build_sparse_model(scene)
    in_view = (model.observations - 0.5) / 2
    assert (in_view >= np.array([9.5, 7.5]) - 1e-6).all()
    assert (in_view <= np.array([59.5, 47.5]) + 1e-6).all()


def test_unsure_depth_confirms_nothing():
    scene = make_scene(views=3)
    confidence = scene.prediction.depth_confidence.copy()
    confidence[1] *= 0.01
    scene = with_prediction(scene, depth_confidence=confidence)
    model = build_sparse_model(scene, confidence_percentile=34)
    theirs = scene.view_index == 1
    assert (model.observation_image == 1).sum() < theirs.sum()
    own = np.isin(np.rint(model.observations - 0.5) / 2, np.arange(70)).all(axis=-1)
    assert own[model.observation_image == 1].mean() > 0.95


def test_wrong_depth_confirms_nothing():
    scene = make_scene(views=3)
    depth = scene.prediction.depth.copy()
    depth[2] *= 1.1
    own = scene.view_index != 2
    columns = ("points", "colors", "confidence", "view_index", "pixel")
    scene = replace(scene, **{name: getattr(scene, name)[own] for name in columns})
    model = build_sparse_model(with_prediction(scene, depth=depth), depth_tolerance=0.02)
    assert (model.observation_image == 2).sum() < 0.005 * len(model.observations)


def test_agreeing_views_average_their_noise():
    clean = make_scene(views=6)
    rng = np.random.default_rng(0)
    depth = clean.prediction.depth * rng.normal(1, 0.005, clean.prediction.depth.shape)
    noisy = with_prediction(clean, depth=depth.astype(np.float32))
    noisy = replace(noisy, points=noisy.prediction.world_points().reshape(-1, 3))
    model = build_sparse_model(noisy, min_track=4)
    center = noisy.cameras.centers[0]

    def off(points):
        return np.median(np.abs(trace(center, points - center)[0] - 1))

    assert off(model.points) < 0.7 * off(noisy.points[noisy.view_index == 0])
    assert 0.05 < model.errors.mean() < 2


def test_one_view_keeps_its_points_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        model = build_sparse_model(make_scene(views=1))
    assert (model.track_lengths == 1).all() and len(model.points) > 1000
    assert f"{len(model.points)} points of one view" in caplog.text


def test_limits_of_tracks():
    scene = make_scene()
    assert build_sparse_model(scene, max_track=3).track_lengths.max() == 3
    assert build_sparse_model(scene, min_track=5).track_lengths.min() == 5


def test_sightings_are_capped_while_they_are_gathered(monkeypatch):
    scene = make_scene(views=12, height=28, width=35)
    kept = np.arange(0, len(scene.points), 5)
    held = []

    def joined(parts):
        held.append(sum(len(part.point) for part in parts))
        return all_of(parts)

    all_of = tracks._joined
    monkeypatch.setattr(tracks, "_joined", joined)
    depth = scene.prediction.depth
    everything = find_observations(scene, depth, kept, 0.03, 5, 12)
    found = find_observations(scene, depth, kept, 0.03, 5, 3)
    assert np.bincount(everything.point).mean() > 5
    assert max(held[1:]) <= 3 * 1.5 * len(kept) + len(kept)
    for mine, theirs in zip(found, tracks._most_confident(everything, 3), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("target", [300, 1000])
def test_target_of_points(target):
    scene = make_scene()
    everything = np.arange(len(scene.points))
    voxel = voxel_for(scene, everything, target)
    assert 0.85 * target < len(thin(scene.points, scene.confidence, voxel)) < 1.15 * target
    assert (
        0.4 * target < len(build_sparse_model(scene, target_points=target).points) < 1.15 * target
    )
    finest = voxel_for(scene, everything, 10**9)
    assert finest == pytest.approx(np.median(scene.prediction.depth) / 63, rel=0.1)


def test_thin_keeps_the_most_confident_of_each_voxel():
    points = np.array([[0, 0, 0], [0.4, 0, 0], [5, 0, 0], [0.1, 0.2, 0.3], [-3, 0, 0]], np.float32)
    kept = thin(points, np.array([1, 3, 0.1, 2, 0.2]), 1.0)
    assert kept.tolist() == [1, 2, 4]


def test_depth_between_pixels_is_exact_on_a_plane():
    rows, columns = np.mgrid[:9, :12]
    depth = 1 / (0.2 + 0.01 * columns + 0.02 * rows)
    pixels = np.random.default_rng(0).uniform([0, 0], [11, 8], (50, 2))
    expected = 1 / (0.2 + 0.01 * pixels[:, 0] + 0.02 * pixels[:, 1])
    np.testing.assert_allclose(sample_depth(depth, pixels, np.array([0, 0, 9, 12])), expected)
    depth[4, 6], depth[7:, 9:] = 0, np.inf
    hole = np.array([[5.5, 3.5], [6, 4], [1.2, 1.3], [10, 7.5]])
    there = sample_depth(depth, hole, np.array([0, 0, 9, 12]))
    assert np.isnan(there).tolist() == [True, True, False, True]


def test_shared_camera_is_the_median():
    scene = make_scene(views=3)
    intrinsics = scene.cameras.intrinsics.copy()
    intrinsics[:, 0, 0] *= [1, 1.01, 1.5]
    scene = with_prediction(scene, cameras=replace(scene.cameras, intrinsics=intrinsics))
    model = build_sparse_model(scene, shared_camera=True)
    assert model.camera_index.tolist() == [0, 0, 0]
    np.testing.assert_allclose(model.cameras.intrinsics[:, 0, 0], 2 * intrinsics[1, 0, 0])
    assert build_sparse_model(scene).camera_index.tolist() == [0, 1, 2]


def test_points_that_are_not_finite_are_left_out():
    scene = make_scene(views=2)
    scene.points[::3] = np.nan
    assert np.isfinite(build_sparse_model(scene).points).all()


def test_no_points_at_all():
    scene = make_scene(views=2)
    columns = ("points", "colors", "confidence", "view_index", "pixel")
    empty = replace(scene, **{name: getattr(scene, name)[:0] for name in columns})
    model = build_sparse_model(empty)
    assert len(model.points) == len(model.observations) == 0 and len(model) == 2


def test_depth_is_required():
    with pytest.raises(ValueError, match="depth"):
        build_sparse_model(with_prediction(make_scene(views=2), depth=None))
