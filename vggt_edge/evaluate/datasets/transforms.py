"""Scenes with ``transforms.json``: nerfstudio, instant-ngp, and NeRF-synthetic's split files.

Format: docs.nerf.studio/quickstart/data_conventions.html and its ``nerfstudio_dataparser.py`` and
``blender_dataparser.py``; docs/nerf_dataset_tips.md of github.com/NVlabs/instant-ngp. World from
camera, OpenGL axes (x right, y up, z backwards); pixels count from the picture's corner.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ... import geometry
from ...recording import Recording
from ...types import Cameras
from ..dataset_files import (
    check_root,
    numbers,
    parsing,
    picture_size,
    pinhole,
    read_json,
    resized,
    rigid,
    safe_name,
    wrong_root,
)
from ..rgbd_files import read_depth
from . import Dataset

SPLITS = ("train", "val", "test")
DEPTH_UNIT = 1e-3
"""Of a 16-bit depth picture: nerfstudio's ``depth_unit_scale_factor``."""
_OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG")


def read(root: Path, split: str) -> list[Recording]:
    """The scene in the root, or one in each of its folders; frames in the order of the file.

    "train", "val" and "test" take ``transforms_SPLIT.json``, or the frames that ``transforms.json``
    names in ``SPLIT_filenames``. "all" takes ``transforms.json``, or else each split file as a
    recording of its own, SCENE/SPLIT.

    Frames whose picture is not there are left out, as nerfstudio does. RGBA pictures are composited
    on white when they are read. Distortion of a perspective lens does not touch the poses and is
    passed over; depth, which it would bend, is then not offered. Fisheye and panoramic cameras are
    refused. Depth is z, in the unit of the poses after ``depth_unit_scale_factor``.

    Raises:
        InputError: the root is missing or of no such layout, a file is malformed, no picture of a
            file is there.
    """
    root = check_root(DATASET, root, split)
    scenes = [root] if _files(root, split) else sorted(f for f in root.iterdir() if f.is_dir())
    recordings = []
    for scene in scenes:
        files = _files(scene, split)
        for part, path in files.items():
            name = safe_name(scene.resolve().name)
            listed = None if part else f"{split}_filenames"
            recordings.append(_recording(path, f"{name}/{part}" if part else name, listed))
    if not recordings:
        raise wrong_root(DATASET, root, f"holds no transforms.json of the split {split}")
    return recordings


def _files(scene: Path, split: str) -> dict[str, Path]:
    """The scene's files: split to path, or "" for the file of all frames."""
    whole = scene / "transforms.json"
    names = SPLITS if split == "all" else (split,)
    parts = {n: f for n in names if (f := scene / f"transforms_{n}.json").is_file()}
    if split == "all" and whole.is_file():
        return {"": whole}
    if parts or not whole.is_file():
        return parts
    tree = read_json(whole)
    return {"": whole} if isinstance(tree, dict) and f"{split}_filenames" in tree else {}


def _recording(path: Path, name: str, listed: str | None) -> Recording:
    tree = read_json(path)
    with parsing(path, "a transforms.json"):
        frames = tree["frames"]
        if listed is not None and listed in tree:
            wanted = {Path(file) for file in tree[listed]}
            frames = [frame for frame in frames if Path(frame["file_path"]) in wanted]
        if not frames:
            raise ValueError("it has no frames")
        found = [(f, p) for f in frames if (p := _picture(path, f["file_path"])) is not None]
        if not found:
            raise ValueError(f"none of its {len(frames)} pictures is there")
        cameras, bent = [], False
        for frame, picture in found:
            merged = {**tree, **frame}
            pose = rigid(numbers(frame["transform_matrix"], 4, 4) @ _OPENGL_AXES)
            size = picture_size(picture)
            cameras.append((_intrinsics(merged, size), geometry.invert_rigid(pose), size))
            bent |= any(float(merged.get(key) or 0) != 0 for key in _DISTORTION)
        unit = float(tree.get("depth_unit_scale_factor", DEPTH_UNIT))
        depths = [path.parent / d for f, _ in found if (d := f.get("depth_file_path"))]

    def depth(i: int) -> np.ndarray:
        return read_depth(depths[i], unit)

    columns = [np.stack([np.asarray(v) for v in column]) for column in zip(*cameras, strict=True)]
    return Recording(
        name,
        tuple(picture for _, picture in found),
        Cameras(*columns),
        depth=depth if len(depths) == len(found) and not bent else None,
        units="arbitrary",
    )


def read_poses(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and (N, 3, 4) ``camera_from_world`` of all frames; pictures and lenses do not matter.

    Raises:
        InputError: the file is malformed.
    """
    tree = read_json(path)
    with parsing(path, "a transforms.json"):
        frames = tree["frames"]
        if not frames:
            raise ValueError("it has no frames")
        matrices = [numbers(frame["transform_matrix"], 4, 4) for frame in frames]
        poses = np.stack([rigid(matrix @ _OPENGL_AXES) for matrix in matrices])
        return [str(frame["file_path"]) for frame in frames], geometry.invert_rigid(poses)


def _picture(path: Path, name: str) -> Path | None:
    """The picture of a frame; NeRF-synthetic leaves out ``.png``."""
    for suffix in _SUFFIXES:
        picture = path.parent / f"{name}{suffix}"
        if picture.is_file():
            return picture
    return None


def _intrinsics(camera: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Intrinsics of a picture of (height, width) ``size``; a frame's own come before the file's.

    Raises:
        ValueError, KeyError, TypeError: they are missing, impossible, or of another kind of lens.
    """
    model = str(camera.get("camera_model", "OPENCV"))
    if model not in _PERSPECTIVE or camera.get("is_fisheye"):
        raise ValueError(f"a lens of model {model} is not perspective; undistort the pictures")
    height, width = round(float(camera.get("h", size[0]))), round(float(camera.get("w", size[1])))
    fx = float(camera["fl_x"]) if "fl_x" in camera else _focal(width, camera["camera_angle_x"])
    if "fl_y" in camera:
        fy = float(camera["fl_y"])
    elif "fl_x" not in camera and "camera_angle_y" in camera:
        fy = _focal(height, camera["camera_angle_y"])
    else:
        fy = fx
    cx, cy = float(camera.get("cx", width / 2)), float(camera.get("cy", height / 2))
    return resized(pinhole(fx, fy, cx, cy), (height, width), size)


def _focal(side: int, angle: float) -> float:
    if not 0 < float(angle) < math.pi:
        raise ValueError(f"{angle} radians is no field of view")
    return side / (2 * math.tan(float(angle) / 2))


DATASET = Dataset(
    name="transforms",
    title="A scene with transforms.json",
    fetch=(
        "any scene of nerfstudio (`ns-process-data`), instant-ngp or NeRF-synthetic "
        "(www.matthewtancik.com/nerf; its objects have terms of their own); the root then holds "
        "transforms.json or transforms_train.json, _val, _test, or folders of this kind"
    ),
    splits=("all", *SPLITS),
    read=read,
    units="arbitrary",
)
