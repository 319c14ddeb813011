from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge import geometry, pictures
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset, transforms

SHARED = Path("/work/shared/data/posed")


@pytest.fixture(scope="module")
def world():
    return make_world()


def matrix(world, i):
    """World from camera with OpenGL axes: the second and third columns change sign."""
    pose = np.vstack([world.cameras.world_from_camera[i], [0, 0, 0, 1]])
    pose[:3, 1:3] *= -1
    return pose.tolist()


def lens(world, i=0):
    k, (height, width) = world.cameras.intrinsics[i], world.cameras.sizes[i].tolist()
    names = ("fl_x", "fl_y", "cx", "cy")
    values = (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)
    return {**dict(zip(names, values, strict=True)), "w": width, "h": height}


def write(root, world, tree=None, per_frame=False, depth=False):
    """A nerfstudio scene; ``tree`` adds to the file."""
    frames = []
    for i, picture in enumerate(world.images):
        save(picture, root / "images" / f"frame_{i:05d}.png")
        frame = {
            "file_path": f"images/frame_{i:05d}.png",
            "transform_matrix": matrix(world, i),
            **(lens(world, i) if per_frame else {}),
        }
        if depth:
            frame["depth_file_path"] = f"depths/frame_{i:05d}.png"
            millimetres = np.rint(world.depth[i] * 1000).astype(np.uint16)
            millimetres[2, 3] = 0
            save(millimetres, root / frame["depth_file_path"])
        frames.append(frame)
    whole = {
        **({"fl_x": 1.0, "cx": 2.0} if per_frame else lens(world)),
        "frames": frames,
        **(tree or {}),
    }
    (root / "transforms.json").write_text(json.dumps(whole))
    return whole


@pytest.mark.parametrize("per_frame", [False, True])
def test_nerfstudio_scene(tmp_path, world, per_frame):
    tree = write(tmp_path / "garden", world, {"camera_model": "OPENCV"}, per_frame, depth=True)
    (recording,) = transforms.read(tmp_path / "garden", "all")
    assert recording.name == "garden" and recording.units == "arbitrary"
    assert_same_cameras(recording.cameras, world)
    assert_consistent(recording)
    assert recording.depth(0)[2, 3] == 0
    np.testing.assert_allclose(recording.depth(0)[9], world.depth[0][9], atol=6e-4)
    # nerfstudio's own rule: y up, looking along -z, pixels from the corner.
    points, camera = world.points[::53], lens(world)
    local = np.linalg.inv(tree["frames"][2]["transform_matrix"])
    x, y, z = (points @ local[:3, :3].T + local[:3, 3]).T
    corner = np.stack(
        [camera["fl_x"] * x / -z + camera["cx"], camera["fl_y"] * -y / -z + camera["cy"]], -1
    )
    k, pose = recording.cameras.intrinsics[2], recording.cameras.camera_from_world[2]
    mine = geometry.project(points, k, pose)
    np.testing.assert_allclose(mine[:, :2] + 0.5, corner, atol=1e-6)
    np.testing.assert_allclose(mine[:, 2], -z, atol=1e-9)


def test_splits_of_one_file(tmp_path, world):
    names = [f"images/frame_{i:05d}.png" for i in range(4)]
    write(tmp_path, world, {"train_filenames": names[1:], "test_filenames": names[:1]})
    (train,), (test,) = transforms.read(tmp_path, "train"), transforms.read(tmp_path, "test")
    assert (len(train), len(test)) == (3, 1)
    np.testing.assert_allclose(
        test.cameras.camera_from_world[0], world.cameras.camera_from_world[0], atol=1e-9
    )
    with pytest.raises(InputError, match=r"no transforms.json of the split val.*ns-process-data"):
        transforms.read(tmp_path, "val")


@pytest.fixture
def synthetic(tmp_path):
    """NeRF-synthetic: square RGBA renders, one angle, names without .png, three files."""
    k = np.array([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]])
    world = make_world(views=4, height=32, width=32, intrinsics=k)
    for split, views in {"train": (0, 1, 2), "val": (3,), "test": (1, 3)}.items():
        frames = []
        for number, i in enumerate(views):
            alpha = np.full((32, 32, 1), 255, np.uint8)
            alpha[:4] = 0
            rgba = np.concatenate([world.images[i], alpha], axis=-1)
            save(rgba, tmp_path / "lego" / split / f"r_{number}.png")
            frames.append(
                {
                    "file_path": f"./{split}/r_{number}",
                    "rotation": 0.01,
                    "transform_matrix": matrix(world, i),
                }
            )
        tree = {"camera_angle_x": 2 * np.arctan(0.5 * 32 / 40.0), "frames": frames}
        (tmp_path / "lego" / f"transforms_{split}.json").write_text(json.dumps(tree))
    return tmp_path, world


def test_nerf_synthetic(synthetic):
    root, world = synthetic
    (train,) = transforms.read(root / "lego", "train")
    assert train.name == "lego/train"
    np.testing.assert_allclose(train.cameras.intrinsics, world.cameras.intrinsics[:3])
    np.testing.assert_allclose(
        train.cameras.camera_from_world, world.cameras.camera_from_world[:3], atol=1e-9
    )
    names = [recording.name for recording in transforms.read(root, "all")]
    assert names == ["lego/train", "lego/val", "lego/test"]
    picture, _ = pictures.read(str(train.paths[0]))
    assert (np.asarray(picture)[:4] == 255).all()


def test_missing_pictures_are_left_out(tmp_path, world):
    write(tmp_path, world)
    (tmp_path / "images" / "frame_00001.png").unlink()
    (recording,) = transforms.read(tmp_path, "all")
    assert [path.name for path in recording.paths] == [f"frame_{i:05d}.png" for i in (0, 2, 3)]
    np.testing.assert_allclose(
        recording.cameras.camera_from_world[1], world.cameras.camera_from_world[2], atol=1e-9
    )
    for i in (0, 2, 3):
        (tmp_path / "images" / f"frame_{i:05d}.png").unlink()
    with pytest.raises(InputError, match="none of its 4 pictures is there"):
        transforms.read(tmp_path, "all")


def test_distortion_costs_the_depth_and_fisheyes_are_refused(tmp_path, world):
    write(tmp_path, world, {"k1": 0.05, "k2": 0.0}, depth=True)
    (recording,) = transforms.read(tmp_path, "all")
    assert recording.depth is None
    assert_same_cameras(recording.cameras, world)
    write(tmp_path, world, {"camera_model": "OPENCV_FISHEYE"})
    with pytest.raises(InputError, match="OPENCV_FISHEYE is not perspective; undistort"):
        transforms.read(tmp_path, "all")


def test_missing_root(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist.*transforms_train.json"):
        dataset("transforms").read(tmp_path / "nowhere", "all")


leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "camera_angle_x", "camera_model")
KEYS += ("transform_matrix", "file_path", "depth_file_path", "depth_unit_scale_factor", "frames")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KEYS), trees, st.booleans())
def test_odd_files_give_one_line_or_sound_cameras(tmp_path_factory, key, value, in_frame):
    root = tmp_path_factory.getbasetemp() / "odd_transforms"
    world = make_world(views=1, height=4, width=6)
    tree = write(root, world)
    (tree["frames"][0] if in_frame else tree)[key] = value
    (root / "transforms.json").write_text(json.dumps(tree))
    try:
        (recording,) = transforms.read(root, "all")
    except InputError as error:
        assert "\n" not in str(error) and "transforms.json" in str(error)
    else:
        assert np.isfinite(recording.cameras.intrinsics).all()
        assert np.isfinite(recording.cameras.camera_from_world).all()


@pytest.mark.parametrize("name", ["pose_instantngp_fox", "synth_nerf_lego"])
def test_real_scene(tmp_path, name):
    """Real pictures and poses, put back into the layout they were published in."""
    source = SHARED / name
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    given = json.loads((source / "cameras.json").read_text())
    shown = given["frames"][:8]
    (tmp_path / "images").symlink_to(source / "images")
    frames = []
    for frame in shown:
        pose = np.array(frame["c2w"])
        pose[:3, 1:3] *= -1
        frames.append({"file_path": frame["image"], "transform_matrix": pose.tolist()})
    first = shown[0]
    tree = {"camera_angle_x": 2 * np.arctan(first["w"] / 2 / first["K"][0][0]), "frames": frames}
    file = "transforms_train.json"
    if "fox" in name:
        # Published for 1080x1920; the copy is smaller, and the reader has to see that.
        tree |= {"fl_x": 1375.52, "fl_y": 1374.49, "cx": 554.558, "cy": 965.268}
        tree |= {"w": 1080.0, "h": 1920.0, "k1": 0.0578421, "k2": -0.0805099}
        file = "transforms.json"
    (tmp_path / file).write_text(json.dumps(tree))
    (recording,) = transforms.read(tmp_path, "all")
    assert len(recording) == 8
    with Image.open(recording.paths[0]) as picture:
        assert tuple(recording.cameras.sizes[0]) == picture.size[::-1]
    want_poses = np.linalg.inv([frame["c2w"] for frame in shown])[:, :3]
    np.testing.assert_allclose(recording.cameras.camera_from_world, want_poses, atol=1e-5)
    want = np.array([frame["K"] for frame in shown])
    want[:, :2, 2] -= 0.5
    np.testing.assert_allclose(recording.cameras.intrinsics, want, rtol=2e-3)
