"""What needs LiteRT's packages runs in their environment: ``make test-litert``."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from networks import seeded

import vggt_edge as ve
from vggt_edge.errors import ExportError, InputError, MissingExtraError
from vggt_edge.export import litert, run
from vggt_edge.export.litert_recipes import scope_regex
from vggt_edge.export.module import DepthOnly, compare, example_images
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import Shape
from vggt_edge.export.targets import TARGETS
from vggt_edge.weights import save

PRESENT = importlib.util.find_spec("litert_torch") is not None
needs_litert = pytest.mark.skipif(not PRESENT, reason="LiteRT's environment: make test-litert")
pytestmark = pytest.mark.filterwarnings("default")  # its packages warn of each other

SHAPE = Shape(2, 28, 42)


@pytest.fixture(scope="session")
def network():
    return seeded()


@pytest.fixture(scope="session")
def images():
    return example_images(SHAPE)


@pytest.fixture(scope="session")
def float_file(network, images, tmp_path_factory):
    """The tiny network as float32 ``.tflite``."""
    path = tmp_path_factory.mktemp("litert") / "float32.tflite"
    rewritten = reauthor(network, SHAPE, ("depth",), TARGETS["litert"].form)
    return litert.convert(rewritten, {"images": rewritten.example()}, ("depth",), path)


def given(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.skipif(PRESENT, reason="LiteRT is installed")
def test_without_litert_the_way_to_it_is_said(network, tmp_path):
    with pytest.raises(MissingExtraError, match=r"make litert.*vggt-edge\[litert\]"):
        ve.export(network, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(MissingExtraError, match="ai-edge-litert"):
        litert.LiteRTRunner(tmp_path / "none.tflite")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": (30, 42)}, "multiples of the patch size 14.*nearest is 28x42"),
        ({"target": "phone"}, "unknown target 'phone'; known: litert"),
        ({"outputs": ("mesh",)}, "unknown output mesh"),
        ({"recipe": "int3"}, "int3"),
        ({"target": "litert-npu", "recipe": "int4"}, "litert-npu.*can run fp16, float32, w8a8-st"),
        ({"recipe": "w8a8-static"}, "ranges of activations.*--calibration"),
        ({"exceptions": {"depth_head": "int5"}}, "exception depth_head=int5.*can run float32"),
        (
            {"target": "litert-gpu", "exceptions": {"depth_head": "int4"}},
            "exception depth_head=int4.*litert-gpu.*can run fp16, float32",
        ),
        (
            {"target": "litert-npu", "exceptions": {"depth_head": "int8"}},
            "exception depth_head=int8.*litert-npu",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(network, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ve.export(network, out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_pictures_are_cut_to_the_input_and_grouped():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 60, 40, 3), dtype=np.uint8)
    sets = run.fit(ve.Views.from_images(pictures), Shape(2, 28, 42))
    assert sets.shape == (4, 2, 28, 42, 3) and sets.dtype == np.float32
    assert sets.min() >= 0 and sets.max() <= 1
    np.testing.assert_array_equal(sets[0, 1], sets[1, 0])
    with pytest.raises(InputError, match="5 pictures to measure on, and one input is 6"):
        run.fit(ve.Views.from_images(pictures), Shape(6, 28, 28))


def test_pictures_that_no_recipe_needs_are_not_looked_at(network, tmp_path, monkeypatch):
    class Reached(Exception):
        pass

    def rewrite(*_):
        raise Reached

    monkeypatch.setattr(litert, "require_packages", lambda: None)
    monkeypatch.setattr(run, "reauthor", rewrite)
    one = ve.Views.from_images(np.zeros((1, 28, 42, 3), np.uint8))
    options = {"size": (28, 42), "out": tmp_path, "calibration": one}
    with pytest.raises(Reached):
        ve.export(network, recipe="int8", **options)
    with pytest.raises(InputError, match="1 pictures to measure on"):
        ve.export(network, recipe="w8a8-static", **options)


def test_integers_of_a_file_are_scaled_as_it_says():
    port = litert.Port((3,), "int8", 1 / 255, -128)
    np.testing.assert_array_equal(port.encode(np.array([0.0, 1.0, 2.0])), [-128, 127, 127])
    np.testing.assert_allclose(port.decode(np.array([-128, 127], np.int8)), [0, 1])
    plain = litert.Port((3,), "float32", 0.0, 0)
    values = np.ones(3, np.float32)
    assert plain.decode(plain.encode(values)) is values


@needs_litert
def test_the_file_is_the_network(network, float_file, images):
    runner = litert.LiteRTRunner(float_file)
    assert runner.inputs["images"].shape == (2, 28, 42, 3)
    assert runner.outputs["depth"].shape == (2, 28, 42, 1)
    found = runner(images=given(images))["depth"]
    assert compare("depth", found, DepthOnly(network)(images).numpy()).relative_error < 1e-5
    absent = {"TRANSPOSE_CONV", "BROADCAST_TO", "GATHER_ND", "STABLEHLO_IOTA"}
    assert not absent & runner.operators().keys()


@needs_litert
def test_a_wrong_input_is_refused(float_file, tmp_path, images):
    runner = litert.LiteRTRunner(float_file)
    with pytest.raises(ExportError, match=r"images \(2, 28, 42, 3\)"):
        runner(images=given(images)[:1])
    with pytest.raises(ExportError, match="input pictures"):
        runner(pictures=given(images))
    (tmp_path / "bad.tflite").write_bytes(b"not a network")
    with pytest.raises(ExportError, match="bad.tflite cannot be loaded"):
        litert.LiteRTRunner(tmp_path / "bad.tflite")


@needs_litert
@pytest.mark.parametrize(
    "recipe, error",
    [
        ("fp16", 2e-3),
        ("int8", 0.1),
        ("int4", 0.4),
        ("int8-weights", 0.1),
        ("int4-weights", 0.4),
        ("int8-hadamard", 0.1),
        ("int4-hadamard", 0.4),
        ("w8a8-static", 0.5),
        ("w8a16-static", 0.1),
        ("w4a8-g32", 0.4),
    ],
)
def test_recipes_run_and_stay_near(network, float_file, images, tmp_path, recipe, error):
    examples = [{"images": given(images)}]
    path = litert.quantize(float_file, tmp_path / "q.tflite", recipe, inputs=examples)
    # A rotation is a dense matrix in the file, which counts beside linears this small.
    size = 1.0 if "hadamard" in recipe else 0.75
    assert path.stat().st_size < size * float_file.stat().st_size
    found = litert.LiteRTRunner(path)(images=given(images))["depth"]
    wanted = DepthOnly(network)(images).numpy()
    assert 0 < compare("depth", found, wanted).mean_relative_error < error
    assert path.stat().st_mode == float_file.stat().st_mode


def weight_types(path):
    """Linear or convolution to the type of its weights."""
    interpreter = litert.LiteRTRunner(path)._interpreter
    tensors = {entry["index"]: entry for entry in interpreter.get_tensor_details()}
    return {
        tensors[entry["outputs"][0]]["name"]: tensors[entry["inputs"][1]]["dtype"].__name__
        for entry in interpreter._get_ops_details()
        if entry["op_name"] in ("FULLY_CONNECTED", "CONV_2D")
    }


@needs_litert
def test_exceptions_keep_their_layers(float_file, tmp_path):
    path = litert.quantize(
        float_file,
        tmp_path / "mixed.tflite",
        "int8",
        exceptions={"depth_head": "float32", "aggregator.global_blocks.2": "float32"},
    )
    types = weight_types(path)
    for layer, wanted in (("depth_head", "float32"), ("aggregator.global_blocks.2", "float32"),
                          ("aggregator.global_blocks.1", "int8"),
                          ("aggregator.patch_embed", "int8")):  # fmt: skip
        found = {kind for name, kind in types.items() if re.search(scope_regex(layer), name)}
        assert found == {wanted}, layer


@needs_litert
def test_exceptions_find_their_layers_in_stages_too(network, tmp_path):
    result = ve.export(
        network,
        size=(28, 42),
        recipe="int8",
        exceptions={"aggregator.global_blocks.1": "float32", "aggregator.patch_embed": "float32"},
        out=tmp_path,
        split=True,
    )
    encoder, trunk, _ = (weight_types(file.path) for file in result.files)
    assert {*encoder.values()} == {"float32"}
    kept = {name for name, kind in trunk.items() if kind == "float32"}
    assert kept == {name for name in trunk if "_global1" in name} and kept


@needs_litert
def test_an_exception_for_no_layer_ends_the_export(network, tmp_path):
    with pytest.raises(InputError, match="depht_head.*nearest is depth_head"):
        ve.export(network, size=(28, 42), exceptions={"depht_head": "int8"}, out=tmp_path)
    assert not list(tmp_path.iterdir())


@needs_litert
def test_export_writes_whole_stages_that_agree(network, tmp_path):
    steps = []
    result = ve.export(
        network,
        views=2,
        size=(28, 42),
        outputs=("depth", "confidence", "pose"),
        recipe="float32",
        out=tmp_path,
        name="tiny",
        split=True,
        notify=steps.append,
    )
    stages = ["encoder", "trunk", "depth", "camera"]
    assert [file.stage for file in result.files] == stages
    names = {f"tiny-2x28x42-float32-{stage}.tflite" for stage in stages} | {"validation.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert [entry.name for entry in result.artefact] == ["depth", "confidence", "pose"]
    assert all(entry.relative_error < 1e-4 for entry in result.artefact)
    assert steps[:4] == ["rewrite", "validate", "lint", "convert"] and steps[-1] == "run"
    assert result.to_dict()["files"][1]["inputs"]["patches"]["shape"] == (2, 6, 32)
    assert result.bytes == sum(file.path.stat().st_size for file in result.files)


@needs_litert
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(network, tmp_path, number):
    save(network, tmp_path / "tiny.safetensors")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vggt_edge", "export", str(tmp_path / "tiny.safetensors")]
    command += ["--size", "28x42", "--recipe", "int8", "--out", str(out)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".export-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "interrupted" in errors
    assert [path.name for path in out.iterdir()] == ["validation.png"]


@needs_litert
def test_a_converter_that_fails_is_one_line(tmp_path):
    class Inverse(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x)

    with pytest.raises(ExportError, match="LiteRT's converter failed") as caught:
        litert.convert(Inverse(), {"x": torch.eye(3)}, ("y",), tmp_path / "x.tflite")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@needs_litert
def test_convolutions_the_quantizer_fails_on_stay_float(float_file, tmp_path, monkeypatch):
    monkeypatch.setattr(litert, "QUANTIZER_LIMIT", 4 * 16 * 16 * 9)
    types = weight_types(litert.quantize(float_file, tmp_path / "q.tflite", "int8"))
    large = {name for name in types if "shrink" in name}
    assert large and {types[name] for name in large} == {"float32"}
    assert {kind for name, kind in types.items() if "Linear" in name} == {"int8"}
