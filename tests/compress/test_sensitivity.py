"""Sensitivity: one unit at a time, put back exactly, scored, resumed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import GOLDEN_CONFIG
from torch import nn

from vggt_edge import weights
from vggt_edge.compress.cases import folder_cases, world_cases
from vggt_edge.compress.compress import compress
from vggt_edge.compress.damage import Case, Judge, Target, losses, target_of
from vggt_edge.compress.scan import block_of, compressed, rounded, scan, units_of
from vggt_edge.compress.sensitivity import Score, Sensitivity, lines, read
from vggt_edge.errors import ImageError, InputError, RecipeError
from vggt_edge.model.quantized import QuantLinear
from vggt_edge.model.vggt import VGGT
from vggt_edge.predict import predict
from vggt_edge.recipe import Scheme
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Views

CONFIG = dataclasses.replace(
    GOLDEN_CONFIG, encoder_depth=1, camera_depth=1, camera_iterations=1, heads=("camera", "depth")
)
SCHEME = Scheme.parse("w4a8-g32")


@pytest.fixture(scope="module")
def model() -> VGGT:
    network = initialize(VGGT(CONFIG), seed=3).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("gamma"):
            tensor.fill_(0.5)  # blocks that matter
        elif "empty_pose" in name or "pose_branch" in name:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return network


def make_cases(group: str = "a", count: int = 3, seed: int = 0) -> list[Case]:
    random = np.random.default_rng(seed)
    return [
        Case(
            f"{group}/{i}",
            group,
            Views.from_images(random.integers(0, 256, (2, 28, 42, 3), dtype=np.uint8)),
        )
        for i in range(count)
    ]


def test_blocks_partition_the_layers(model):
    layers, blocks = units_of(model, SCHEME, "layer"), units_of(model, SCHEME, "block")
    assert sorted(path for paths in blocks.values() for path in paths) == sorted(layers)
    assert {"aggregator.frame_blocks.3", "aggregator.patch_embed.blocks.0"} <= set(blocks)
    assert len(blocks["aggregator.global_blocks.0"]) == 4
    assert block_of("aggregator.frame_blocks.11.attn.qkv") == "aggregator.frame_blocks.11"
    assert block_of("camera_head.pose_branch.fc1") == "camera_head.pose_branch"
    assert "depth_head.scratch" in blocks  # convolutions
    with pytest.raises(InputError, match="unknown kind"):
        units_of(model, SCHEME, "head")


def test_the_network_is_put_back_exactly(model):
    modules = dict(model.named_modules())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    paths = units_of(model, SCHEME, "block")["aggregator.frame_blocks.1"]
    with compressed(model, dict.fromkeys(paths, SCHEME)):
        assert sum(isinstance(m, QuantLinear) for m in model.modules()) == 4
    assert all(modules[name] is module for name, module in model.named_modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())

    def breaks(layer: nn.Module, path: str, scheme: Scheme) -> nn.Module:
        if path.endswith("fc1"):
            raise KeyboardInterrupt
        return rounded(layer, path, scheme)

    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with compressed(model, dict.fromkeys(paths, SCHEME), breaks):
            raise AssertionError("never gets here")
    assert all(modules[name] is module for name, module in model.named_modules())


def test_the_broken_unit_is_found(model):
    """A layer whose weights are turned around stands out, and coarser codes cost more."""
    victim = "aggregator.frame_blocks.2.mlp.fc1"

    def worse(layer: nn.Module, path: str, scheme: Scheme) -> nn.Module:
        packed = rounded(layer, path, scheme)
        if path == victim:
            packed.scale *= -30
        return packed

    found = scan(model, make_cases(), ("w8a8",), quantize=worse)
    assert found.ranked("layer", "w8a8")[0].unit == victim
    assert found.ranked("block", "w8a8", "depth")[0].unit == block_of(victim)
    plain = scan(model, make_cases(), ("w8a8", "w4a4"), kinds=("block",))
    means = [
        np.mean([one.mean("depth") for one in plain.of("block", name) if "aggregator" in one.unit])
        for name in ("w4a4", "w8a8")
    ]
    assert means[0] > 3 * means[1] > 0
    score = found.ranked("layer", "w8a8")[0]
    value = found.interval(score, "depth")
    assert value is not None and value.low <= value.mean <= value.high and value.sequences == 3
    assert any(victim in line for line in lines(found, "layer", "w8a8"))


def test_resumes_where_it_was_interrupted(model, tmp_path):
    file, seen = tmp_path / "s.json", []

    def interrupted(layer: nn.Module, path: str, scheme: Scheme) -> nn.Module:
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(path)
        return rounded(layer, path, scheme)

    with pytest.raises(KeyboardInterrupt):
        scan(model, make_cases(), kinds=("block",), file=file, quantize=interrupted)
    kept = read(file)
    assert 0 < len(kept.scores) < len(units_of(model, SCHEME, "block"))
    again: list[str] = []

    def counted(layer: nn.Module, path: str, scheme: Scheme) -> nn.Module:
        again.append(path)
        return rounded(layer, path, scheme)

    result = scan(model, make_cases(), kinds=("block",), file=file, quantize=counted)
    done = {path for one in kept.scores for path in one.layers}
    assert not done & set(again)
    assert result == scan(model, make_cases(), kinds=("block",)) == read(file)
    with pytest.raises(InputError, match="other scenes"):
        scan(model, make_cases(seed=1), kinds=("block",), file=file)
    other = initialize(VGGT(CONFIG), seed=4).eval()
    with pytest.raises(InputError, match="other model"):
        scan(other, make_cases(), kinds=("block",), file=file)
    file.write_text("{}")
    with pytest.raises(InputError, match="no sensitivities"):
        scan(model, make_cases(), kinds=("block",), file=file)


def test_what_cannot_be_scored(model):
    with pytest.raises(InputError, match="no scenes"):
        scan(model, [])
    with pytest.raises(InputError, match="same name"):
        scan(model, make_cases() + make_cases())
    with pytest.raises(InputError, match="unknown: score it against the teacher"):
        scan(model, make_cases(), against="truth")
    with pytest.raises(RecipeError, match="costs nothing"):
        scan(model, make_cases(), ("float",))
    packed = initialize(VGGT(CONFIG), seed=3)
    compress(packed, "w8a8", method="nearest")
    with pytest.raises(RecipeError, match="float network"):
        scan(packed, make_cases())


def test_losses(model):
    case = make_cases(count=1)[0]
    prediction = predict(model, case.views)
    target = target_of(prediction)
    assert max(losses(prediction, target).values()) < 1e-3
    scaled = dataclasses.replace(prediction, depth=prediction.depth * 3)
    assert losses(scaled, target)["depth"] == pytest.approx(0, abs=1e-3)
    off = dataclasses.replace(
        prediction, depth=prediction.depth * np.array([1, 1.2])[:, None, None]
    )
    assert losses(off, target)["depth"] > 5
    # Six degrees between two views, whose baseline is nothing: a fifth of 30.
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    turned = poses.copy()
    c, s = np.cos(np.radians(6)), np.sin(np.radians(6))
    turned[1, :, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    turned[1, :, 3] = [1e-4, 0, 0]
    depth = np.ones((2, 28, 42), np.float32)
    still = Target(poses, depth, None, np.ones(depth.shape, bool))
    cameras = dataclasses.replace(prediction.cameras, camera_from_world=turned)
    found = losses(dataclasses.replace(prediction, cameras=cameras), still)
    assert found["pose"] == pytest.approx(20)
    assert found["pose_fine"] == 100
    # With a baseline its direction counts.
    poses[1, :, 3], turned[1, :, 3] = [1, 0, 0], [0, 1, 0]
    assert losses(dataclasses.replace(prediction, cameras=cameras), still)["pose"] == 100


def test_worlds_have_truth(model):
    cases = world_cases(2, 2, 28)
    assert len({case.name for case in cases}) == 2
    judge = Judge(model, cases, "truth")
    assert all(max(abs(v) for v in row.values()) == 0 for row in judge.drops(model).values())
    truth = cases[0].truth
    assert np.allclose(truth.camera_from_world[0], np.eye(3, 4), atol=1e-6)
    assert truth.points.shape == (2, 28, 28, 3)
    again = world_cases(2, 2, 28)
    assert np.array_equal(again[1].views.images, cases[1].views.images)


def test_folders(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    for scene in ("one", "two"):
        for i in range(3):
            (tmp_path / "set" / scene).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / scene / f"{i}.png")
    inner = folder_cases(tmp_path / "set", 5, 2, 56)
    assert [case.name for case in inner] == ["set/one", "set/two"]
    assert {case.group for case in inner} == {"set"} and len(inner[0].views) == 2
    flat = folder_cases(tmp_path / "set" / "one", 5, 2, 56)
    assert [len(case.views) for case in flat] == [2]
    with pytest.raises(ImageError, match="no such folder"):
        folder_cases(tmp_path / "none", 5, 2, 56)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="too few"):
        folder_cases(tmp_path / "empty", 5, 2, 56)


def made_up(columns: dict[str, list[float]]) -> Sensitivity:
    """Sets whose units cost what is given, one scene a set."""
    cases = {f"{group}/0": group for group in columns}
    count = len(next(iter(columns.values())))
    scores = tuple(
        Score(f"layer.{i}", "layer", "w8a8", (f"layer.{i}",),
              {f"{group}/0": {"depth": values[i]} for group, values in columns.items()})
        for i in range(count)
    )  # fmt: skip
    return Sensitivity(
        "x", "teacher", cases, dict.fromkeys(cases, 2), dict.fromkeys(cases, 0), scores
    )


def test_agreement_as_scipy():
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, 12).astype(float), random.normal(size=12)
    found = made_up({"a": list(a), "b": list(b)}).agreement("layer", "w8a8", "depth")
    assert found["a", "b"] == pytest.approx(spearmanr(a, b).statistic)
    same = made_up({"a": list(b), "b": list(3 * b)}).agreement("layer", "w8a8", "depth")
    assert same["a", "b"] == pytest.approx(1)


def test_plot_and_command(model, tmp_path, monkeypatch, capsys):
    import json
    import sys

    from vggt_edge import cli

    file = weights.save(model, tmp_path / "float.safetensors")
    out = tmp_path / "out"
    command = ["vggt-edge", "sensitivity", str(file), "--worlds", "2", "--views", "2", "--size"]
    command += [
        "28",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "-o",
        str(out),
        "--json",
        "--units",
        "blocks",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    text = capsys.readouterr().out
    assert "w4a8-g32, blocks, most fragile first" in text
    data = json.loads(text.splitlines()[-1])
    assert len(data["scores"]) == len(units_of(model, SCHEME, "block"))
    assert (out / "sensitivity_w4a8-g32.png").read_bytes()[:4] == b"\x89PNG"
    assert len(read(out / "sensitivity.json").scores) == len(data["scores"])
    monkeypatch.setattr(sys, "argv", [*command, "--images", str(tmp_path), "--against", "truth"])
    with pytest.raises(SystemExit) as failed:
        cli.main()
    assert failed.value.code == 2
    assert "truth of pictures is unknown" in capsys.readouterr().err
