"""A scene laid onto cameras that are known, from each file that may hold them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_scene

import vggt_edge as ve
from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.known_cameras import read_known_cameras
from vggt_edge.geometry import Similarity
from vggt_edge.scene.georeference import moved
from vggt_edge.scene.known_cameras import KnownCameras, align_to_known, match
from vggt_edge.scene.sim3 import rotation_of
from vggt_edge.types import Scene

WORLD = Similarity(3.7, rotation_of(np.array([0.4, -1.1, 0.3])), np.array([5.0, -2, 9]))
OPENGL_AXES = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module")
def truth() -> Scene:
    """A scene in a world and at a scale of its own, from files of which two share their name."""
    scene = moved(make_scene(views=6), WORLD)
    sources = ("/p/left/a.jpg", "/p/right/a.jpg", *(f"/p/left/{i}.jpg" for i in range(4)))
    views = replace(scene.views, sources=sources)
    return replace(scene, prediction=replace(scene.prediction, views=views))


def back(truth: Scene) -> Scene:
    """The scene as a network gives it: in its first camera's frame, at no known scale."""
    first = truth.cameras.camera_from_world[0]
    local = Similarity(0.21, first[:, :3], 0.21 * first[:, 3])
    return moved(truth, local, "arbitrary")


def write_transforms(path, truth: Scene, order, names) -> None:
    frames = [
        {
            "file_path": names[i],
            "transform_matrix": (
                np.vstack([truth.cameras.world_from_camera[i], [0, 0, 0, 1]]) @ OPENGL_AXES
            ).tolist(),
        }
        for i in order
    ]
    path.write_text(json.dumps({"frames": frames}))


def write_cameras_json(path, truth: Scene, order, names) -> None:
    cameras = truth.cameras
    frames = [
        {
            "image": names[i],
            "h": int(cameras.sizes[i][0]),
            "w": int(cameras.sizes[i][1]),
            "K": cameras.intrinsics[i].tolist(),
            "c2w": np.vstack([cameras.world_from_camera[i], [0, 0, 0, 1]]).tolist(),
        }
        for i in order
    ]
    path.write_text(json.dumps({"metric": True, "frames": frames}))


def write_colmap(path, truth: Scene, order, names) -> None:
    """images.txt alone, of a camera with distortion: only the poses matter."""
    lines = []
    for number, i in enumerate(order, start=1):
        pose = truth.cameras.camera_from_world[i]
        x, y, z, w = geometry.matrix_to_quaternion(pose[:, :3])
        numbers = " ".join(map(repr, map(float, (w, x, y, z, *pose[:, 3]))))
        lines += [f"{number} {numbers} 1 {names[i]}", ""]
    path.mkdir(parents=True)
    (path / "images.txt").write_text("\n".join(lines) + "\n")
    (path / "cameras.txt").write_text("1 SIMPLE_RADIAL 70 56 60 35 28 0.1\n")


NAMES = ["left/a.png", "right/a.png", *(f"left/{i}.png" for i in range(4))]


@pytest.mark.parametrize("kind", ["transforms", "nerf", "cameras", "colmap"])
@pytest.mark.parametrize("count", [6, 3])
def test_a_moved_scene_comes_back(tmp_path, truth, kind, count):
    order = [4, 0, 2, 1, 5, 3][:count]
    path, units = tmp_path / "transforms.json", "arbitrary"
    if kind == "transforms":
        write_transforms(path, truth, order, [f"./images/{name}" for name in NAMES])
    elif kind == "nerf":
        write_transforms(path, truth, order, [name.removesuffix(".png") for name in NAMES])
    elif kind == "cameras":
        path, units = tmp_path / "cameras.json", "metres"
        write_cameras_json(path, truth, order, NAMES)
    else:
        path = tmp_path / "colmap"
        write_colmap(path / "sparse" / "0", truth, order, NAMES)
    given = back(truth)
    assert not np.allclose(given.points, truth.points, atol=0.5)
    found = ve.align_to_cameras(given, path)
    assert np.allclose(found.cameras.centers, truth.cameras.centers, atol=1e-4)
    poses = found.cameras.camera_from_world
    assert np.allclose(poses, truth.cameras.camera_from_world, atol=1e-4)
    assert np.allclose(found.points, truth.points, atol=1e-3)
    assert np.allclose(found.prediction.depth, truth.prediction.depth, rtol=1e-4)
    assert found.units == units
    if path.suffix == ".json":  # the folder will do
        assert read_known_cameras(tmp_path).names == read_known_cameras(path).names


def test_one_wrong_camera_does_not_matter(truth):
    poses = truth.cameras.camera_from_world.copy()
    poses[2, :, 3] += 8
    known = KnownCameras("x", tuple(NAMES), poses, "arbitrary")
    found = align_to_known(back(truth), known)
    assert np.allclose(found.cameras.centers, truth.cameras.centers, atol=0.05)


def test_frames_of_a_video_go_by_the_name_of_the_view(truth):
    count = len(truth.views)
    views = replace(
        truth.views,
        sources=tuple(f"/p/clip.mp4@{i}.00s" for i in range(count)),
        names=tuple(f"clip_{i:06d}" for i in range(count)),
    )
    names = tuple(f"images/clip_{i:06d}.png" for i in reversed(range(count)))
    known = KnownCameras("x", names, truth.cameras.camera_from_world[::-1], "arbitrary")
    ours, theirs = match(views, known)
    assert ours == list(range(count)) and theirs == ours[::-1]


def refused(scene: Scene, path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        ve.align_to_cameras(scene, path)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_one_line(tmp_path, truth):
    given, path = back(truth), tmp_path / "transforms.json"
    refused(given, path, "does not exist")
    refused(given, tmp_path, "holds no known cameras")
    write_transforms(path, truth, [0, 1], NAMES)
    refused(given, path, "2 of its 2 cameras belong to these 6 pictures .* alignment needs 3")
    write_transforms(path, truth, range(6), [f"other_{i}" for i in range(6)])
    refused(given, path, "0 of its 6 cameras .*other_0 there, /p/left/a.jpg here")
    write_transforms(path, truth, range(6), ["left/a"] * 6)
    refused(given, path, "several cameras or pictures are called")
    poses = np.repeat(truth.cameras.camera_from_world[:1], 6, axis=0)
    one_place = replace(truth.cameras, camera_from_world=poses)
    standing = replace(truth, prediction=replace(truth.prediction, cameras=one_place))
    write_transforms(path, standing, range(6), NAMES)
    refused(given, path, "transforms.json: the cameras are all in one place")
    path.write_text('{"frames": [{"file_path": "a", "transform_matrix": [[1]]}]}')
    refused(given, path, "not a transforms.json")
    path.write_text("[]")
    refused(given, path, "not a list of frames")
