"""What needs ExecuTorch's packages runs in their environment: ``make test-executorch``."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from networks import seeded
from torch import nn

import vggt_edge as ve
from vggt_edge.errors import ExportError, InputError, MissingExtraError
from vggt_edge.export import bundle, executorch, executorch_delegates
from vggt_edge.export.executorch_recipes import check_recipe, layer_regex, precision_of
from vggt_edge.export.gates import gate, proofs
from vggt_edge.export.module import DepthOnly, compare, example_images
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.runner import BundleModel
from vggt_edge.export.shape import Shape
from vggt_edge.export.targets import TARGETS

PRESENT = importlib.util.find_spec("executorch") is not None
needs_executorch = pytest.mark.skipif(
    not PRESENT, reason="ExecuTorch's environment: make test-executorch"
)
pytestmark = pytest.mark.filterwarnings("default")  # its packages warn of each other

SHAPE = Shape(2, 28, 42)
FORM = TARGETS["executorch"].form


@pytest.fixture(scope="session")
def network():
    return seeded()


def test_products_with_a_constant_are_means(network):
    images = example_images(SHAPE)
    rewritten = reauthor(network, SHAPE, ("depth",), FORM)
    wanted = DepthOnly(network)(images).numpy()
    assert compare("depth", rewritten(images).numpy(), wanted).relative_error < 1e-5
    program = torch.export.export(rewritten, (images,))
    assert not [n for n in program.graph.nodes if "mean" in str(n.target)]


@pytest.mark.parametrize(
    "path, there, elsewhere",
    [
        ("depth_head", "depth.project0", "trunk.frame0.fc1"),
        ("aggregator.global_blocks.*", "trunk.global11.attn.q", "trunk.frame1.attn.q"),
        ("aggregator.frame_blocks.1", "trunk.frame1.fc2", "trunk.frame11.fc2"),
        ("aggregator.frame_blocks.1.attn.qkv", "trunk.frame1.attn.k", "trunk.frame1.attn.proj"),
    ],
)
def test_exceptions_find_their_layers(path, there, elsewhere):
    rules = check_recipe("int4", False, {path: "float32"}).rules
    layer = nn.Linear(64, 8)
    assert precision_of(there, layer, rules) is None
    assert precision_of(elsewhere, layer, rules).bits == 4
    assert layer_regex(path).startswith("^")


def test_recipes_are_translated_or_refused():
    recipe = check_recipe("aggregator.frame_blocks.*=w8a8,*=w4a8-g64", False)
    layer = nn.Linear(64, 8)
    assert precision_of("trunk.frame0.fc1", layer, recipe.rules).bits == 8
    assert precision_of("trunk.global0.fc1", layer, recipe.rules).group == 64
    # A row that the group does not divide.
    assert precision_of("trunk.global0.fc1", nn.Linear(48, 8), recipe.rules).bits == 8
    for name in ("w4a16-g32", "w4a8", "w8a8-hadamard", "fp8"):
        with pytest.raises(InputError, match="XNNPACK has no kernel.*w8a8"):
            check_recipe(name, False)
    with pytest.raises(InputError, match="--calibration"):
        check_recipe("int8-static", False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "executorch", "recipe": "fp16"}, "fp16"),
        ({"target": "executorch", "recipe": "int8-static"}, "--calibration"),
        ({"target": "litert", "external_weights": True}, "litert has none such"),
        ({"target": "executorch-coreml", "external_weights": True}, "coreml has none such"),
        ({"target": "executorch-coreml", "profile": True}, "coreml has none such"),
        ({"target": "litert", "profile": True}, "litert has none such"),
        ({"target": "executorch-vulkan", "recipe": "int8"}, "fp16, float32"),
    ],
)
def test_what_executorch_cannot_is_refused(network, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ve.export(network, out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(PRESENT, reason="ExecuTorch is installed")
def test_without_executorch_the_way_to_it_is_said(network, tmp_path):
    with pytest.raises(MissingExtraError, match=r"make executorch.*vggt-edge\[executorch\]"):
        ve.export(network, "executorch", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(MissingExtraError, match="executorch"):
        executorch.ExecuTorchRunner(tmp_path / "none.pte")


@needs_executorch
@pytest.mark.slow
def test_the_program_is_the_network_in_one_delegate(network, tmp_path):
    """Weights beside it, several methods, all outputs: the whole path of a user."""
    result = ve.export(
        network,
        "executorch",
        size=(28, 42),
        outputs=("depth", "confidence", "pose"),
        out=tmp_path,
        name="tiny",
        split=True,
        external_weights=True,
        profile=True,
        bundle=tmp_path / "bundle",
    )
    program, weights = result.files
    assert list(program.methods) == ["encoder", "trunk", "depth", "camera"]
    made = bundle.read(tmp_path / "bundle")
    told = [(stage["method"], stage["data"]) for stage in made.manifest["stages"]]
    assert told == [(name, f"network/{weights.path.name}") for name in program.methods]
    views = ve.Views.from_images(made.golden().images[-1])
    found, wanted = BundleModel(made, threads=1)(views), ve.predict(network, views)
    np.testing.assert_allclose(found.depth, wanted.depth, rtol=1e-3)
    context = gate.Context(made, made.golden(), tmp_path, network, threads=1)
    judged = gate.run(proofs.GATES["executorch-xnnpack"], context)
    assert judged.status == "passed", judged.reasons
    inspector = importlib.import_module("executorch.devtools").Inspector(etdump_path=result.profile)
    events = [event for block in inspector.event_blocks for event in block.events]
    assert sum(event.name == "DELEGATE_CALL" for event in events) == 4
    assert all(event.perf_data.raw for event in events if event.name == "DELEGATE_CALL")
    assert program.path.name == "tiny-2x28x42-float32.pte" and weights.path.suffix == ".ptd"
    assert program.stage == "encoder+trunk+depth+camera" and weights.stage == "weights"
    assert weights.bytes > 5 * program.bytes
    assert all(entry.relative_error < 1e-4 for entry in result.artefact)
    assert result.layout == "VCHW" and program.inputs["images"].shape == (2, 3, 28, 42)
    assert program.outputs["depth"].shape == (2, 28, 42, 1)
    # A delegate for each method: nothing runs on portable kernels.
    assert program.operators == {"XnnpackBackend": 4}
    runner = executorch.ExecuTorchRunner(program.path, weights.path, threads=1, profile=True)
    assert runner.methods == {"encoder", "trunk", "depth", "camera"}
    images = example_images(SHAPE)
    runner(images, method="encoder")
    assert runner.write_profile(tmp_path / "run.etdp").stat().st_size > 0
    with pytest.raises(ExportError, match=r"takes \[\(2, 3, 28, 42\)\]"):
        runner(images[:1], method="encoder")
    with pytest.raises(ExportError, match="no method 'forward'"):
        runner(images)
    with pytest.raises(ExportError, match="cannot be loaded"):
        (tmp_path / "bad.pte").write_bytes(b"not a program")
        executorch.ExecuTorchRunner(tmp_path / "bad.pte")


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("recipe, error", [("int8", 0.1), ("int4", 0.4), ("int8-static", 0.5)])
def test_executorch_recipes_run_and_stay_near(network, tmp_path, recipe, error):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 30, 44, 3), dtype=np.uint8)
    result = ve.export(
        network,
        "executorch",
        size=(28, 42),
        recipe=recipe,
        out=tmp_path,
        calibration=ve.Views.from_images(pictures),
    )
    assert 0 < result.artefact[0].mean_relative_error < error


LOWERED = [("executorch-coreml", "CoreMLBackend"), ("executorch-vulkan", "VulkanBackend")]


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("target, delegate", LOWERED)
def test_targets_of_other_machines_are_lowered_and_say_they_were_not_run(
    network, tmp_path, target, delegate
):
    result = ve.export(network, target, size=(28, 28), out=tmp_path, name="tiny")
    assert not result.ran and result.status == "lowered, not run" and not result.artefact
    assert result.rewrite[0].relative_error < 1e-5  # what was lowered is the network
    assert "run" not in result.seconds and result.recipe == "fp16"
    (file,) = result.files
    assert file.inputs["images"].shape == (2, 3, 28, 28)
    assert (file.outputs["depth"].shape, file.outputs["depth"].dtype) == ((2, 28, 28, 1), "float32")
    assert file.operators[delegate] >= 1
    if target == "executorch-coreml":
        assert file.operators == {delegate: 1}
    with pytest.raises(ExportError, match="cannot be loaded"):  # or it would have been run
        executorch.ExecuTorchRunner(file.path)(example_images(Shape(2, 28, 28)))


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("delegate", sorted(executorch_delegates.DELEGATES))
@pytest.mark.parametrize("half", [False, True])
def test_every_delegate_takes_a_block_of_products(tmp_path, delegate, half):
    layer = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)).eval()
    method = {"forward": executorch.Method(layer, (torch.zeros(4, 32),))}
    path = executorch.lower(method, tmp_path / "a.pte", delegate=delegate, half=half)
    assert executorch.operators(path) == {"forward": {delegate: 1}}
    ((taken,), (given,)) = executorch.described_ports(path)["forward"]
    assert taken.shape == (4, 32) and given.shape == (4, 32)
    assert taken.dtype == given.dtype == "float32"
