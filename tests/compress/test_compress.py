"""Compressing whole networks: what is in them afterwards, and what comes out."""

from __future__ import annotations

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from conftest import GOLDEN_CONFIG

import vggt_edge as ve
from vggt_edge import geometry
from vggt_edge.compress import resume, walk
from vggt_edge.compress.apply import quantized
from vggt_edge.compress.blockwise import train
from vggt_edge.compress.calibration import collect
from vggt_edge.compress.layer import make_problem, simplest
from vggt_edge.compress.methods import METHODS, method_of
from vggt_edge.compress.rotate import fold_values
from vggt_edge.compress.task_scale import (
    Truth,
    targets_from_truth,
    targets_of,
    task_terms,
)
from vggt_edge.errors import InputError, RecipeError
from vggt_edge.model.layers import Attention, Linear
from vggt_edge.model.quantized import QuantLinear, schemes
from vggt_edge.model.swap import place
from vggt_edge.model.vggt import VGGT
from vggt_edge.recipe import Recipe
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Cameras, Views

CONFIG = dataclasses.replace(
    GOLDEN_CONFIG, encoder_depth=1, camera_depth=1, heads=("camera", "depth")
)


@pytest.fixture(scope="module")
def network():
    model = initialize(VGGT(CONFIG), seed=1).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm1.weight"):  # a channel that sticks out, as in trained networks
                parameter[::13] *= 8
            if name.endswith("gamma"):  # blocks that matter
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5)
    return model


@pytest.fixture
def model(network):
    return copy.deepcopy(network)


@pytest.fixture(scope="module")
def scenes():
    random = np.random.default_rng(0)
    return [
        Views.from_images(random.integers(0, 256, (3, 42, 56, 3), dtype=np.uint8)) for _ in range(3)
    ]


RESUMED = "aggregator.*_blocks.[01].*=w4a8-g32,camera_head.*=w8a8"


def tensor_of(views: Views) -> torch.Tensor:
    return torch.from_numpy(views.images).permute(0, 3, 1, 2)[None]


def test_the_walk_is_the_network(model, scenes):
    images = tensor_of(scenes[0])
    expected = model(images)
    tokens = walk.begin(model, images)
    for stage in walk.stages(model):
        y = walk.run(stage, tokens)
        tokens = walk.advance(model, stage, tokens, y)
    assert torch.equal(y[-1], expected.pose_enc)


def test_inputs_are_those_of_the_network_in_use(model, scenes):
    """Rows of a global block come from attention over all S * P tokens of a scene."""
    images = tensor_of(scenes[0])
    stages = walk.stages(model)
    number = next(i for i, s in enumerate(stages) if s.path == "aggregator.global_blocks.1")
    tokens = walk.begin(model, images)
    for stage in stages[:number]:
        tokens = walk.advance(model, stage, tokens, walk.run(stage, tokens))
    stage = stages[number]
    assert tokens.x.shape == (1, 3, 1 + 4 + 12, 64)
    assert walk.given(stage, tokens)[0].shape == (1, 3, 17, 64)
    assert walk.given(stages[number - 1], tokens)[0].shape == (3, 1, 17, 64)
    paths = [f"{stage.path}.attn.proj", f"{stage.path}.mlp.fc2"]
    caught: dict[str, torch.Tensor] = {}

    def hook(path):
        return lambda _, given: caught.__setitem__(path, given[0].flatten(0, -2))

    handles = [model.get_submodule(p).register_forward_pre_hook(hook(p)) for p in paths]
    model(images)
    for handle in handles:
        handle.remove()
    found = collect(model, stage, [tokens], paths, rows=10**6).inputs
    for path in paths:
        assert torch.allclose(found[path].rows, caught[path], atol=1e-5)
        assert found[path].special.view(3, 17)[:, :5].all()
        assert not found[path].special.view(3, 17)[:, 5:].any()
    alone = stage.module(tokens.x.transpose(0, 1), walk.given(stage, tokens)[1])
    assert not torch.allclose(alone.transpose(0, 1), walk.run(stage, tokens), atol=1e-3)


def test_rows_are_bounded_and_seeded(model, scenes):
    stage = walk.stages(model)[0]
    tokens = [walk.begin(model, tensor_of(views)) for views in scenes]
    path = f"{stage.path}.mlp.fc1"
    first = collect(model, stage, tokens, [path], rows=60, seed=3).inputs[path]
    again = collect(model, stage, tokens, [path], rows=60, seed=3).inputs[path]
    other = collect(model, stage, tokens, [path], rows=60, seed=4).inputs[path]
    assert len(first.rows) == 60 and torch.equal(first.rows, again.rows)
    assert not torch.equal(first.rows, other.rows)


def test_folded_rotation_changes_nothing_but_weights(model, scenes):
    images = tensor_of(scenes[0])
    before = model(images)
    weight = model.aggregator.global_blocks[0].attn.proj.weight.clone()
    names = set(model.state_dict())
    changed = fold_values(model, schemes(model, Recipe("w8a8")))
    assert len(changed) == sum(isinstance(m, Attention) for m in model.modules())
    assert not torch.equal(weight, model.aggregator.global_blocks[0].attn.proj.weight)
    after = model(images)
    assert torch.allclose(after.depth, before.depth, rtol=1e-4)
    assert torch.allclose(after.pose_enc, before.pose_enc, atol=1e-5)
    assert set(model.state_dict()) == names
    assert fold_values(model, ()) == []


@pytest.mark.parametrize(
    "method, recipe",
    [
        ("minmax", "w8a8"),
        ("nearest", "w4a8-g32"),
        ("smooth", "w8a8"),
        ("awq", "w4a16-g32"),
        ("clip", "w4a4"),
        ("gptq", "fp8"),
        ("bias", "w4a4"),
        ("qvggt", "aggregator.global_blocks.0.*=w4a16-g32,camera_head.*=w8a8"),
        ("quantvggt", "aggregator.*_blocks.[01].*=w4a4-hadamard"),
        ("auto", "w4a4-hadamard"),
    ],
)
def test_every_method_ends_in_integers_alone(method, recipe, model, scenes):
    by = dataclasses.replace(method_of(method), epochs=min(2, METHODS[method].epochs))
    wanted = schemes(model, Recipe(recipe))
    names = {name for name, _ in model.named_modules()}
    exact = model(tensor_of(scenes[0]))
    report = ve.compress(model, recipe, method=by, calibration=scenes, rows=150)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, QuantLinear)}
    assert set(layers) == set(wanted) == {layer.path for layer in report.layers}
    assert model.recipe == Recipe(recipe)
    assert not any(isinstance(model.get_submodule(n), Linear) for n in wanted)
    # No float copy, and no rotation matrix anywhere: before or after a run.
    for _ in range(2):
        for layer in layers.values():
            held = [*layer.parameters(), *layer.buffers()]
            held += [v for v in vars(layer).values() if isinstance(v, torch.Tensor)]
            floats = [t for t in held if t.is_floating_point() and t.itemsize > 1]
            assert all(t.ndim <= 1 for t in floats)
        output = model(tensor_of(scenes[0]))
    assert {n for n, _ in model.named_modules()} <= names | set(layers)
    assert bool(output.depth.isfinite().all())
    if METHODS[method].data:
        assert report.scenes == 3 and report.views == 9
        assert f"special tokens {max(one.special for one in report.layers):.3g}" in "".join(
            report.table()
        )
        assert all(layer.error < 0.5 for layer in report.layers)
        if not by.epochs and not by.task:
            assert all(layer.error <= layer.nearest * 1.0001 for layer in report.layers)
        blocks = {stage.path: stage.error for stage in report.stages}
        assert set(blocks) == {stage.path for stage in walk.stages(model)}
        assert all(0 <= error < 1 for error in blocks.values())
    assert set(METHODS) == {"minmax", "nearest", "smooth", "awq", "clip", "gptq", "bias", "qvggt",
                            "quantvggt", "auto"}  # fmt: skip
    apart = (output.depth.log() - exact.depth.log()).abs().mean()
    assert apart < (0.02 if recipe == "w8a8" else 0.5)
    assert report.bytes_after < report.bytes_before
    assert len(report.table()) > 5 and report.to_dict()["method"] == method


def test_training_lowers_the_error_of_the_block(model, scenes):
    stage = next(s for s in walk.stages(model) if s.kind == walk.FRAME)
    recipe = Recipe("w4a4")
    chosen = {p: s for p, s in schemes(model, recipe).items() if p.startswith(f"{stage.path}.")}
    tokens = []
    for views in scenes:
        now = walk.begin(model, tensor_of(views))
        for before in walk.stages(model):
            if before.path == stage.path:
                break
            now = walk.advance(model, before, now, walk.run(before, now))
        tokens.append(now)
    targets = [walk.run(stage, one) for one in tokens]
    inputs = collect(model, stage, tokens, list(chosen)).inputs
    starts = {
        path: simplest(make_problem(path, scheme, model.get_submodule(path), inputs[path]))
        for path, scheme in chosen.items()
    }
    floats = {path: model.get_submodule(path) for path in chosen}
    trained = train(model, stage, tokens, targets, starts, chosen, epochs=12)
    assert all(model.get_submodule(path) is layer for path, layer in floats.items())

    def error(choices):
        for path, choice in choices.items():
            layer = quantized(
                floats[path], path, chosen[path], choice.codes, choice.gain, choice.clip
            )
            place(model, path, layer)
        return sum(
            float((walk.run(stage, one) - target).square().sum())
            for one, target in zip(tokens, targets, strict=True)
        )

    assert error(trained) < 0.9 * error(starts)
    assert train(model, stage, tokens, targets, starts, chosen, epochs=0) == starts


def test_an_interrupted_compression_goes_on(network, scenes, tmp_path, monkeypatch):
    whole = copy.deepcopy(network)
    arguments = {"method": "auto", "calibration": scenes, "rows": 200}
    first = ve.compress(whole, RESUMED, **arguments)
    write = resume.Journal.write
    written = []

    def stop_after_three(self, stage, *rest):
        write(self, stage, *rest)
        written.append(stage)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume.Journal, "write", stop_after_three)
    work = tmp_path / "work"
    arguments["work"] = work
    with pytest.raises(KeyboardInterrupt):
        ve.compress(copy.deepcopy(network), RESUMED, **arguments)
    resumed = copy.deepcopy(network)
    second = ve.compress(resumed, RESUMED, **arguments)
    assert len(set(written)) == len(written) == 5  # none twice
    state = resumed.state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert second.layers == first.layers
    # Another recipe finds nothing of use there.
    ve.compress(copy.deepcopy(network), "aggregator.frame_blocks.0.*=w8a8", **arguments)
    assert len(written) == 6


def test_finished_blocks_are_of_the_same_truth_and_go_to_the_networks_device(
    network, scenes, tmp_path, monkeypatch
):
    size = scenes[0].size
    depth = np.ones((3, *size))
    k = np.tile(np.array([[50.0, 0, 28], [0, 50.0, 21], [0, 0, 1]]), (3, 1, 1))
    poses = np.tile(np.eye(3, 4), (3, 1, 1))

    def compressed(intrinsics, camera_from_world):
        cameras = Cameras(intrinsics, camera_from_world, np.full((3, 2), size))
        truth = [Truth(cameras, depth, depth > 0)] * 3
        ve.compress(
            copy.deepcopy(network), "camera_head.trunk.0.attn.*=w8a8", method="qvggt",
            calibration=scenes, truth=truth, rows=64, work=tmp_path / "work",
        )  # fmt: skip

    moved_to = []
    move = QuantLinear.to

    def to(layer, *args, **kwargs):
        moved_to.append(args)
        return move(layer, *args, **kwargs)

    read = resume.Journal.read
    found = []

    def watched(self, stage):
        done = read(self, stage)
        found.append(done is not None)
        monkeypatch.setattr(QuantLinear, "to", to)
        return done

    monkeypatch.setattr(resume.Journal, "read", watched)
    compressed(k, poses)
    moved_to.clear()
    compressed(k, poses)
    # What a file gave, on the CPU, is moved to where the float layers were.
    assert len(moved_to) == 2 and all(args == (torch.device("cpu"),) for args in moved_to)
    compressed(k * 1.1, poses)
    compressed(k, poses + np.eye(3, 4) * 0.01)
    assert found == [False, True, False, False]


def test_a_compressed_file_is_small_and_the_same(model, scenes, tmp_path):
    path = ve.save(model, tmp_path / "float.safetensors")
    before = path.stat().st_size
    report = ve.compress(model, "w4a8-g32", method="awq", calibration=scenes, rows=200)
    path = ve.save(model, tmp_path / "small.safetensors")
    weighed = sum(
        layer.in_features * layer.out_features
        for layer in model.modules()
        if isinstance(layer, QuantLinear)
    )
    assert path.stat().st_size < before - 3.3 * weighed + 60_000
    again = ve.load(path, dtype="float32", device="cpu")
    images = tensor_of(scenes[1])
    assert torch.equal(again(images).depth, model(images).depth)
    gains = [n for n in again.state_dict() if n.endswith(".gain")]
    assert gains and report.bytes_after < report.bytes_before


def test_task_terms(model, scenes):
    images = tensor_of(scenes[0])
    output = model(images)
    terms = task_terms(output, targets_of(output))
    assert set(terms) == {"camera", "depth", "consistency"}
    assert all(abs(value) < 1e-6 for value in terms.values())
    worse = output._replace(depth=output.depth * 1.1)
    more = task_terms(worse, targets_of(output))
    assert more["depth"] == pytest.approx(np.log(1.1), abs=1e-4)
    assert more["consistency"] > 0 == pytest.approx(more["camera"], abs=1e-6)


def test_truth_is_brought_into_the_networks_frame():
    random = np.random.default_rng(1)
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    poses[1, :, :3] = geometry.quaternion_to_matrix(np.array([0.1, 0.2, 0.0, 0.97]))
    poses[:, :, 3] = random.normal(size=(2, 3))
    k = np.tile(np.array([[50.0, 0, 14], [0, 50.0, 14], [0, 0, 1]]), (2, 1, 1))
    depth = random.uniform(2, 4, (2, 28, 28))
    truth = Truth(Cameras(k, poses, np.full((2, 2), 28)), depth, depth > 2.1)
    found = targets_from_truth(truth)
    assert np.allclose(found.cameras.camera_from_world[0], np.eye(3, 4))
    assert np.linalg.norm(found.points[truth.valid], axis=-1).mean() == pytest.approx(1)
    again = geometry.unproject(
        found.depth, found.cameras.intrinsics, found.cameras.camera_from_world
    )
    assert np.allclose(again, found.points)


def test_truth_can_teach(model, scenes):
    size = scenes[0].size
    k = np.tile(np.array([[50.0, 0, 28], [0, 50.0, 21], [0, 0, 1]]), (3, 1, 1))
    depth = np.ones((3, *size))
    cameras = Cameras(k, np.tile(np.eye(3, 4), (3, 1, 1)), np.full((3, 2), size))
    truth = [Truth(cameras, depth, depth > 0)] * 3
    report = ve.compress(
        model, "camera_head.*=w8a8", method="qvggt", calibration=scenes, truth=truth, rows=100
    )
    assert all(layer.how.startswith("task mean") for layer in report.layers)


def test_refusals(model, scenes):
    with pytest.raises(InputError, match="unknown method 'magic'"):
        ve.compress(model, "w8a8", method="magic")
    with pytest.raises(InputError, match="needs calibration"):
        ve.compress(model, "w8a8", method="gptq")
    for rule, near in (
        ("camera_haed.*", r"camera_head\.\*"),
        ("aggregator.frame_blocks.0.attn.qvk", "aggregator.frame_blocks.0.attn.qkv"),
        ("camera_head.trunk", r"camera_head\.trunk\.\*"),
        ("nowhere.*", ""),
    ):
        with pytest.raises(RecipeError, match=f"{re.escape(rule)}' matches no layer.*'{near}"):
            ve.compress(model, f"{rule}=float,*=w8a8")
        assert model.recipe is None
    with pytest.raises(InputError, match="no views"):
        ve.compress(model, "w8a8", method="smooth", calibration=[])
    with pytest.raises(InputError, match="patch size"):
        odd = Views.from_images(np.zeros((2, 30, 30, 3), dtype=np.uint8))
        ve.compress(model, "w8a8", method="smooth", calibration=odd)
    with pytest.raises(InputError, match="1 truths for 3"):
        ve.compress(model, "w8a8", method="qvggt", calibration=scenes, truth=[None])
    report = ve.compress(model, "point_head.*=float,track_head.fmap*=float,*=w8a8")
    assert report.method == "nearest"
    assert report.idle == ("point_head.*", "track_head.fmap*")
    assert "point_head.*: for a head this network lacks" in "".join(report.table())
    with pytest.raises(RecipeError, match="already"):
        ve.compress(model, "w8a8")


def test_layers_no_stage_reaches_are_rounded(scenes):
    """A tracker's layers see no calibration; they are quantized all the same, and say so."""
    config = dataclasses.replace(CONFIG, camera_depth=1, heads=("camera", "track"),
                                 track_hidden=64, track_features=64)  # fmt: skip
    model = initialize(VGGT(config), seed=1).eval().requires_grad_(False)
    report = ve.compress(model, "w8a8", method="smooth", calibration=scenes, rows=100)
    tracked = [layer for layer in report.layers if layer.path.startswith("track_head")]
    assert tracked and all(layer.how == "nearest" for layer in tracked)
