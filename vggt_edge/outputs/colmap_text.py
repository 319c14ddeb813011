"""COLMAP's text files (format: colmap.github.io/format.html, version 4).

Numbers have 17 significant digits, as COLMAP writes them, and read back as the same float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from .colmap_records import (
    NO_POINT,
    CameraRecords,
    ImageRecords,
    MalformedError,
    PointRecords,
    camera_records,
    pinhole_params,
)

T = TypeVar("T")


def encode(cameras: CameraRecords, images: ImageRecords, points: PointRecords) -> dict[str, bytes]:
    """The five files, by name. Rigs are trivial: one camera each, one image a frame.

    Raises:
        MalformedError: an image name holds white space, at which COLMAP would cut it off.
    """
    for name in images.names:
        if re.search(r"\s", name):
            raise MalformedError(
                f"COLMAP's text format cannot hold the white space in {name!r}; "
                "rename the picture or write the binary format"
            )
    return {
        "cameras.txt": _file(
            [
                "Camera list with one line of data per camera:",
                "  CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
                f"Number of cameras: {len(cameras.ids)}",
            ],
            _camera_lines(cameras),
        ),
        "images.txt": _file(
            [
                "Image list with two lines of data per image:",
                "  IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME",
                "  POINTS2D[] as (X, Y, POINT3D_ID)",
                f"Number of images: {len(images.ids)}, mean observations per image: "
                f"{_mean(int((images.point_ids != NO_POINT).sum()), len(images.ids))}",
            ],
            _image_lines(images),
        ),
        "points3D.txt": _file(
            [
                "3D point list with one line of data per point:",
                "  POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
                f"Number of points: {len(points.ids)}, mean track length: "
                f"{_mean(len(points.tracks), len(points.ids))}",
            ],
            _point_lines(points),
        ),
        "rigs.txt": _file(
            [
                "Rig calib list with one line of data per calib:",
                "  RIG_ID, NUM_SENSORS, REF_SENSOR_TYPE, REF_SENSOR_ID, SENSORS[] as "
                "(SENSOR_TYPE, SENSOR_ID, HAS_POSE, [QW, QX, QY, QZ, TX, TY, TZ])",
                f"Number of rigs: {len(cameras.ids)}",
            ],
            (f"{i} 1 CAMERA {i}" for i in cameras.ids.tolist()),
        ),
        "frames.txt": _file(
            [
                "Frame list with one line of data per frame:",
                "  FRAME_ID, RIG_ID, RIG_FROM_WORLD[QW, QX, QY, QZ, TX, TY, TZ], NUM_DATA_IDS, "
                "DATA_IDS[] as (SENSOR_TYPE, SENSOR_ID, DATA_ID)",
                f"Number of frames: {len(images.ids)}",
            ],
            (
                f"{image} {camera} {_numbers(pose)} 1 CAMERA {camera} {image}"
                for image, camera, pose in zip(
                    images.ids.tolist(), images.camera_ids.tolist(), images.poses, strict=True
                )
            ),
        ),
    }


def _mean(total: int, count: int) -> str:
    return f"{total / count if count else 0:.17g}"


def _file(comments: list[str], lines: Iterator[str]) -> bytes:
    text = "".join(f"# {c}\n" for c in comments) + "".join(f"{line}\n" for line in lines)
    return text.encode("utf-8", "surrogateescape")


def _numbers(values: np.ndarray) -> str:
    return " ".join([f"{v:.17g}" for v in values.tolist()])


def _camera_lines(cameras: CameraRecords) -> Iterator[str]:
    for i, camera in enumerate(cameras.ids.tolist()):
        yield f"{camera} PINHOLE {_numbers(cameras.sizes[i])} {_numbers(cameras.params[i])}"


def _image_lines(images: ImageRecords) -> Iterator[str]:
    ends = np.cumsum(images.counts)
    for i, image in enumerate(images.ids.tolist()):
        yield f"{image} {_numbers(images.poses[i])} {images.camera_ids[i]} {images.names[i]}"
        rows = slice(ends[i] - images.counts[i], ends[i])
        # As int64, the number that says "no point" is -1.
        seen = images.point_ids[rows].astype(np.int64).tolist()
        yield " ".join(
            f"{x:.17g} {y:.17g} {p}"
            for (x, y), p in zip(images.xy[rows].tolist(), seen, strict=True)
        )


def _point_lines(points: PointRecords) -> Iterator[str]:
    ends = np.cumsum(points.lengths)
    for i, point in enumerate(points.ids.tolist()):
        track = points.tracks[ends[i] - points.lengths[i] : ends[i]].ravel()
        line = (
            f"{point} {_numbers(points.xyz[i])} {_numbers(points.rgb[i])} {points.errors[i]:.17g}"
        )
        yield f"{line} {_numbers(track)}" if len(track) else line


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Line numbers and lines, stripped."""
    text = data.decode("utf-8", "surrogateescape")
    # str.splitlines would also split at characters that names may hold.
    for number, line in enumerate(text.split("\n"), 1):
        yield number, line.strip()


def _parse(number: int, what: str, parse: Callable[[str], T], line: str) -> T:
    try:
        return parse(line)
    except MalformedError as error:
        raise MalformedError(f"line {number}: {error}") from None
    except (ValueError, OverflowError, IndexError):
        raise MalformedError(f"line {number} is not {what}") from None


def _id(item: str, limit: int = 2**32) -> int:
    value = int(item)
    if not 0 <= value < limit:
        raise ValueError(item)
    return value


def _camera(line: str) -> tuple[int, tuple[int, int], tuple[float, float, float, float]]:
    items = line.split()
    params = pinhole_params(items[1], [float(v) for v in items[4:]])
    return _id(items[0]), (int(items[2]), int(items[3])), params


def decode_cameras(data: bytes) -> CameraRecords:
    """cameras.txt."""
    ids, sizes, params = [], [], []
    for number, line in _lines(data):
        if not line or line.startswith("#"):
            continue
        camera, size, values = _parse(number, "a camera", _camera, line)
        ids.append(camera)
        sizes.append(size)
        params.append(values)
    return camera_records(ids, sizes, params)


def _image(line: str) -> tuple[int, list[float], int, str]:
    items = line.split(maxsplit=9)
    image, camera, name = _id(items[0]), _id(items[8]), items[9]
    return image, [float(v) for v in items[1:8]], camera, name


def _points_2d(line: str) -> tuple[np.ndarray, np.ndarray]:
    items = line.split()
    if len(items) % 3:
        raise ValueError(line)
    xy = np.array([items[0::3], items[1::3]], dtype=object).astype(np.float64).T
    point_ids = [int(NO_POINT) if v == "-1" else _id(v, 2**63) for v in items[2::3]]
    return xy.reshape(-1, 2), np.array(point_ids, dtype=np.uint64)


def decode_images(data: bytes) -> ImageRecords:
    """images.txt. An image without a second line has no 2D points."""
    ids, poses, camera_ids, names = [], [], [], []
    xy, point_ids = [np.zeros((0, 2))], [np.zeros(0, np.uint64)]
    lines = _lines(data)
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        image, pose, camera, name = _parse(number, "an image", _image, line)
        ids.append(image)
        poses.append(pose)
        camera_ids.append(camera)
        names.append(name)
        number, line = next(lines, (number + 1, ""))
        places, seen = _parse(number, "a list of 2D points", _points_2d, line)
        xy.append(places)
        point_ids.append(seen)
    return ImageRecords(
        ids=np.array(ids, dtype=np.uint32),
        poses=np.array(poses, dtype=np.float64).reshape(-1, 7),
        camera_ids=np.array(camera_ids, dtype=np.uint32),
        names=tuple(names),
        counts=np.array([len(p) for p in xy[1:]], dtype=np.int64),
        xy=np.concatenate(xy),
        point_ids=np.concatenate(point_ids),
    )


def _point(line: str) -> tuple[int, list[float], list[int], list[int]]:
    items = line.split()
    if len(items) < 8 or len(items) % 2:
        raise ValueError(line)
    numbers = [float(items[i]) for i in (1, 2, 3, 7)]
    color = [_id(v, 256) for v in items[4:7]]
    return _id(items[0], 2**64 - 1), numbers, color, [_id(v) for v in items[8:]]


def decode_points(data: bytes) -> PointRecords:
    """points3D.txt."""
    ids, numbers, colors, lengths, tracks = [], [], [], [], []
    for number, line in _lines(data):
        if not line or line.startswith("#"):
            continue
        point, values, color, track = _parse(number, "a 3D point", _point, line)
        ids.append(point)
        numbers.append(values)
        colors.append(color)
        lengths.append(len(track) // 2)
        tracks.extend(track)
    table = np.array(numbers, dtype=np.float64).reshape(-1, 4)
    return PointRecords(
        ids=np.array(ids, dtype=np.uint64),
        xyz=table[:, :3],
        rgb=np.array(colors, dtype=np.uint8).reshape(-1, 3),
        errors=table[:, 3],
        lengths=np.array(lengths, dtype=np.int64),
        tracks=np.array(tracks, dtype=np.uint32).reshape(-1, 2),
    )
