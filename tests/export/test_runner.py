"""A bundle as a predictor; torch stands where the runtime would be."""

from __future__ import annotations

import importlib.util

import bundles
import numpy as np
import pytest
from networks import seeded

import vggt_edge as ve
from vggt_edge import api
from vggt_edge.errors import ExportError, InputError, MissingExtraError, NumericError
from vggt_edge.export import bundle as bundle_module
from vggt_edge.export import runner


@pytest.fixture(scope="module")
def network():
    return seeded()


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    place = tmp_path_factory.mktemp("runner")
    with pytest.MonkeyPatch.context() as patch:
        return bundles.write(network, place / "raw", place / "b", patch)


@pytest.fixture
def model(network, made, monkeypatch):
    call = bundles.torch_stage(network)
    monkeypatch.setattr(runner, "load_stage", lambda *_: call)
    return runner.BundleModel(made)


def pictures(count, height, width, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, height // 7, width // 7, 3), dtype=np.uint8)
    return ve.Views.from_images(coarse.repeat(7, axis=1).repeat(7, axis=2))


def test_it_predicts_what_the_network_does(model, network):
    views = pictures(2, 28, 42)
    found, wanted = model(views), ve.predict(network, views)
    np.testing.assert_allclose(found.depth, wanted.depth, rtol=1e-3)
    np.testing.assert_allclose(found.depth_confidence, wanted.depth_confidence, rtol=1e-3)
    np.testing.assert_allclose(found.cameras.intrinsics, wanted.cameras.intrinsics, rtol=1e-3)
    np.testing.assert_allclose(
        found.cameras.camera_from_world, wanted.cameras.camera_from_world, atol=1e-3
    )


def test_more_views_take_turns_beside_the_first(model, network):
    views = pictures(4, 28, 42)
    found = model(views)
    assert found.depth.shape == (4, 28, 42) and len(found.cameras) == 4
    pair = ve.predict(network, views[[0, 3]])
    # In the unit of the first pass: as the first view's depth says.
    first = ve.predict(network, views[[0, 1]])
    factor = np.median(first.depth[0]) / np.median(pair.depth[0])
    np.testing.assert_allclose(found.depth[3], pair.depth[1] * factor, rtol=1e-3)
    np.testing.assert_allclose(
        found.cameras.centers[3], pair.cameras.centers[1] * factor, rtol=1e-2, atol=1e-3
    )
    alone = model(views[[0]])
    assert alone.depth.shape == (1, 28, 42)


@pytest.mark.parametrize("size", [(56, 84), (28, 28), (56, 42), (14, 42)])
def test_views_of_another_size_are_fitted_and_mapped_back(model, size):
    found = model(pictures(2, *size))
    assert found.depth.shape == (2, *size) and found.cameras.sizes.tolist() == [list(size)] * 2
    middle = found.cameras.intrinsics[0, :2, 2]
    np.testing.assert_allclose(middle, [size[1] / 2, size[0] / 2])
    # Pixels are square in the frame and in the view alike.
    frame = runner._Frame(size, (28, 42))
    rates = [frame.view[i] / frame.inner[i] for i in (0, 1)]
    assert rates[0] == pytest.approx(rates[1], rel=0.1)


def test_scaled_views_have_scaled_focal_lengths(model):
    small = pictures(2, 28, 42)
    large = ve.Views.from_images(small.images.repeat(2, axis=1).repeat(2, axis=2))
    few, many = model(small).cameras, model(large).cameras
    np.testing.assert_allclose(many.intrinsics[:, 0, 0], 2 * few.intrinsics[:, 0, 0], rtol=0.05)


def test_what_cannot_be_run_is_refused(model, made, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="no views"):
        model(pictures(2, 28, 42)[[]])
    monkeypatch.setattr(runner.BundleModel, "run", lambda *_: {"depth": None})
    single = runner.BundleModel(made)
    monkeypatch.setattr(bundle_module.Bundle, "shape", (1, 28, 42))
    with pytest.raises(InputError, match="one view at a time, not 2"):
        single(pictures(2, 28, 42))


def test_numbers_that_are_not_finite_are_not_passed_on(network, made, monkeypatch):
    call = bundles.torch_stage(network, change=lambda v: {**v, "depth": v["depth"] * np.nan})
    monkeypatch.setattr(runner, "load_stage", lambda *_: call)
    with pytest.raises(NumericError, match="depth of the exported network"):
        runner.BundleModel(made)(pictures(2, 28, 42))


def test_evaluation_knows_a_bundle_by_its_content(model, made):
    method = api.method(model, "exported")
    assert method.identity == f"bundle {made.identity}" and method.size == 42
    assert method.patch == 14 and method.predict is model


@pytest.mark.skipif(bool(importlib.util.find_spec("ai_edge_litert")), reason="LiteRT is installed")
def test_without_a_runtime_the_way_to_it_is_said(made, tmp_path):
    with pytest.raises(MissingExtraError, match=r"make litert.*vggt-edge\[litert\]"):
        runner.BundleModel(made)


@pytest.mark.skipif(bool(importlib.util.find_spec("executorch")), reason="ExecuTorch is installed")
def test_without_executorch_the_way_to_it_is_said(tmp_path):
    with pytest.raises(MissingExtraError, match=r"make executorch.*vggt-edge\[executorch\]"):
        runner.ExecuTorchRunner(tmp_path / "x.pte")


@pytest.mark.skipif(not importlib.util.find_spec("ai_edge_litert"), reason="make test-litert")
def test_a_file_that_is_no_network_is_one_line(made):
    with pytest.raises(ExportError, match="cannot be loaded") as caught:
        runner.BundleModel(made)
    assert "\n" not in str(caught.value)
