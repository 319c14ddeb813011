from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch

from vggt_edge import geometry, memory
from vggt_edge.errors import InputError, TooLargeError
from vggt_edge.predict import cameras_from_encoding, predict, to_tensor
from vggt_edge.types import Views

HEIGHT, WIDTH = 28, 42


def some_views(count: int, height: int = HEIGHT, width: int = WIDTH) -> Views:
    random = np.random.default_rng(3)
    return Views.from_images(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def hooks(model) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def arrays(prediction) -> dict[str, np.ndarray]:
    found = {
        "intrinsics": prediction.cameras.intrinsics,
        "camera_from_world": prediction.cameras.camera_from_world,
    }
    names = ("depth", "depth_confidence", "points", "points_confidence")
    return found | {name: getattr(prediction, name) for name in names}


@pytest.mark.parametrize("count", [1, 3])
def test_shapes_and_types(tiny_model, count):
    views = some_views(count)
    prediction = predict(tiny_model, views)
    shapes = {
        "intrinsics": (count, 3, 3),
        "camera_from_world": (count, 3, 4),
        "depth": (count, HEIGHT, WIDTH),
        "depth_confidence": (count, HEIGHT, WIDTH),
        "points": (count, HEIGHT, WIDTH, 3),
        "points_confidence": (count, HEIGHT, WIDTH),
    }
    found = arrays(prediction)
    assert {name: array.shape for name, array in found.items()} == shapes
    assert all(np.isfinite(array).all() for array in found.values())
    assert {array.dtype for array in list(found.values())[:2]} == {np.dtype(np.float64)}
    assert {array.dtype for array in list(found.values())[2:]} == {np.dtype(np.float32)}
    assert np.array_equal(prediction.cameras.sizes, [[HEIGHT, WIDTH]] * count)
    assert prediction.views is views
    assert prediction.world_points().shape == (count, HEIGHT, WIDTH, 3)


def test_prediction_is_what_forward_says(tiny_model):
    views = some_views(3)
    images = torch.from_numpy(views.images).permute(0, 3, 1, 2)[None] / 255
    with torch.inference_mode():
        output = tiny_model(images)
    prediction = predict(tiny_model, views)
    pose = output.pose_enc[0].double().numpy()
    cameras = prediction.cameras
    assert np.allclose(cameras.camera_from_world[:, :, 3], pose[:, :3], atol=1e-5)
    rotation = geometry.quaternion_to_matrix(pose[:, 3:7])
    assert np.allclose(cameras.camera_from_world[:, :, :3], rotation, atol=1e-4)
    assert np.allclose(prediction.depth, output.depth[0, ..., 0], rtol=1e-4)
    assert np.allclose(prediction.depth_confidence, output.depth_conf[0], rtol=1e-4)
    assert np.allclose(prediction.points, output.world_points[0], rtol=1e-3, atol=1e-4)
    assert np.allclose(prediction.points_confidence, output.world_points_conf[0], rtol=1e-4)


def test_cameras_from_a_known_encoding():
    half = np.sqrt(0.5)
    # A quarter turn about y, a field of view of 90 degrees vertically and 60 horizontally.
    pose = np.array([[1, 2, 3, 0, 2 * half, 0, 2 * half, np.pi / 2, np.pi / 3]], dtype=np.float32)
    cameras = cameras_from_encoding(pose, (HEIGHT, WIDTH))
    fx, fy = WIDTH / 2 * np.sqrt(3), HEIGHT / 2
    expected = [[fx, 0, WIDTH / 2], [0, fy, HEIGHT / 2], [0, 0, 1]]
    assert np.allclose(cameras.intrinsics[0], expected, rtol=1e-6)
    extrinsics = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3]]
    assert np.allclose(cameras.camera_from_world[0], extrinsics, atol=1e-6)


def test_a_field_of_view_of_zero_stays_finite():
    pose = np.array([[0, 0, 0, 0, 0, 0, 1, 0, 0]], dtype=np.float32)
    assert np.isfinite(cameras_from_encoding(pose, (HEIGHT, WIDTH)).intrinsics).all()


@pytest.mark.parametrize("heads", [("camera",), ("depth",), ("point", "camera"), ()])
def test_only_the_heads_asked_for_run(tiny_model, heads):
    prediction = predict(tiny_model, some_views(2), heads=heads)
    assert (prediction.cameras is not None) == ("camera" in heads)
    assert (prediction.depth is not None) == ("depth" in heads)
    assert (prediction.depth_confidence is not None) == ("depth" in heads)
    assert (prediction.points is not None) == ("point" in heads)
    assert (prediction.points_confidence is not None) == ("point" in heads)


def test_chunks_change_nothing(tiny_model, monkeypatch):
    views = some_views(5)
    whole = arrays(predict(tiny_model, views))
    tokens = memory.tokens_per_view(tiny_model.config, HEIGHT, WIDTH)
    for count in (1, 2, 3):
        monkeypatch.setattr(memory, "CHUNK_TOKENS", count * tokens)
        monkeypatch.setattr(memory, "DENSE_CHUNK_PIXELS", count * HEIGHT * WIDTH)
        assert memory.aggregator_chunk(tiny_model.config, HEIGHT, WIDTH) == count
        parts = arrays(predict(tiny_model, views))
        for name, array in whole.items():
            assert np.allclose(parts[name], array, rtol=1e-3, atol=1e-4), name


def test_padded_views(tiny_model):
    images = some_views(2).images.copy()
    images[1, :, 30:] = 255
    valid = np.array([[0, 0, HEIGHT, WIDTH], [0, 0, HEIGHT, 30]])
    views = dataclasses.replace(Views.from_images(images), valid=valid)
    prediction = predict(tiny_model, views)
    assert prediction.depth.shape == (2, HEIGHT, WIDTH)
    assert np.array_equal(prediction.views.valid, valid)
    # The network sees pixels, not boxes: what is padding is for later stages to know.
    again = predict(tiny_model, Views.from_images(images))
    assert np.array_equal(prediction.depth, again.depth)


def test_read_only_and_strided_images(tiny_model):
    images = some_views(2).images
    flipped = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    flipped.flags.writeable = False
    views = Views.from_images(flipped)
    cpu = torch.device("cpu")
    assert np.array_equal(to_tensor(views, cpu), to_tensor(some_views(2), cpu))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_arrays(tiny_model, dtype):
    exact = predict(tiny_model, some_views(2))
    half = predict(tiny_model.to(dtype), some_views(2))
    assert half.depth.dtype == half.points.dtype == np.float32
    assert np.allclose(half.depth, exact.depth, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("size", [(27, 42), (28, 43), (1, 1)])
def test_sizes_that_are_no_multiple_of_the_patch(tiny_model, size):
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]}.*patch size 14") as caught:
        predict(tiny_model, some_views(2, *size))
    assert str(caught.value).isprintable()


def test_no_views(tiny_model):
    with pytest.raises(InputError, match="no views"):
        predict(tiny_model, some_views(3)[[]])


@pytest.mark.parametrize("heads", [("wings",), ("camera", "track")])
def test_heads_that_cannot_be_predicted(tiny_model, heads):
    with pytest.raises(InputError, match=f"{heads[-1]}; it has camera, depth, point"):
        predict(tiny_model, some_views(1), heads=heads)


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tiny_model, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1 << 20)
    monkeypatch.setattr(type(tiny_model), "forward", None)
    with pytest.raises(TooLargeError, match="2 views"):
        predict(tiny_model, some_views(2))


def test_heads_that_do_not_run_are_not_in_the_estimate(tiny_model, monkeypatch):
    seen = []
    monkeypatch.setattr(memory, "require", lambda config, *rest, **more: seen.append(config.heads))
    predict(tiny_model, some_views(1), heads=("camera",))
    assert seen == [("camera",)]


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("interrupt", [False, True])
def test_the_model_is_left_as_it_was(tiny_model, monkeypatch, progress, interrupt):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    assert hooks(tiny_model) == 0
    seen = []

    def watched(tokens, *rest):
        seen.append(hooks(tiny_model))
        if interrupt:
            raise KeyboardInterrupt
        return head(tokens, *rest)

    head = tiny_model.camera_head.forward
    monkeypatch.setattr(tiny_model.camera_head, "forward", watched)
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            predict(tiny_model, some_views(2), progress=progress)
    else:
        predict(tiny_model, some_views(2), progress=progress)
    assert seen[0] > 0
    assert hooks(tiny_model) == 0
    assert all(torch.equal(tensor, before[k]) for k, tensor in tiny_model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in tiny_model.parameters())


def test_the_bar_counts_every_block_once_for_every_chunk(tiny_model, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **options):
            self.total, self.count, self.open = total, 0, True
            bars.append(self)

        def update(self):
            self.count += 1

        def close(self):
            self.open = False

    monkeypatch.setattr(sys.modules["vggt_edge.predict"], "tqdm", Bar)
    tokens = memory.tokens_per_view(tiny_model.config, HEIGHT, WIDTH)
    for chunk in (1, 2, 8):
        monkeypatch.setattr(memory, "CHUNK_TOKENS", chunk * tokens)
        predict(tiny_model, some_views(3))
        assert bars[-1].count == bars[-1].total
        assert not bars[-1].open
