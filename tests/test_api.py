from __future__ import annotations

import dataclasses

import pytest
from conftest import TINY_CONFIG
from PIL import Image
from synthetic import make_scene

from vggt_edge import api
from vggt_edge.errors import OutputError
from vggt_edge.model.config import PRESETS


def test_default_sizes():
    assert api.default_size(PRESETS["vggt-1b"]) == 518
    assert api.default_size(PRESETS["pocket"]) == 224
    odd = dataclasses.replace(TINY_CONFIG, image_size=70)
    assert api.default_size(odd) == 70


def test_write_finds_the_tracks_that_colmap_needs(tmp_path):
    scene = make_scene(views=3, source_scale=1)
    written = api.write(scene, tmp_path, ("colmap", "ply"))
    assert written == {"colmap": tmp_path / "sparse" / "0", "ply": tmp_path / "scene.ply"}
    assert (tmp_path / "sparse" / "0" / "points3D.bin").stat().st_size > 8


@pytest.mark.parametrize("full", [False, True])
def test_full_resolution_is_that_of_the_source_pictures(tmp_path, full):
    scene = make_scene(views=2, height=28, width=42, source_scale=2)
    written = api.write(scene, tmp_path, ("depth",), full_resolution=full)
    sizes = set()
    for path in written["depth"].parent.glob("*.png"):
        with Image.open(path) as image:
            sizes.add(image.size)
    assert sizes == {(84, 56) if full else (42, 28)}


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(OutputError, match="unknown format obj; known are glb"):
        api.write(make_scene(views=1), tmp_path / "out", ("ply", "obj"))
    assert not (tmp_path / "out").exists()
