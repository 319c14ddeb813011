from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from known_scene import HEIGHT, WIDTH, make_scene
from PIL import Image

from vggt_edge.errors import MissingExtraError, OutputError
from vggt_edge.outputs import depth, exr
from vggt_edge.types import Prediction, Views


def read_png(path):
    with Image.open(path) as image:
        assert image.mode == "I;16"
        return np.asarray(image)


def test_the_png_gives_the_depth_back_within_half_a_count(tmp_path):
    prediction = make_scene().prediction
    holes = prediction.depth.copy()
    holes[0, 10, :3] = [np.nan, -1, np.inf]
    prediction = replace(prediction, depth=holes)
    sidecar = json.loads(depth.write(prediction, tmp_path / "depth").read_text("utf-8"))
    step = sidecar["units_per_count"]
    assert sidecar["units"] == "arbitrary"
    shown = prediction.views.valid_mask() & np.isfinite(holes) & (holes > 0)
    assert step == pytest.approx(holes[shown].max() / 65534)
    for i, view in enumerate(sidecar["views"]):
        counts = read_png(tmp_path / "depth" / view["file"])
        assert counts.shape == (HEIGHT, WIDTH) == (view["height"], view["width"])
        assert (counts[~shown[i]] == 0).all() and (counts[shown[i]] > 0).all()
        error = np.abs(counts * step - holes[i])[shown[i]]
        assert error.max() <= step * 0.5001
        np.testing.assert_array_equal(view["intrinsics"], prediction.cameras.intrinsics[i])
        pose = prediction.cameras.camera_from_world[i]
        np.testing.assert_array_equal(view["camera_from_world"], pose)


@given(
    hnp.arrays(
        np.float32,
        (1, 3, 4),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_depth_is_right_within_half_a_count_or_marked(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("depth")
    views = Views.from_images(np.zeros((1, 3, 4, 3), np.uint8), ("a",))
    path = depth.write(Prediction(views, depth=values), folder)
    sidecar = json.loads(path.read_text())
    step, furthest = sidecar["units_per_count"], sidecar["furthest"]
    counts, valid = read_png(folder / "a.png"), np.isfinite(values[0]) & (values[0] > 0)
    np.testing.assert_array_equal(counts > 0, valid)
    wanted, counts = values[0][valid].astype(np.float64), counts[valid]
    beyond = counts == sidecar["beyond"]
    assert (wanted[beyond] >= furthest * (1 - 1e-6)).all()
    wanted, counts = wanted[~beyond], counts[~beyond]
    assert (wanted <= furthest * (1 + 1e-6)).all()
    error = np.abs(counts * step - wanted)
    assert (error <= np.where(wanted < step / 2, step, step / 2 * (1 + 1e-6))).all()


@pytest.mark.parametrize("share", [0, 0.4])
@pytest.mark.parametrize("units", ["arbitrary", "metres"])
def test_a_far_sky_leaves_the_rest_its_precision(tmp_path, share, units):
    prediction = make_scene().prediction
    values = prediction.depth.copy()  # 1 to 3
    values[:, : 3 + round(18 * share)] = 1e5
    values[0, 10, 10] = 1e5
    prediction = replace(prediction, depth=values)
    sidecar = json.loads(depth.write(prediction, tmp_path, units=units).read_text())
    assert sidecar["units_per_count"] < 0.003 and sidecar["furthest"] > 60
    shown = prediction.views.valid_mask()
    for i, view in enumerate(sidecar["views"]):
        counts = read_png(tmp_path / view["file"])
        far = shown[i] & (values[i] == 1e5)
        np.testing.assert_array_equal(counts == sidecar["beyond"], far)


def test_confidence_is_written_by_rank_over_all_views(tmp_path):
    prediction = make_scene().prediction
    confidence, holes = prediction.depth_confidence.copy(), prediction.depth.copy()
    confidence[0] *= 100
    holes[1, 10, 4] = np.nan
    confidence[1, 10, 5] = np.nan
    prediction = replace(prediction, depth_confidence=confidence, depth=holes)
    sidecar = json.loads(depth.write(prediction, tmp_path).read_text("utf-8"))
    valid = prediction.views.valid_mask() & (holes > 0) & np.isfinite(confidence)
    counts = np.stack([read_png(tmp_path / view["confidence"]) for view in sidecar["views"]])
    np.testing.assert_array_equal(counts > 0, valid)
    everything = np.sort(confidence[valid])
    share = np.searchsorted(everything, confidence[valid], side="right") / len(everything)
    np.testing.assert_allclose(counts[valid] / 65535, share, atol=2 / len(everything))
    values = np.interp(counts[valid] / 655.35, range(101), sidecar["confidence_percentiles"])
    assert np.median(np.abs(values / confidence[valid] - 1)) < 0.02


def test_without_confidence_there_are_no_ranks(tmp_path):
    prediction = replace(make_scene().prediction, depth_confidence=None)
    sidecar = json.loads(depth.write(prediction, tmp_path).read_text("utf-8"))
    assert "confidence" not in sidecar and "confidence" not in sidecar["views"][0]
    assert not (tmp_path / "confidence").exists()


@pytest.mark.parametrize(("scale", "step"), [(1, 0.001), (100, None)])
def test_metres_are_millimetres_unless_they_would_saturate(tmp_path, scale, step):
    prediction = make_scene().prediction
    prediction = replace(prediction, depth=prediction.depth * scale)
    written = json.loads(depth.write(prediction, tmp_path, units="metres").read_text())
    if step is None:
        deepest = prediction.depth[prediction.views.valid_mask()].max()
        step = pytest.approx(deepest / 65534)
    assert written["units_per_count"] == step and written["units"] == "metres"


def test_exr_is_lossless_and_zero_where_there_is_nothing(tmp_path):
    import OpenEXR

    prediction = make_scene().prediction
    shown = prediction.views.valid_mask()
    assert exr.write(prediction, tmp_path / "depth", units="metres") == tmp_path / "depth"
    for i, name in enumerate(prediction.views.names):
        with OpenEXR.File(str(tmp_path / "depth" / f"{name}.exr")) as file:
            channels, header = file.channels(), file.header()
            for channel, values in (
                ("Z", prediction.depth[i]),
                ("confidence", prediction.depth_confidence[i]),
            ):
                assert channels[channel].pixels.dtype == np.float32
                np.testing.assert_array_equal(
                    channels[channel].pixels, np.where(shown[i], values, 0)
                )
            assert header["units"] == "metres"
            intrinsics = json.loads(header["intrinsics"])
            np.testing.assert_array_equal(intrinsics, prediction.cameras.intrinsics[i])


@pytest.mark.parametrize("writer", [depth, exr])
def test_without_depth_there_is_a_way_out_in_the_message(tmp_path, writer):
    with pytest.raises(OutputError, match="heads="):
        writer.write(Prediction(make_scene().views), tmp_path)


def test_without_openexr_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(MissingExtraError, match=r"vggt-edge\[exr\]"):
        exr.write(make_scene().prediction, tmp_path)
