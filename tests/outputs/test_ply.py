from __future__ import annotations

from dataclasses import replace

import numpy as np
import plyfile
import trimesh
from known_scene import make_scene

from vggt_edge.outputs import ply


def test_plyfile_reads_every_property_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(ply, "_CHUNK", 100)
    scene = make_scene("metres")
    data = plyfile.PlyData.read(ply.write(scene, tmp_path / "scene.ply"))
    vertex = data["vertex"]
    assert not data.text and data.byte_order == "<"
    assert "units metres" in data.comments
    np.testing.assert_array_equal(np.stack([vertex[c] for c in "xyz"], 1), scene.points)
    colors = np.stack([vertex[c] for c in ("red", "green", "blue")], 1)
    np.testing.assert_array_equal(colors, scene.colors)
    np.testing.assert_array_equal(vertex["confidence"], scene.confidence)
    np.testing.assert_array_equal(vertex["view_index"], scene.view_index)


def test_trimesh_sees_a_coloured_cloud(tmp_path):
    scene = make_scene()
    cloud = trimesh.load(ply.write(scene, tmp_path / "scene.ply"))
    np.testing.assert_array_equal(cloud.vertices, scene.points)
    np.testing.assert_array_equal(cloud.colors[:, :3], scene.colors)


def test_no_points_is_a_valid_file(tmp_path):
    scene = make_scene()
    none = {name: getattr(scene, name)[:0] for name in ("points", "colors", "confidence")}
    empty = replace(scene, **none, view_index=scene.view_index[:0], pixel=scene.pixel[:0])
    assert len(plyfile.PlyData.read(ply.write(empty, tmp_path / "scene.ply"))["vertex"]) == 0
