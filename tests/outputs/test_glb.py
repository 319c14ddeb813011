from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from known_scene import make_scene

from vggt_edge import geometry
from vggt_edge.errors import OutputError
from vggt_edge.outputs import glb


def chunks(path):
    data = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    assert kind == b"BIN\0" and 28 + length + size == len(data)
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def srgb_from_linear(linear):
    linear = linear / 255.0
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_points_land_where_they_should_y_up(tmp_path):
    scene = make_scene()
    loaded = trimesh.load(glb.write(scene, tmp_path / "scene.glb"))
    transform, name = loaded.graph["points"]
    cloud = trimesh.transform_points(loaded.geometry[name].vertices, transform)
    np.testing.assert_array_equal(cloud, scene.points * [1, -1, -1])


def test_colours_are_linear_light(tmp_path):
    scene = make_scene()
    loaded = trimesh.load(glb.write(scene, tmp_path / "scene.glb"))
    colors = np.asarray(loaded.geometry[loaded.graph["points"][1]].colors)
    assert (colors[:, 3] == 255).all()
    error = np.abs(srgb_from_linear(colors[:, :3].astype(float)) - scene.colors)
    assert error.max() < 7.5 and error.mean() < 0.75
    assert glb.linear_from_srgb(np.array([0, 188, 255], np.uint8)).tolist() == [0, 128, 255]


def test_cameras_stand_and_look_right(tmp_path):
    """A point of each camera's axis and a corner of its picture, through the tree of the file."""
    scene = make_scene()
    path = glb.write(scene, tmp_path / "scene.glb", frustum_size=0.5)
    loaded, (tree, _) = trimesh.load(path), chunks(path)
    nodes = {node["name"]: node for node in tree["nodes"]}
    source = scene.prediction.source_cameras
    for i, name in enumerate(scene.views.names):
        pose, _ = loaded.graph[name]
        center = scene.cameras.centers[i]
        np.testing.assert_allclose(pose[:3, 3], center * [1, -1, -1], atol=1e-6)
        ahead = geometry.transform(scene.cameras.world_from_camera[i], np.array([[0, 0, 2.0]]))
        got = (pose @ [0, 0, -2, 1])[:3]
        np.testing.assert_allclose(got, ahead[0] * [1, -1, -1], atol=1e-6)

        pose, mesh = loaded.graph[f"{name} frustum"]
        frustum = trimesh.transform_points(loaded.geometry[mesh].vertices, pose) * [1, -1, -1]
        seen = geometry.project(frustum, source.intrinsics[i], source.camera_from_world[i])
        for corner in ([-0.5, -0.5], [63.5, -0.5], [63.5, 35.5], [-0.5, 35.5], [31.5, -7.7]):
            distance = np.abs(seen - [*corner, 0.5]).max(axis=1).min()
            assert distance < 1e-4, corner

        camera = tree["cameras"][nodes[name]["camera"]]["perspective"]
        k = source.intrinsics[i]
        assert np.tan(camera["yfov"] / 2) == pytest.approx(36 / 2 / k[1, 1])
        across = np.tan(camera["yfov"] / 2) * camera["aspectRatio"]
        assert across == pytest.approx(64 / 2 / k[0, 0])
        assert nodes[name]["extras"]["cx"] == k[0, 2] and nodes[name]["extras"]["width"] == 64


def test_the_binary_layout_is_aligned_and_bounded(tmp_path):
    scene = make_scene()
    tree, binary = chunks(glb.write(scene, tmp_path / "scene.glb"))
    assert tree["buffers"][0]["byteLength"] == len(binary)
    end = 0
    for view in tree["bufferViews"]:
        assert view["byteOffset"] == end and end % 4 == 0
        end += view["byteLength"]
    assert end == len(binary)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    points = np.frombuffer(binary, "<f4", 3 * accessor["count"], start).reshape(-1, 3)
    assert accessor["min"] == points.min(0).tolist() and accessor["max"] == points.max(0).tolist()
    assert len({node["name"] for node in tree["nodes"]}) == len(tree["nodes"]) == 7


def test_no_points_and_one_camera(tmp_path):
    scene = make_scene()
    bare = replace(scene, points=np.full_like(scene.points, np.nan))
    tree, _ = chunks(glb.write(bare, tmp_path / "scene.glb"))
    roots = [tree["nodes"][i]["name"] for i in tree["scenes"][0]["nodes"]]
    assert roots == list(scene.views.names)
    loaded = trimesh.load(tmp_path / "scene.glb")
    assert len(loaded.geometry) == 3


def test_more_than_a_glb_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(glb, "_MOST_BYTES", 1000)
    with pytest.raises(OutputError, match="max_points"):
        glb.write(make_scene(), tmp_path / "scene.glb")
    assert list(tmp_path.iterdir()) == []
