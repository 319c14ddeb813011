from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vggt_edge import geometry
from vggt_edge.types import Cameras, Prediction, Scene, TokenLayout, Views

COUNT, HEIGHT, WIDTH = 4, 6, 8


@pytest.fixture
def views() -> Views:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8)
    maps = np.tile(np.eye(3), (COUNT, 1, 1))
    # Each view is a crop of a larger picture: u_source = scale u + shift, unlike in both axes.
    maps[:, 0, 0], maps[:, 1, 1] = np.arange(2, 2 + COUNT), np.arange(3, 3 + COUNT)
    maps[:, 0, 2], maps[:, 1, 2] = 10 * np.arange(COUNT) + 0.5, -3.25
    return Views(
        images=images,
        names=tuple("abcd"),
        sources=tuple(f"{name}.jpg" for name in "abcd"),
        source_sizes=np.array([[60, 80], [61, 81], [62, 82], [63, 83]]),
        source_from_view=maps,
        valid=np.array([[0, 0, 6, 8], [1, 2, 5, 7], [0, 0, 6, 1], [5, 7, 6, 8]]),
    )


@pytest.fixture
def cameras() -> Cameras:
    turn = geometry.quaternion_to_matrix(np.array([[0.1, 0.2 * i, 0.3, 1] for i in range(COUNT)]))
    move = np.arange(3.0 * COUNT).reshape(COUNT, 3, 1)
    intrinsics = np.tile([[7.0, 0, 4], [0, 9, 3], [0, 0, 1]], (COUNT, 1, 1))
    sizes = np.tile([HEIGHT, WIDTH], (COUNT, 1))
    return Cameras(intrinsics, np.concatenate([turn, move], axis=-1), sizes)


@pytest.mark.parametrize(
    ("index", "order"),
    [
        (slice(None), [0, 1, 2, 3]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [3, 1]),
        ([2, 0, 2], [2, 0, 2]),
        ([-1], [3]),
        ([], []),
        (np.array([3, 1]), [3, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, False, False], [1]),
    ],
)
def test_a_subset_keeps_every_field_together(views, index, order):
    part = views[index]
    assert len(part) == len(order)
    assert part.size == (HEIGHT, WIDTH)
    for new, old in enumerate(order):
        assert part.names[new] == views.names[old]
        assert part.sources[new] == views.sources[old]
        for field in ("images", "source_sizes", "source_from_view", "valid"):
            assert np.array_equal(getattr(part, field)[new], getattr(views, field)[old]), field


@pytest.mark.parametrize("index", [[4], np.array([True, False])])
def test_a_subset_of_what_is_not_there(views, index):
    with pytest.raises(IndexError):
        views[index]


def test_valid_mask_is_the_box(views):
    mask = views.valid_mask()
    assert mask.shape == (COUNT, HEIGHT, WIDTH)
    assert mask.dtype == bool
    expected = np.zeros_like(mask)
    for i, (top, left, bottom, right) in enumerate(views.valid):
        expected[i, top:bottom, left:right] = True
    assert np.array_equal(mask, expected)


def test_views_of_plain_images():
    images = np.zeros((2, 4, 5, 3), dtype=np.uint8)
    views = Views.from_images(images)
    assert views.names == ("view_0000", "view_0001")
    assert views.size == (4, 5)
    assert views.valid_mask().all()
    assert np.array_equal(views.source_sizes, [[4, 5], [4, 5]])
    assert np.array_equal(views.source_from_view, np.tile(np.eye(3), (2, 1, 1)))
    assert Views.from_images(images, names=("x", "y")).sources == ("x", "y")


def test_camera_centres(cameras):
    origin = geometry.transform(cameras.camera_from_world, cameras.centers[:, None])
    assert np.allclose(origin, 0, atol=1e-9)
    assert np.array_equal(cameras.centers, cameras.world_from_camera[:, :, 3])
    assert len(cameras) == COUNT


def test_source_cameras_see_what_the_view_cameras_see(views, cameras):
    """Projected into the view and mapped to the source, or projected into the source at once."""
    prediction = Prediction(views, cameras)
    sources = prediction.source_cameras
    local = np.random.default_rng(1).uniform([-2, -2, 1], [2, 2, 5], (COUNT, 9, 3))
    points = geometry.transform(cameras.world_from_camera, local)
    in_view = geometry.project(points, cameras.intrinsics, cameras.camera_from_world)
    in_source = geometry.project(points, sources.intrinsics, sources.camera_from_world)
    pixels = np.concatenate([in_view[..., :2], np.ones((COUNT, 9, 1))], axis=-1)
    mapped = pixels @ np.swapaxes(views.source_from_view, 1, 2)
    assert np.allclose(mapped[..., :2], in_source[..., :2])
    assert np.allclose(in_view[..., 2], in_source[..., 2])
    assert np.array_equal(sources.sizes, views.source_sizes)
    assert np.array_equal(prediction.cameras.sizes, cameras.sizes)


def test_world_points_are_at_their_depth(views, cameras):
    depth = np.random.default_rng(2).uniform(1, 3, (COUNT, HEIGHT, WIDTH)).astype(np.float32)
    points = Prediction(views, cameras, depth=depth).world_points()
    assert points.dtype == np.float32
    assert points.shape == (COUNT, HEIGHT, WIDTH, 3)
    back = geometry.project(
        points.reshape(COUNT, -1, 3), cameras.intrinsics, cameras.camera_from_world
    )
    assert np.allclose(back[..., 2].reshape(depth.shape), depth, rtol=1e-5)


def test_what_needs_a_head_that_did_not_run_says_so(views, cameras):
    nothing = np.zeros((0, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="camera head"):
        _ = Prediction(views).source_cameras
    with pytest.raises(ValueError, match="'camera', 'depth'"):
        Prediction(views, cameras).world_points()
    scene = Scene(Prediction(views), nothing, nothing, nothing[:, 0], nothing[:, 0], nothing[:, :2])
    with pytest.raises(ValueError, match="camera head"):
        _ = scene.cameras
    assert scene.views is views


def test_nouns_are_frozen(views, cameras):
    for noun, field in ((views, "images"), (cameras, "sizes"), (Prediction(views), "depth")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(noun, field, None)


def test_tokens_of_a_view():
    assert TokenLayout(views=3, special=5, rows=4, cols=6).per_view == 29
