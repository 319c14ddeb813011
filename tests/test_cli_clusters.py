"""Clusters and metres from the command line, as a user runs them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_CONFIG
from PIL import Image

import vggt_edge as ve
from vggt_edge import cli
from vggt_edge.cli import clusters
from vggt_edge.cli.clusters import cluster_size
from vggt_edge.errors import InputError
from vggt_edge.model.vggt import VGGT
from vggt_edge.outputs import npz
from vggt_edge.scene import reconstruct as reconstruction
from vggt_edge.train.initialize import initialize

VIEWS = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    return ve.save(initialize(VGGT(config), seed=1), path)


@pytest.fixture
def pictures(tmp_path):
    """Overlapping pieces of one long picture, whose GPS walks north 20 m a piece."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    long = np.array(Image.fromarray(rng.integers(0, 255, (6, 48, 3), np.uint8)).resize((768, 96)))
    for i in range(VIEWS):
        exif = Image.Exif()
        exif.get_ifd(0x8825).update(
            {1: "N", 2: (55.0, 41.0, 20 * i / 30.9), 3: "E", 4: (13.0, 0.0, 0.0)}
        )
        Image.fromarray(long[:, 60 * i : 60 * i + 128]).save(folder / f"{i}.jpg", exif=exif)
    return folder


@pytest.fixture
def run(weights, tmp_path, monkeypatch, capsys):
    def run(*arguments) -> tuple[dict, str]:
        given = ("reconstruct", "-m", weights, "-o", tmp_path / "out", "--size", 56, *arguments)
        monkeypatch.setattr(sys, "argv", ["vggt-edge", *map(str, (*given, "--json"))])
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code:
                raise
        printed = capsys.readouterr()
        return json.loads(printed.out.splitlines()[-1]), printed.err

    return run


def test_clusters_are_written_as_scenes_and_found_again(run, pictures, tmp_path):
    data, _ = run(pictures, "--cluster-size", 5, "--keep-outliers", "-f", "npz")
    assert data["retrieval"] == "tokens" and data["left_out"] == {}
    assert sum(data["parts"]) == VIEWS
    files = sorted((tmp_path / "out").rglob("scene.npz"))
    assert sorted(map(str, files)) == sorted(data["outputs"].values())
    assert sorted(len(npz.read(file).views) for file in files) == sorted(data["parts"])
    passes = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/clusters").iterdir()}
    assert len(passes) >= 2
    again, _ = run(pictures, "--cluster-size", 5, "--keep-outliers", "-f", "npz")
    assert again["points"] == data["points"]
    assert passes == {f: f.stat().st_mtime_ns for f in (tmp_path / "out/clusters").iterdir()}


def test_gps_that_the_cameras_contradict_is_a_warning(run, pictures, tmp_path):
    data, told = run(pictures, "--georeference", "-f", "npz")
    assert "not in metres: only" in told and data["units"] == ["arbitrary"]
    assert not (tmp_path / "out/georeference.json").exists()
    assert npz.read(tmp_path / "out/scene.npz").units == "arbitrary"


def test_a_scene_in_metres_says_where_it_is(run, pictures, tmp_path, monkeypatch):
    """Cameras that do walk as GPS says; random weights would not."""

    def walking(model, views, **options):
        prediction = ve.predict(model, views, heads=("camera", "depth"))
        poses = np.tile(np.eye(3, 4), (len(views), 1, 1))
        poses[:, 2, 3] = -np.arange(len(views))
        cameras = dataclasses.replace(prediction.cameras, camera_from_world=poses)
        return dataclasses.replace(prediction, cameras=cameras)

    monkeypatch.setattr(reconstruction, "predict", walking)
    data, _ = run(pictures, "--georeference", "-f", "npz")
    assert data["units"] == ["metres"]
    told = json.loads((tmp_path / "out/georeference.json").read_text())
    scene = npz.read(tmp_path / "out/scene.npz")
    assert scene.units == "metres"
    steps = np.diff(scene.cameras.centers, axis=0)
    assert np.allclose(np.linalg.norm(steps, axis=1), 20, rtol=0.02), "20 m a picture"
    matrix = np.array(told["enu_from_world"])
    assert np.allclose(steps @ matrix[:3, :3].T, [0, 20, 0], atol=0.5), "to the north"
    assert told["inliers"] == VIEWS and 55.68 < told["origin"]["latitude"] < 55.69


def test_what_cannot_be_adjusted_is_written_as_it_was(run, pictures, tmp_path):
    for path in pictures.iterdir():
        Image.new("RGB", (128, 96), (90, 90, 90)).save(path)
    _, told = run(pictures, "--bundle-adjust", "-f", "npz")
    assert "not adjusted: bundle adjustment needs points that two images see" in told
    assert (tmp_path / "out/scene.npz").exists()


def test_pictures_without_gps_are_refused_before_the_work(run, pictures, tmp_path, capsys):
    for path in pictures.iterdir():
        Image.open(path).save(path)
    with pytest.raises(SystemExit) as stop:
        run(pictures, "--georeference")
    assert stop.value.code == 2
    assert "0 of 10 pictures have a GPS position" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "bad",
    [
        ("--cluster-size", 5, "--clusters", 2),
        ("--cluster-size", 2),
        ("--cluster-size", 5, "--stream"),
        ("--cluster-size", 5, "--point-head"),
        ("--georeference", "--stream"),
        ("--bundle-adjust", "--stream"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(run, pictures, bad):
    with pytest.raises(SystemExit) as stop:
        run(pictures, *bad)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("--clusters=2", "scipy", "clusters"), ("--bundle-adjust", "pycolmap", "bundle")],
)
def test_a_package_that_is_missing_is_said_before_the_work(
    run, pictures, monkeypatch, capsys, option, package, extra
):
    monkeypatch.setattr(clusters, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(SystemExit) as stop:
        run(pictures, option)
    assert stop.value.code == 1
    assert f"pip install 'vggt-edge[{extra}]'" in capsys.readouterr().err


def test_sizes_of_clusters():
    assert cluster_size(100, None, None) is None
    assert cluster_size(100, None, 50) == (50, 10)
    assert cluster_size(100, 1, None) == (100, 20)
    assert cluster_size(1000, 10, None) == (125, 25)
    with pytest.raises(InputError, match="not both"):
        cluster_size(100, 2, 50)


def test_known_cameras_give_place_and_scale(run, pictures, tmp_path):
    """A scene's own cameras, moved: where it is written moved, from the command line."""
    data, _ = run(pictures, "-f", "npz,transforms")
    before = npz.read(data["outputs"]["npz"])
    tree = json.loads(Path(data["outputs"]["transforms"]).read_text())
    for frame in tree["frames"]:
        frame["transform_matrix"] = np.array(frame["transform_matrix"])
        frame["transform_matrix"][:3, 3] *= 20
        frame["transform_matrix"] = frame["transform_matrix"].tolist()
        frame["file_path"] = f"elsewhere/{Path(frame['file_path']).stem}.png"
    known = tmp_path / "known.json"
    known.write_text(json.dumps(tree))
    data, told = run(pictures, "-f", "npz", "--known-cameras", known)
    after = npz.read(data["outputs"]["npz"])
    assert data["units"] == ["arbitrary"] and "not moved" not in told
    steps = [np.linalg.norm(np.diff(s.cameras.centers, axis=0), axis=1) for s in (before, after)]
    assert np.allclose(steps[1], 20 * steps[0], rtol=1e-3, atol=1e-4 * steps[1].max())
    assert np.allclose(after.prediction.depth, 20 * before.prediction.depth, rtol=1e-3)


def test_known_cameras_of_others_are_refused_before_the_work(run, pictures, tmp_path, capsys):
    known = tmp_path / "transforms.json"
    frame = {"file_path": "other.png", "transform_matrix": np.eye(4).tolist()}
    known.write_text(json.dumps({"frames": [frame]}))
    for more, words in (((), "0 of its 1 cameras"), (("--stream",), "does not go with --stream")):
        with pytest.raises(SystemExit):
            run(pictures, "--known-cameras", known, *more)
        assert words in capsys.readouterr().err
