from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import seeded
from PIL import Image

from vggt_edge.errors import ExportError
from vggt_edge.export.module import (
    DepthCameras,
    DepthConfidence,
    DepthOnly,
    compare,
    example_images,
    validate,
)
from vggt_edge.export.shape import Shape

SHAPE = Shape(2, 42, 56)


@pytest.fixture(scope="module")
def tiny():
    return seeded()


def test_the_wrappers_give_what_the_network_gives(tiny):
    images = example_images(SHAPE)
    output = tiny(images[None], heads=("camera", "depth"))
    depth = DepthOnly(tiny)(images)
    assert isinstance(depth, torch.Tensor) and depth.shape == (2, 42, 56, 1)
    torch.testing.assert_close(depth, output.depth[0])
    pair = DepthConfidence(tiny)(images)
    torch.testing.assert_close(pair, (output.depth[0], output.depth_conf[0, ..., None]))
    torch.testing.assert_close(DepthCameras(tiny)(images), (*pair, output.pose_enc[0]))


def test_validation_says_what_it_saw(tiny, tmp_path):
    same = DepthConfidence(tiny)
    report = validate(same, same, SHAPE, folder=tmp_path)
    assert [entry.relative_error for entry in report] == [0, 0]
    assert report[0].shape == report[0].reference_shape == (2, 42, 56, 1)
    assert report[0].minimum == report[0].reference_minimum < report[0].mean < report[0].maximum
    picture = np.asarray(Image.open(tmp_path / "validation.png"))
    assert picture.shape == (3 * 42, 2 * 56)
    assert np.array_equal(picture[:42], picture[42:84]) and np.ptp(picture[:42]) == 255
    assert not picture[84:].any()


def test_a_module_that_differs_stops_everything(tiny, tmp_path):
    class Off(torch.nn.Module):
        def forward(self, images):
            depth = DepthOnly(tiny)(images).clone()
            depth[1, 5, 7] *= 1.2
            return depth

    with pytest.raises(ExportError, match=r"differs.*nothing was converted: depth.*\(1, 5, 7, 0\)"):
        validate(Off(), DepthOnly(tiny), SHAPE, folder=tmp_path)
    # The picture that shows where is there nevertheless.
    difference = np.asarray(Image.open(tmp_path / "validation.png"))[84:]
    assert np.argwhere(difference).tolist() == [[5, 56 + 7]]


def test_a_missing_output_or_another_shape_stops_everything(tiny):
    with pytest.raises(ExportError, match="has 1 outputs, the network 2"):
        validate(DepthOnly(tiny), DepthConfidence(tiny), SHAPE)

    class Cut(torch.nn.Module):
        def forward(self, images):
            return DepthOnly(tiny)(images)[:, :-1]

    with pytest.raises(ExportError, match="differs"):
        validate(Cut(), DepthOnly(tiny), SHAPE)


def test_what_is_not_finite_never_agrees():
    wanted = np.ones((2, 3))
    found = wanted.copy()
    found[1, 1] = np.nan
    entry = compare("depth", found, wanted)
    assert entry.relative_error == float("inf") and not entry.correlation


def test_example_images_are_pictures():
    images = example_images(Shape(3, 42, 98))
    assert images.shape == (3, 3, 42, 98)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.1
    assert not torch.equal(images[0], images[1])
    # The second view shows what the first shows, further left.
    torch.testing.assert_close(images[1][..., :-12], images[0][..., 12:])
