"""Attention modes and streaming from the command line, as a user runs them."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import TINY_CONFIG
from PIL import Image

import vggt_edge as ve
from vggt_edge import cli
from vggt_edge.model.vggt import VGGT
from vggt_edge.outputs import npz
from vggt_edge.outputs.frames import MANIFEST, read_stream
from vggt_edge.train.initialize import initialize

VIEWS = 7


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    model = initialize(VGGT(config), seed=1)
    for block in model.aggregator.global_blocks:
        block.ls1.gamma.data.fill_(1.0)
    return ve.save(model, path)


def save_picture(folder, i: int) -> None:
    pixels = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(folder / f"{i}.png")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(VIEWS):
        save_picture(folder, i)
    return folder


@pytest.fixture
def reconstruct(weights, tmp_path, monkeypatch, capsys):
    def run(*arguments) -> dict:
        given = ("reconstruct", "-m", weights, "-o", tmp_path / "out", "--size", 56, *arguments)
        monkeypatch.setattr(sys, "argv", ["vggt-edge", *map(str, (*given, "--json"))])
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code:
                pytest.fail(capsys.readouterr().err)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("auto", "anchors"), ("anchors", "anchors"), ("covisible", "covisible"), ("dense", "dense")],
)
def test_attention_modes(reconstruct, pictures, mode, kind):
    data = reconstruct(pictures, "-f", "ply", "--attention", mode, "--anchors", 3)
    assert data["attention"] == kind and data["views"] == VIEWS and data["points"] > 0
    assert data["retrieval"] == (None if mode == "dense" else "tokens")


def test_small_sets_stay_dense_by_default(reconstruct, pictures):
    assert reconstruct(pictures, "-f", "ply")["attention"] == "dense"


def test_a_stream_is_what_one_pass_gives(reconstruct, pictures, tmp_path):
    data = reconstruct(pictures, "--stream", "--anchors", 3, "--dtype", "float32")
    assert (data["views"], data["new"], data["points"]) == (VIEWS, VIEWS, None)
    assert data["outputs"] == {"stream": str(tmp_path / "out" / MANIFEST)}
    streamed = read_stream(tmp_path / "out")
    options = ("--attention", "anchors", "--anchors", 3, "--dtype", "float32")
    data = reconstruct(pictures, "-f", "npz", *options)
    whole = npz.read(data["outputs"]["npz"]).prediction
    assert streamed.views.names == whole.views.names
    assert np.allclose(streamed.depth, whole.depth, rtol=1e-5)
    ours, theirs = streamed.cameras.camera_from_world, whole.cameras.camera_from_world
    assert np.allclose(ours, theirs, atol=1e-5)


def test_a_stream_goes_on_and_can_end_in_files(reconstruct, pictures, tmp_path):
    reconstruct(pictures, "--stream", "--anchors", 3)
    save_picture(pictures, VIEWS)
    data = reconstruct(pictures, "--stream", "--anchors", 3, "-f", "ply")
    assert (data["views"], data["new"]) == (VIEWS + 1, 1)
    assert data["points"] > 0 and (tmp_path / "out" / "scene.ply").exists()


def test_a_growing_folder(reconstruct, pictures, tmp_path):
    def later():
        time.sleep(1.0)
        save_picture(pictures, VIEWS)

    thread = threading.Thread(target=later)
    thread.start()
    data = reconstruct(pictures, "--watch", 3, "--anchors", 2)
    thread.join()
    assert (data["views"], data["new"]) == (VIEWS + 1, VIEWS + 1)
    assert read_stream(tmp_path / "out").views.names == tuple(map(str, range(VIEWS + 1)))
    again = reconstruct(pictures, "--watch", 1, "--anchors", 2)
    assert (again["views"], again["new"]) == (VIEWS + 1, 0)
    assert (again["width"], again["height"]) == (56, 42)


def test_killed_in_the_middle_it_goes_on(weights, pictures, tmp_path, reconstruct):
    """A kill -9 of the real command as soon as the first views are there."""
    for i in range(VIEWS, 40):
        save_picture(pictures, i)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vggt_edge", "reconstruct", pictures, "-m", weights]
    command += ["-o", out, "--size", "56", "--stream", "--anchors", "3"]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    while not (out / MANIFEST).exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len((out / MANIFEST).read_text().splitlines()) - 1
    assert before >= 3
    data = reconstruct(pictures, "--stream", "--anchors", 3)
    assert (data["views"], data["new"]) == (40, 40 - before)
    assert read_stream(out).views.names == tuple(map(str, range(40)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attention", "sparse"), "unknown attention mode 'sparse'"),
        (("--retrieval", "wings"), "unknown retrieval 'wings': use tokens, megaloc"),
        (("--stream", "--attention", "dense"), "--stream needs --attention anchors"),
        (("--watch", "0.5"), "--watch needs at least 1 second"),
        (("--watch", "1", "--limit", "3"), "--watch takes one folder or video and no --limit"),
        (("--watch", "1", "--fps", "3"), "--fps and --every are for videos"),
        (("--watch", "1", "--every", "3"), "--fps and --every are for videos"),
        (("--keep-outliers",), "--keep-outliers needs --clusters or --cluster-size: add one"),
        (("--no-verify",), "--no-verify needs --clusters or --cluster-size: add one"),
    ],
)
def test_bad_options(pictures, weights, tmp_path, monkeypatch, capsys, arguments, message):
    given = ["vggt-edge", "reconstruct", str(pictures), "-m", str(weights), *arguments]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
