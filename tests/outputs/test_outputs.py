from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from known_scene import make_scene, with_pictures
from PIL import Image

import vggt_edge
from vggt_edge import outputs
from vggt_edge.errors import ImageError, OutputError
from vggt_edge.scene.full_resolution import full_resolution
from vggt_edge.scene.tracks import build_sparse_model

OWN = ("glb", "ply", "html", "transforms", "npz", "depth", "exr", "rerun")


def test_every_format_is_written_where_it_says(tmp_path):
    scene = with_pictures(make_scene(), tmp_path / "photos")
    written = outputs.write(scene, tmp_path / "out", OWN)
    assert tuple(written) == OWN and all(path.exists() for path in written.values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("depth", "images", "scene.glb", "scene.html", "scene.npz", "scene.ply", "scene.rrd"),
        "transforms.json",
    ]
    frames = json.loads(written["transforms"].read_text("utf-8"))
    assert len(trimesh.load(tmp_path / "out" / frames["ply_file_path"]).vertices) == len(
        scene.points
    )
    assert written["depth"].parent == written["exr"]
    assert not list(tmp_path.rglob("*partial*"))


def test_full_resolution_depth_has_the_size_of_the_pictures(tmp_path):
    scene = make_scene()
    written = outputs.write(scene, tmp_path, ("depth", "exr"), full_resolution=full_resolution)
    sidecar = json.loads(written["depth"].read_text("utf-8"))
    for i, view in enumerate(sidecar["views"]):
        with Image.open(written["depth"].parent / view["file"]) as image:
            assert image.size == (64, 36) == (view["width"], view["height"])
            counts = np.asarray(image)
        truth = full_resolution(scene.prediction, i)
        np.testing.assert_array_equal(counts > 0, np.isfinite(truth.depth))
        with Image.open(written["depth"].parent / view["confidence"]) as image:
            ranks = np.asarray(image)
        np.testing.assert_array_equal(ranks > 0, counts > 0)
        order = np.argsort(truth.confidence[counts > 0])
        assert (np.diff(ranks[counts > 0][order].astype(int)) >= 0).all() and np.ptp(ranks) > 50000
        step = sidecar["units_per_count"]
        error = np.abs(counts * step - truth.depth)[counts > 0]
        assert error.max() <= step * 0.5001 and counts.max() > 10000
        np.testing.assert_allclose(view["intrinsics"], truth.intrinsics)


@pytest.mark.parametrize("formats", [("glb", "obj"), "obj"])
def test_an_unknown_format_is_bad_usage_and_writes_nothing(tmp_path, formats):
    with pytest.raises(OutputError, match=r"unknown format obj; known are glb, ply") as caught:
        outputs.write(make_scene(), tmp_path / "out", formats)
    assert caught.value.exit_code == 2 and OutputError.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_one_format_may_be_a_plain_string(tmp_path):
    assert outputs.write(make_scene(), tmp_path, "ply") == {"ply": tmp_path / "scene.ply"}


def test_colmap_needs_the_sparse_model(tmp_path):
    with pytest.raises(OutputError, match="build_sparse_model"):
        outputs.write(make_scene(), tmp_path, ("ply", "colmap"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("formats", "suffixes"),
    [
        (("colmap",), {".bin"}),
        (("colmap-text",), {".txt"}),
        (("colmap-text", "colmap"), {".bin", ".txt"}),
    ],
)
def test_colmap_as_text_from_the_public_write(tmp_path, formats, suffixes):
    pycolmap = pytest.importorskip("pycolmap")
    scene = with_pictures(make_scene(), tmp_path / "photos")
    written = vggt_edge.write(scene, tmp_path, formats)
    assert tuple(written) == formats and set(written.values()) == {tmp_path / "sparse" / "0"}
    assert {path.suffix for path in (tmp_path / "sparse" / "0").iterdir()} == suffixes
    names = {image.name for image in pycolmap.Reconstruction(written[formats[0]]).images.values()}
    assert names == set(os.listdir(tmp_path / "images")) and len(names) == 3


@pytest.mark.parametrize("last", ["colmap", "transforms"])
def test_a_lost_photo_costs_only_what_speaks_of_it(tmp_path, last):
    scene = with_pictures(make_scene(), tmp_path / "photos")
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    model = build_sparse_model(scene)
    with pytest.raises(ImageError, match="left"):
        outputs.write(scene, tmp_path, (last, "html", "ply", "depth", "glb"), sparse_model=model)
    for name in ("scene.html", "scene.ply", "scene.glb", "depth/depth.json"):
        assert (tmp_path / name).is_file(), name


def test_colmap_is_wired_to_its_writer(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    scene = with_pictures(make_scene(), tmp_path / "photos")
    flat = replace(scene.prediction, depth=np.full_like(scene.prediction.depth, 2.0))
    scene = replace(scene, prediction=flat)
    model = build_sparse_model(scene, depth_tolerance=1.0, max_error=1e3)
    folder = outputs.write(scene, tmp_path, ("colmap",), sparse_model=model)["colmap"]
    assert pycolmap.Reconstruction(folder).num_images() == 3


@pytest.mark.parametrize("name", OWN)
def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    scene = with_pictures(make_scene(), tmp_path / "photos")
    with pytest.raises(OutputError, match="file"):
        outputs.write(scene, tmp_path / "file" / "out", (name,))


@pytest.mark.parametrize("name", ["glb", "html", "transforms", "depth", "exr"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_json_is_never_written_with_nan(tmp_path, name, value):
    scene = make_scene()
    cameras = scene.cameras
    cameras.intrinsics[1, 0, 2] = value
    views = scene.views
    views = replace(views, sources=views.names, source_sizes=np.tile(views.size, (3, 1)))
    views = replace(views, source_from_view=np.tile(np.eye(3), (3, 1, 1)))
    scene = replace(scene, prediction=replace(scene.prediction, views=views))
    with pytest.raises(OutputError, match=r"NaN or infinite"), np.errstate(invalid="ignore"):
        outputs.write(scene, tmp_path, (name,))
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("scene.*"))


def test_formats_that_need_cameras_say_so(tmp_path):
    scene = make_scene()
    bare = replace(scene, prediction=replace(scene.prediction, cameras=None))
    with pytest.raises(OutputError, match="heads="):
        outputs.write(bare, tmp_path, ("rerun",))
    outputs.write(bare, tmp_path, ("glb", "ply", "npz", "depth"))
    assert len(trimesh.load(tmp_path / "scene.glb").geometry) == 1


@pytest.mark.parametrize("name", OWN)
def test_a_full_disk_is_an_output_error_and_leaves_nothing_half_written(
    tmp_path, name, monkeypatch
):
    """The kernel refuses to let files of this process grow, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    scene = with_pictures(make_scene(), tmp_path / "photos")
    outputs.write(scene, tmp_path / "warm", (name,))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        with pytest.raises(OutputError, match=r"too large|No space|write"):
            outputs.write(scene, tmp_path / "full", (name,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]


def test_importing_outputs_loads_no_optional_package():
    code = (
        "import sys, vggt_edge.outputs; "
        "print({'rerun', 'OpenEXR', 'PIL', 'torch'} & {m.split('.')[0] for m in sys.modules})"
    )
    root = Path(outputs.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
