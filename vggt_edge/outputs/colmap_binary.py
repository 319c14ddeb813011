"""COLMAP's binary files, little-endian (format: colmap.github.io/format.html, version 4).

Every count is checked against the bytes that are left before anything is allocated for it.
"""

from __future__ import annotations

import struct

import numpy as np

from .colmap_records import (
    MODELS,
    PINHOLE,
    CameraRecords,
    ImageRecords,
    MalformedError,
    PointRecords,
    camera_records,
    pinhole_params,
)

CAMERA_SENSOR = 0
POINT_HEADER = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")]
)
POINT_2D = np.dtype([("xy", "<f8", 2), ("point_id", "<u8")])
CAMERA = np.dtype([("id", "<u4"), ("model", "<i4"), ("size", "<u8", 2), ("params", "<f8", 4)])
RIG = np.dtype([("id", "<u4"), ("sensors", "<u4"), ("type", "<i4"), ("camera", "<u4")])
FRAME = np.dtype(
    [
        ("id", "<u4"),
        ("rig", "<u4"),
        ("pose", "<f8", 7),
        ("count", "<u4"),
        ("type", "<i4"),
        ("camera", "<u4"),
        ("image", "<u8"),
    ]
)
POINTS_AT_ONCE = 20_000


def encode(cameras: CameraRecords, images: ImageRecords, points: PointRecords) -> dict[str, bytes]:
    """The five files, by name. Rigs are trivial: one camera each, one image a frame."""
    return {
        "cameras.bin": encode_cameras(cameras),
        "images.bin": encode_images(images),
        "points3D.bin": encode_points(points),
        "rigs.bin": encode_rigs(cameras),
        "frames.bin": encode_frames(images),
    }


def _table(rows: np.ndarray) -> bytes:
    return struct.pack("<Q", len(rows)) + rows.tobytes()


def encode_cameras(cameras: CameraRecords) -> bytes:
    """cameras.bin."""
    rows = np.zeros(len(cameras.ids), CAMERA)
    rows["id"], rows["model"] = cameras.ids, PINHOLE
    rows["size"], rows["params"] = cameras.sizes, cameras.params
    return _table(rows)


def encode_rigs(cameras: CameraRecords) -> bytes:
    """rigs.bin: a rig for each camera, under the camera's number."""
    rows = np.zeros(len(cameras.ids), RIG)
    rows["id"] = rows["camera"] = cameras.ids
    rows["sensors"], rows["type"] = 1, CAMERA_SENSOR
    return _table(rows)


def encode_frames(images: ImageRecords) -> bytes:
    """frames.bin: a frame for each image, under the image's number."""
    rows = np.zeros(len(images.ids), FRAME)
    rows["id"] = rows["image"] = images.ids
    rows["rig"] = rows["camera"] = images.camera_ids
    rows["pose"], rows["count"], rows["type"] = images.poses, 1, CAMERA_SENSOR
    return _table(rows)


def encode_images(images: ImageRecords) -> bytes:
    """images.bin."""
    rows = np.zeros(len(images.xy), POINT_2D)
    rows["xy"], rows["point_id"] = images.xy, images.point_ids
    parts = [struct.pack("<Q", len(images.ids))]
    ends = np.cumsum(images.counts)
    for i, name in enumerate(images.names):
        parts.append(
            struct.pack("<I7dI", images.ids[i], *images.poses[i], images.camera_ids[i])
            + name.encode("utf-8", "surrogateescape")
            + struct.pack("<xQ", images.counts[i])
        )
        parts.append(rows[ends[i] - images.counts[i] : ends[i]].tobytes())
    return b"".join(parts)


def encode_points(points: PointRecords) -> bytes:
    """points3D.bin."""
    headers = np.zeros(len(points.ids), POINT_HEADER)
    headers["id"], headers["xyz"], headers["rgb"] = points.ids, points.xyz, points.rgb
    headers["error"], headers["length"] = points.errors, points.lengths
    head_size = POINT_HEADER.itemsize
    heads = headers.view(np.uint8).reshape(-1, head_size)
    tracks = np.ascontiguousarray(points.tracks, dtype="<u4").view(np.uint8).reshape(-1, 8)
    ends = np.cumsum(points.lengths)
    parts = [struct.pack("<Q", len(points.ids))]
    for first in range(0, len(heads), POINTS_AT_ONCE):
        chunk = slice(first, first + POINTS_AT_ONCE)
        lengths = points.lengths[chunk]
        sizes = head_size + 8 * lengths
        starts = np.cumsum(sizes) - sizes
        out = np.empty(sizes.sum(), np.uint8)
        out[starts[:, None] + np.arange(head_size)] = heads[chunk]
        elements = tracks[ends[first] - lengths[0] : ends[chunk][-1]]
        out[_element_starts(starts, lengths)[:, None] + np.arange(8)] = elements
        parts.append(out.tobytes())
    return b"".join(parts)


def _element_starts(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Bytes at which track elements lie, of points whose records begin at ``starts``."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    where: np.ndarray = np.repeat(starts + POINT_HEADER.itemsize, lengths) + 8 * within
    return where


class Cursor:
    """A place in a file's bytes; reading beyond the end raises MalformedError."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, layout: str) -> tuple[float, ...]:
        """The next numbers, as ``struct`` lays them out."""
        size = struct.calcsize(layout)
        if size > self.left:
            raise MalformedError(f"the file ends early, after {len(self.data)} bytes")
        values = struct.unpack_from(layout, self.data, self.position)
        self.position += size
        return values

    def count(self, smallest: int) -> int:
        """The next count of records of at least ``smallest`` bytes each."""
        count = int(self.take("<Q")[0])
        if count * smallest > self.left:
            raise MalformedError(
                f"{count} records are announced at byte {self.position - 8}, "
                f"but only {self.left} bytes follow"
            )
        return count

    def rows(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The next ``count`` records."""
        if count * dtype.itemsize > self.left:
            raise MalformedError(f"the file ends early, after {len(self.data)} bytes")
        rows = np.frombuffer(self.data, dtype, count, self.position)
        self.position += count * dtype.itemsize
        return rows

    def text(self) -> str:
        """The next zero-terminated string."""
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise MalformedError(f"a name at byte {self.position} has no end")
        value = self.data[self.position : end].decode("utf-8", "surrogateescape")
        self.position = end + 1
        return value

    def finish(self) -> None:
        """Make sure that nothing is left."""
        if self.left:
            raise MalformedError(f"{self.left} bytes too many after the last record")


def decode_cameras(data: bytes) -> CameraRecords:
    """cameras.bin."""
    cursor = Cursor(data)
    ids, sizes, params = [], [], []
    for _ in range(cursor.count(24)):
        camera, model, width, height = (int(v) for v in cursor.take("<IiQQ"))
        if model not in MODELS:
            raise MalformedError(f"camera {camera} is of unknown model {model}")
        name, count = MODELS[model]
        ids.append(camera)
        sizes.append((width, height))
        params.append(pinhole_params(name, list(cursor.take(f"<{count}d"))))
    cursor.finish()
    return camera_records(ids, sizes, params)


def decode_images(data: bytes) -> ImageRecords:
    """images.bin."""
    cursor = Cursor(data)
    ids, poses, camera_ids, names, rows = [], [], [], [], []
    for _ in range(cursor.count(73)):
        image, *pose, camera = cursor.take("<I7dI")
        ids.append(image)
        poses.append(pose)
        camera_ids.append(camera)
        names.append(cursor.text())
        rows.append(cursor.rows(POINT_2D, cursor.count(POINT_2D.itemsize)))
    cursor.finish()
    points = np.concatenate(rows) if rows else np.zeros(0, POINT_2D)
    return ImageRecords(
        ids=np.array(ids, dtype=np.uint32),
        poses=np.array(poses, dtype=np.float64).reshape(-1, 7),
        camera_ids=np.array(camera_ids, dtype=np.uint32),
        names=tuple(names),
        counts=np.array([len(r) for r in rows], dtype=np.int64),
        xy=np.ascontiguousarray(points["xy"]),
        point_ids=np.ascontiguousarray(points["point_id"]),
    )


def decode_points(data: bytes) -> PointRecords:
    """points3D.bin."""
    cursor = Cursor(data)
    count = cursor.count(POINT_HEADER.itemsize)
    starts, lengths = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i in range(count):
        starts[i] = cursor.position
        if cursor.left < POINT_HEADER.itemsize:
            raise MalformedError(f"the file ends early, after {len(data)} bytes")
        cursor.position += POINT_HEADER.itemsize - 8
        lengths[i] = cursor.count(8)
        cursor.position += 8 * int(lengths[i])
    cursor.finish()
    content = np.frombuffer(data, np.uint8)
    heads = content[starts[:, None] + np.arange(POINT_HEADER.itemsize)]
    headers = heads.reshape(-1).view(POINT_HEADER)
    elements = content[_element_starts(starts, lengths)[:, None] + np.arange(8)]
    return PointRecords(
        ids=headers["id"],
        xyz=headers["xyz"],
        rgb=headers["rgb"],
        errors=headers["error"],
        lengths=lengths,
        tracks=elements.reshape(-1).view("<u4").reshape(-1, 2),
    )
