"""Names and cameras of a COLMAP model; its points and keypoints are no truth and are not needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from .. import geometry
from ..outputs import colmap_binary, colmap_text
from ..outputs.colmap_records import CameraRecords, ImageRecords, MalformedError
from ..types import Cameras
from .dataset_files import malformed, numbers, parsing, pinhole, read_bytes

Records = TypeVar("Records")

PLACES = ("sparse/0", "sparse", ".")


def find(folder: Path) -> Path | None:
    """Where below ``folder`` its model lies: in ``sparse/0``, ``sparse`` or itself."""
    for place in PLACES:
        for suffix in (".bin", ".txt"):
            if all(
                (folder / place / f"{name}{suffix}").is_file() for name in ("cameras", "images")
            ):
                return folder / place
    return None


def read(folder: Path) -> tuple[list[str], Cameras]:
    """Picture names and cameras of a model, in the order of the names.

    Args:
        folder: with cameras and images, as .bin, which are preferred, or as .txt.

    Raises:
        InputError: a file is missing or malformed, the two contradict each other, or a camera has
            lens distortion.
    """
    binary = (folder / "images.bin").is_file()
    form, suffix = (colmap_binary, ".bin") if binary else (colmap_text, ".txt")
    cameras: CameraRecords = _decode(folder / f"cameras{suffix}", form.decode_cameras)
    path = folder / f"images{suffix}"
    images: ImageRecords = _decode(path, form.decode_images)
    order = sorted(range(len(images.names)), key=images.names.__getitem__)
    names = [images.names[i] for i in order]
    with parsing(path, "a list of posed images"):
        if not names:
            raise ValueError("it lists none")
        if len(set(names)) < len(names):
            raise ValueError("two images have the same name")
        for name in names:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise ValueError(f"the name {name!r} leaves the folder of the pictures")
        row = {camera: i for i, camera in enumerate(cameras.ids.tolist())}
        rows = [row[int(images.camera_ids[i])] for i in order]
        poses = np.stack([_pose(images.poses[i]) for i in order])
        intrinsics = np.stack([pinhole(*cameras.params[i]) for i in rows])
    return names, Cameras(intrinsics, poses, cameras.sizes[rows][:, ::-1])


def read_poses(folder: Path) -> tuple[list[str], np.ndarray]:
    """Picture names and (N, 3, 4) ``camera_from_world`` of a model; its lenses do not matter.

    Args:
        folder: with images, as .bin, which is preferred, or as .txt.

    Raises:
        InputError: the file is missing or malformed.
    """
    binary = (folder / "images.bin").is_file()
    path = folder / ("images.bin" if binary else "images.txt")
    images = _decode(path, (colmap_binary if binary else colmap_text).decode_images)
    with parsing(path, "a list of posed images"):
        if not len(images.names):
            raise ValueError("it lists none")
        return list(images.names), np.stack([_pose(pose) for pose in images.poses])


def decode_images(path: Path) -> ImageRecords:
    """The records of an images.txt.

    Raises:
        InputError: it cannot be read or is malformed.
    """
    return _decode(path, colmap_text.decode_images)


def _decode(path: Path, decode: Callable[[bytes], Records]) -> Records:
    try:
        return decode(read_bytes(path))
    except MalformedError as error:
        raise malformed(path, str(error)) from None


def _pose(record: np.ndarray) -> np.ndarray:
    """(3, 4) of a quaternion wxyz and a translation."""
    record = numbers(record, 7)
    if np.abs(record).max() > 1e15 or abs(np.linalg.norm(record[:4]) - 1) > 0.01:
        raise ValueError("a pose has no unit quaternion, or implausibly large numbers")
    rotation = geometry.quaternion_to_matrix(record[[1, 2, 3, 0]])
    return np.concatenate([rotation, record[4:, None]], axis=1)
