"""``vggt-edge train`` with recordings and a teacher, end to end."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from PIL import Image

from vggt_edge import geometry
from vggt_edge.cli import main
from vggt_edge.model.config import PRESETS
from vggt_edge.model.vggt import VGGT
from vggt_edge.train import trainer
from vggt_edge.train.curriculum import Stage
from vggt_edge.train.initialize import initialize
from vggt_edge.train.validate import validate
from vggt_edge.weights import save
from vggt_edge.worlds import KINDS, render

CONFIG = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"), image_size=84)
STAGES = (Stage(10**9, (2,), (42**2,), 2 * 42**2, (0.8, 1.0), 0.5),)


@pytest.fixture
def train(monkeypatch, capsys):
    """Runs the command on a tiny network; returns exit code, output and errors."""
    monkeypatch.setitem(PRESETS, "pocket", CONFIG)
    monkeypatch.setattr(trainer.Trainer.__init__, "__defaults__", (STAGES, None))
    quick = {"scenes": 1, "views": 2, "size": 42}
    monkeypatch.setattr(
        "vggt_edge.train.loop.validate", lambda model, kinds: validate(model, kinds=kinds, **quick)
    )

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["vggt-edge", "train", *map(str, arguments), "--device", "cpu", "--workers", "0"]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("posed")
    world = render(2, 1, 3, 56, 70, kinds=("room",), augment=False)
    frames = []
    for index in range(3):
        pixels = (world.images[0, index].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        counts = (world.depth[0, index].numpy() * 1000).astype(np.uint16)
        Image.fromarray(counts).save(folder / f"{index}-depth.png")
        pose = geometry.invert_rigid(world.camera_from_world[0, index].double().numpy())
        frames.append(
            {
                "image": f"{index}.png",
                "depth": f"{index}-depth.png",
                "w": 70,
                "h": 56,
                "K": world.intrinsics[0, index].tolist(),
                "c2w": [*pose.tolist(), [0, 0, 0, 1]],
            }
        )
    (folder / "cameras.json").write_text(json.dumps({"depth_unit_m": 0.001, "frames": frames}))
    return folder


def test_recordings_and_a_teacher_take_their_shares(train, recording, tmp_path):
    teacher = save(initialize(VGGT(CONFIG), 3), tmp_path / "teacher.safetensors")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in recording.glob("?.png"):
        (pictures / path.name).write_bytes(path.read_bytes())
    words = [tmp_path / "run", "--accumulate", 2, "--hold-out", "room,table", "--snapshots", 60]
    words += ["--data", recording, "--data-share", 0.5, "--every", 2]
    words += ["--teacher", teacher, "--pictures", pictures, "--pictures-share", 0.5]
    code, out, err = train(*words, "--steps", 2, "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["step"] == 2
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    config = state["config"]
    assert (config["data"], config["pictures"], config["accumulate"]) == (0.5, 0.5, 2)
    assert config["kinds"] == tuple(kind for kind in KINDS if kind not in ("room", "table"))
    assert state["sources"].keys() == {"data", "pictures"}
    assert (tmp_path / "run" / "snapshot" / "snapshot.json").exists()
    # The same command goes on; another share does not.
    code, out, _ = train(*words, "--steps", 3)
    assert code == 0 and "resumed at step 2" in out
    code, _, err = train(*words, "--data-share", 0.1, "--steps", 4)
    assert code == 1 and "was drawn with data 0.5, not 0.1" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--teacher", "pocket"), "--pictures need each other"),
        (("--hold-out", "moon"), "--hold-out moon: choose from"),
        (("--hold-out", ",".join(KINDS)), "leaves no kind"),
        (("--data", "absent"), "absent does not exist"),
        (("--data", ".", "--layout", "lunar"), "no dataset is called lunar"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_run(train, tmp_path, words, named):
    code, out, err = train(tmp_path / "run", *words)
    assert code == 2 and named in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_shares_above_one_are_refused(train, recording, tmp_path):
    teacher = save(initialize(VGGT(CONFIG), 3), tmp_path / "teacher.safetensors")
    words = ("--data", recording, "--data-share", 0.7, "--teacher", teacher)
    code, _, err = train(tmp_path / "run", *words, "--pictures", recording, "--pictures-share", 0.4)
    assert code == 2 and "more than 1 together" in err
