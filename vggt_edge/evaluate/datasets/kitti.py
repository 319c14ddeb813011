"""KITTI odometry: drives of up to five kilometres with GPS/IMU poses.

Geiger et al., "Are we ready for Autonomous Driving?", CVPR 2012. Layout: ``readme.txt`` of
``devkit_odometry``: row i of ``poses/XX.txt`` is the 3x4 pose of the left *grey* camera (camera 0)
in the frame of the first; P0 to P3 of ``calib.txt`` project from camera 0's frame into the
rectified pictures ``image_0`` to ``image_3``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ... import geometry
from ...recording import Recording
from ..dataset_files import (
    check_root,
    malformed,
    numbers,
    parsing,
    picture_size,
    read_text,
    rigid,
    wrong_root,
)
from ..rgbd_files import by_number, one_lens
from . import Dataset


class _Choice(NamedTuple):
    """Sequences, and the number of the camera."""

    sequences: tuple[str, ...]
    camera: int


_ALL = tuple(f"{i:02d}" for i in range(11))
SPLITS = {
    "train": _Choice(_ALL, 2),
    "without-01": _Choice(tuple(name for name in _ALL if name != "01"), 2),
    "train-grey": _Choice(_ALL, 0),
}


def read(root: Path, split: str) -> list[Recording]:
    """Sequences 00 to 10 that are there, the only ones with published poses.

    "without-01" leaves out the motorway, as VGGT-Long's averages do. These are the left colour
    camera (``image_2``), whose centre lies 6 cm beside camera 0; "train-grey" is the left grey one.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    if (root / "dataset/sequences").is_dir():
        root = root / "dataset"
    choice = SPLITS[split]
    images = f"image_{choice.camera}"
    found = [name for name in choice.sequences if (root / f"sequences/{name}/{images}").is_dir()]
    if not found:
        raise wrong_root(DATASET, root, f"holds no sequences/XX/{images} of 00 to 10")
    return [_recording(root, name, choice.camera) for name in found]


def _projection(path: Path, camera: int) -> np.ndarray:
    """(3, 4) matrix of the line that begins "P2:", say."""
    with parsing(path, "a KITTI calibration"):
        lines = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
        row = np.array(lines[f"P{camera}"].split(), dtype=np.float64)
        return numbers(row, 12).reshape(3, 4)


def _recording(root: Path, name: str, camera: int) -> Recording:
    folder, truth = root / "sequences" / name, root / "poses" / f"{name}.txt"
    if not truth.is_file():
        raise wrong_root(DATASET, root, f"lacks poses/{name}.txt")
    frames = by_number(folder / f"image_{camera}", r"(\d{6})\.png")
    with parsing(truth, "poses of twelve numbers a line"):
        rows = np.array(read_text(truth).split(), dtype=np.float64).reshape(-1, 3, 4)
        poses = [rigid(row) for row in rows]
    if list(frames) != list(range(len(poses))):
        raise malformed(truth, f"{len(poses)} poses, but {len(frames)} pictures or others")
    projection = _projection(folder / "calib.txt", camera)
    intrinsics = projection[:, :3]
    with parsing(folder / "calib.txt", "a KITTI calibration"):
        focal = np.diag(intrinsics)[:2]
        if not ((focal > 1e-3).all() and np.abs(projection).max() < 1e9 and intrinsics[2, 2] == 1):
            raise ValueError("no pinhole camera")
        # x_camera = x_camera0 + t, since all cameras are rectified to one orientation.
        offset = np.linalg.solve(intrinsics, projection[:, 3])
    camera_from_grey = np.concatenate([np.eye(3), offset[:, None]], axis=1)
    world_from_camera = geometry.compose_rigid(
        np.stack(poses), geometry.invert_rigid(camera_from_grey)
    )
    paths = tuple(frames.values())
    return Recording(name, paths, one_lens(intrinsics, world_from_camera, picture_size(paths[0])))


DATASET = Dataset(
    name="kitti",
    title="KITTI odometry",
    fetch=(
        "register at cvlibs.net/datasets/kitti/eval_odometry.php (CC BY-NC-SA 3.0) and unpack "
        "data_odometry_color.zip (65 GB; _gray.zip, 22 GB, for split train-grey), _calib.zip and "
        "_poses.zip; the root then holds sequences/XX/image_2/NNNNNN.png, sequences/XX/calib.txt "
        "and poses/XX.txt"
    ),
    splits=tuple(SPLITS),
    read=read,
)
