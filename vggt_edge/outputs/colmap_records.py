"""What the files of a COLMAP model say, in COLMAP's own numbers and conventions, as flat arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NO_POINT = np.uint64(2**64 - 1)
"""Written as the 3D point of a 2D point that has none; -1 in text."""

PINHOLE = 1
MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    PINHOLE: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
"""COLMAP's camera models: number to name and count of parameters (colmap/sensor/models.h)."""


class MalformedError(ValueError):
    """Bytes that are not what the format says; the reader adds the file's name."""


class CameraRecords(NamedTuple):
    """C cameras.

    Fields
        ids     (C,) uint32.
        sizes   (C, 2) int64: width and height.
        params  (C, 4) float64: fx, fy, cx, cy; the first pixel's centre is at 0.5.
    """

    ids: np.ndarray
    sizes: np.ndarray
    params: np.ndarray


def camera_records(
    ids: list[int], sizes: list[tuple[int, int]], params: list[tuple[float, float, float, float]]
) -> CameraRecords:
    """Cameras from lists.

    Raises:
        MalformedError: an id or size is out of range.
    """
    for camera, size in zip(ids, sizes, strict=True):
        if not 0 <= camera < 2**32 or not all(0 < side < 2**31 for side in size):
            raise MalformedError(f"camera {camera} has the impossible size {size[0]} x {size[1]}")
    return CameraRecords(
        ids=np.array(ids, dtype=np.uint32),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        params=np.array(params, dtype=np.float64).reshape(-1, 4),
    )


class ImageRecords(NamedTuple):
    """S images and their M 2D points.

    Fields
        ids        (S,) uint32.
        poses      (S, 7) float64: camera from world, quaternion wxyz and translation.
        camera_ids (S,) uint32.
        names      S names.
        counts     (S,) int64: 2D points of each image.
        xy         (M, 2) float64: all 2D points, image after image.
        point_ids  (M,) uint64: the 3D point each one sees, or NO_POINT.
    """

    ids: np.ndarray
    poses: np.ndarray
    camera_ids: np.ndarray
    names: tuple[str, ...]
    counts: np.ndarray
    xy: np.ndarray
    point_ids: np.ndarray


class PointRecords(NamedTuple):
    """N 3D points and the T elements of their tracks.

    Fields
        ids      (N,) uint64.
        xyz      (N, 3) float64.
        rgb      (N, 3) uint8.
        errors   (N,) float64.
        lengths  (N,) int64: elements of each track.
        tracks   (T, 2) uint32: image id and index of the 2D point in it, track after track.
    """

    ids: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    errors: np.ndarray
    lengths: np.ndarray
    tracks: np.ndarray


def pinhole_params(model: str, params: list[float]) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) of a camera; only cameras without distortion have them.

    Raises:
        MalformedError: the model has distortion, or the numbers are not those of a camera.
    """
    if model == "SIMPLE_PINHOLE" and len(params) == 3:
        params = [params[0], *params]
    elif model != "PINHOLE" or len(params) != 4:
        if model in ("PINHOLE", "SIMPLE_PINHOLE"):
            raise MalformedError(f"a {model} camera with {len(params)} parameters")
        raise MalformedError(
            f"camera model {model} is not PINHOLE; undistort it with `colmap image_undistorter`"
        )
    fx, fy, cx, cy = params
    if not (np.isfinite(params).all() and fx > 0 and fy > 0):
        raise MalformedError(f"impossible camera parameters {fx:g} {fy:g} {cx:g} {cy:g}")
    return fx, fy, cx, cy
