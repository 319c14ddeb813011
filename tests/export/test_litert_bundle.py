"""Bundles of LiteRT, for real: what needs its packages runs in their environment."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import seeded

import vggt_edge as ve
from vggt_edge.export import bundle, golden
from vggt_edge.export.gates import gate, proofs
from vggt_edge.export.runner import BundleModel
from vggt_edge.export.shape import Shape
from vggt_edge.export.tflite_names import tensor_names
from vggt_edge.model.identity import identity_of

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("litert_torch") is None,
        reason="LiteRT's environment: make test-litert",
    ),
    pytest.mark.filterwarnings("default"),  # its packages warn of each other
]
OUTPUTS = ("depth", "confidence", "pose")


@pytest.fixture(scope="session")
def network():
    return seeded()


@pytest.fixture(scope="session")
def made(network, tmp_path_factory):
    """The tiny network in int8, in stages, as a zip."""
    place = tmp_path_factory.mktemp("litert-bundle")
    path = place / "tiny.zip"
    ve.export(
        network,
        size=(28, 42),
        outputs=OUTPUTS,
        recipe="float32",
        out=place,
        name="tiny",
        split=True,
        bundle=path,
    )
    return bundle.read(path)


def test_a_bundle_runs_and_is_the_network(made, network):
    model = BundleModel(made, threads=1)
    assert made.manifest["name"] == "tiny-2x28x42-litert-float32"
    assert made.manifest["network"] == identity_of(network)
    assert [stage["name"] for stage in made.manifest["stages"]] == [
        "encoder", "trunk", "depth", "camera",
    ]  # fmt: skip
    views = ve.Views.from_images(made.golden().images[-1])
    found, wanted = model(views), ve.predict(network, views)
    np.testing.assert_allclose(found.depth, wanted.depth, rtol=1e-3)
    np.testing.assert_allclose(
        found.cameras.camera_from_world, wanted.cameras.camera_from_world, atol=1e-4
    )


def test_the_gate_passes_it_and_fails_one_with_other_weights(made, network, tmp_path):
    context = gate.Context(made, made.golden(), tmp_path, network, threads=1)
    result = gate.run(proofs.GATES["litert-cpu"], context)
    assert result.status == "passed", result.reasons
    assert result.measured.worst.abs_rel < 1e-4 and result.facts["median_milliseconds"] > 0
    # The same bundle with one bias moved: hashes made to fit, so that only the numbers tell.
    other = seeded(seed=1)
    known = golden.make(other, Shape(2, 28, 42), OUTPUTS, scenes=1)
    wrong = gate.Context(made, known, tmp_path, other, threads=1)
    result = gate.run(proofs.GATES["litert-cpu"], wrong)
    assert result.status == "failed" and any("abs_rel" in reason for reason in result.reasons)


def test_names_are_those_litert_reads(made):
    interpreter = importlib.import_module("ai_edge_litert.interpreter")
    for stage in made.manifest["stages"]:
        path = made.path(stage["file"])
        loaded = interpreter.Interpreter(str(path))
        names = tensor_names(path)
        assert list(names.inputs.values()) == [t["name"] for t in loaded.get_input_details()]
        assert list(names.outputs.values()) == [t["name"] for t in loaded.get_output_details()]
        assert names.inputs.keys() == stage["inputs"].keys()
        assert names.outputs.keys() == stage["outputs"].keys()


def test_the_schema_is_met_by_what_export_makes(made):
    manifest = json.loads((made.folder / bundle.MANIFEST).read_text())
    assert manifest["made_by"].keys() >= {"torch", "litert-torch", "ai-edge-litert", "vggt-edge"}
    assert Path(sys.executable).exists() and manifest["stages"][0]["operators"]
