"""Folders with a ``cameras.json``, the project's own posed pictures and worlds.

``frames[]`` hold ``image``, ``w``, ``h``, ``K`` (3x3, pixels of the stored image, integer
coordinates at pixel centres), ``c2w`` (4x4, OpenCV axes) and, where there is one, ``depth`` (16-bit
PNG, z in units of the top level's ``depth_unit_m``). ``K`` and ``c2w`` are null where unknown.
Lens distortion may be given and is not modelled.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ... import geometry
from ...recording import Recording
from ...types import Cameras
from ..dataset_files import check_root, malformed, numbers, parsing, read_json, rigid, wrong_root
from ..rgbd_files import read_depth
from . import Dataset

FILE = "cameras.json"


def read(root: Path, split: str) -> list[Recording]:
    """The root's own recording, or those of the folders in it that have a cameras.json, by name.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    if (root / FILE).is_file():
        return [read_folder(root, root.resolve().name)]
    found = sorted(path.parent for path in root.glob(f"*/{FILE}"))
    if not found:
        raise wrong_root(DATASET, root, f"holds no {FILE}, nor does a folder in it")
    return [read_folder(folder, folder.name) for folder in found]


def read_folder(folder: Path, name: str, file: str = FILE) -> Recording:
    """The recording ``name`` of a folder with a cameras.json, which may be called otherwise.

    Units are metres where the file says ``metric`` or has depth. Where some frames have cameras,
    those without are left out.

    Raises:
        InputError: the file is malformed.
    """
    path = folder / file
    with parsing(path, "a list of frames with image, w, h, K and c2w"):
        content = read_json(path)
        frames: list[dict[str, Any]] = content["frames"]
        if posed := [f for f in frames if f["K"] is not None and f["c2w"] is not None]:
            frames = posed
        if not frames:
            raise ValueError("it has no frames")
        images = tuple(folder / _below(frame["image"]) for frame in frames)
        depths = [folder / _below(f["depth"]) if f.get("depth") else None for f in frames]
        sizes = numbers([[f["h"], f["w"]] for f in frames], len(frames), 2).astype(int)
        cameras = _cameras(frames, sizes) if posed else None
        unit = content.get("depth_unit_m")
        if unit is not None and not 0 < float(unit) < 1e9:
            raise ValueError(f"depth_unit_m is {unit}")
        if not ((sizes > 0) & (sizes < 1e6)).all():
            raise ValueError("w or h is no size of a picture")
    if any(depths) and unit is None:
        raise malformed(path, "there is depth, but no depth_unit_m")

    def depth(index: int) -> np.ndarray:
        place = depths[index]
        if place is None:
            return np.zeros(tuple(sizes[index]), dtype=np.float32)
        return read_depth(place, float(unit), (65535,))

    metric = bool(content.get("metric", unit is not None))
    return Recording(name, images, cameras, depth if any(depths) else None, None, _UNITS[metric])


_UNITS = {True: "metres", False: "arbitrary"}


def _below(place: str) -> str:
    if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
        raise ValueError(f"the path {place!r} leaves the folder")
    return place


def _cameras(frames: list[dict[str, Any]], sizes: np.ndarray) -> Cameras:
    """Cameras with positive focal lengths.

    A negative one (ICL-NUIM's fy) says that the camera's axis points the other way than the
    picture's. Turning one axis alone mirrors the camera frame, and the world with it: its numbers
    were those of a left-handed frame. Two are a turn by 180 degrees, and the world stays.

    Raises:
        ValueError: these are no cameras, or some are mirrored and some are not.
    """
    intrinsics = np.stack([numbers(frame["K"], 3, 3) for frame in frames])
    poses = np.stack([rigid(frame["c2w"]) for frame in frames])
    signs = np.sign(intrinsics[:, [0, 1, 2], [0, 1, 2]])
    if not signs.all() or np.abs(intrinsics).max() > 1e9 or (intrinsics[:, 2] != [0, 0, 1]).any():
        raise ValueError("K is no pinhole camera")
    if (signs != signs[0]).any():
        raise ValueError("the focal lengths of some frames are negative, of others not")
    flip = np.diag(signs[0])
    world = flip if np.linalg.det(flip) < 0 else np.eye(3)
    turned = np.concatenate([world @ poses[:, :, :3] @ flip, world @ poses[:, :, 3:]], axis=2)
    return Cameras(intrinsics @ flip, geometry.invert_rigid(turned), sizes)


DATASET = Dataset(
    name="cameras",
    title="Folders with cameras.json",
    fetch=(
        "write one: frames[] of image, w, h, K, c2w (OpenCV axes) and perhaps depth (16-bit PNG of "
        "depth_unit_m); the root then holds cameras.json with images and depth beside it, or "
        "folders that do"
    ),
    splits=("all",),
    read=read,
    units="arbitrary",
)
