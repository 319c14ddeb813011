"""COLMAP sparse models: cameras, images, points3D, rigs and frames; binary and text.

COLMAP puts the centre of the first pixel at (0.5, 0.5); half a pixel is added on writing and taken
away on reading. Format: colmap.github.io/format.html, version 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from .. import geometry
from ..errors import InputError, OutputError
from ..files import replacing
from ..sparse_model import SparseModel
from ..types import Cameras
from . import colmap_binary, colmap_text
from .colmap_records import NO_POINT, CameraRecords, ImageRecords, MalformedError, PointRecords

Records = TypeVar("Records")

NAMES = ("cameras", "images", "points3D", "rigs", "frames")


def write(
    model: SparseModel,
    folder: str | Path,
    *,
    text: bool | Literal["both"] = False,
    pictures: Sequence[str] | None = None,
) -> Path:
    """Write a model into ``folder/sparse/0`` and return that folder.

    With the source pictures in ``folder/images`` the folder is a data set that COLMAP, gsplat and
    nerfstudio train on as it is. Every image gets a frame and every camera a rig of its own; ids
    count from 1 in the order of the model. The five files appear together once all are complete;
    files of the kind that is not written are removed from there, because COLMAP would mix them with
    the new ones.

    Args:
        model: what to write.
        folder: of the data set; made if need be.
        text: text files instead of binary ones, or both.
        pictures: file names of the images, as ``source_pictures.write`` gave them; those of the
            model when None.

    Raises:
        OutputError: the folder cannot be written, or a name has white space and ``text`` is asked.
    """
    folder = Path(folder)
    if pictures is not None:
        model = replace(model, names=tuple(pictures))
    folder = folder / "sparse" / "0"
    records = _records(model)
    files = {} if text is True else colmap_binary.encode(*records)
    if text:
        try:
            files |= colmap_text.encode(*records)
        except MalformedError as error:
            raise OutputError(f"cannot write {folder}: {error}") from None
    with ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)
    for name in NAMES:
        for suffix in (".bin", ".txt"):
            if name + suffix not in files:
                (folder / (name + suffix)).unlink(missing_ok=True)
    return folder


def read(folder: str | Path) -> SparseModel:
    """Read a model of pinhole cameras; binary files are preferred where both kinds are complete.

    Images, cameras and points come in the order of their ids, without cameras that no image has.
    Rigs and frames are not needed: images.bin and images.txt hold every image's pose.

    Args:
        folder: with the files, or a dataset with the model in ``sparse/0`` or ``sparse``.

    Raises:
        InputError: a file is missing, truncated or corrupt, contradicts another, or has cameras
            with distortion; the message names the file.
    """
    folder = Path(folder)
    for place in (folder, folder / "sparse" / "0", folder / "sparse"):
        for suffix, form in ((".bin", colmap_binary), (".txt", colmap_text)):
            paths = [place / f"{name}{suffix}" for name in NAMES[:3]]
            if not all(path.is_file() for path in paths):
                continue
            cameras = _decode(paths[0], form.decode_cameras)
            images = _decode(paths[1], form.decode_images)
            points = _decode(paths[2], form.decode_points)
            try:
                return _model(cameras, images, points)
            except MalformedError as error:
                raise InputError(f"{place}: {error}; export the model again") from None
    raise InputError(
        f"{folder} holds no COLMAP model: cameras, images and points3D, "
        "all three as .bin or all three as .txt, are needed"
    )


def _decode(path: Path, decode: Callable[[bytes], Records]) -> Records:
    try:
        return decode(path.read_bytes())
    except MalformedError as error:
        raise InputError(f"{path}: {error}; export the model again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from None


def _records(model: SparseModel) -> tuple[CameraRecords, ImageRecords, PointRecords]:
    """The model in COLMAP's numbers: ids from 1, pixel centres at 0.5, quaternions wxyz."""
    camera, first = np.unique(model.camera_index, return_index=True)
    k = model.cameras.intrinsics[first]
    params = [k[:, 0, 0], k[:, 1, 1], k[:, 0, 2] + 0.5, k[:, 1, 2] + 0.5]
    extrinsics = model.cameras.camera_from_world
    quaternion = geometry.matrix_to_quaternion(extrinsics[:, :, :3])[:, [3, 0, 1, 2]]
    seen = model.observation_point >= 0
    rows = np.flatnonzero(seen)
    rows = rows[np.argsort(model.observation_point[rows], kind="stable")]
    image = model.observation_image
    counts = model.observation_counts
    within = np.arange(len(image)) - (np.cumsum(counts) - counts)[image]
    return (
        CameraRecords(
            ids=np.arange(1, len(camera) + 1, dtype=np.uint32),
            sizes=model.cameras.sizes[first][:, ::-1],
            params=np.stack(params, axis=-1),
        ),
        ImageRecords(
            ids=np.arange(1, len(model) + 1, dtype=np.uint32),
            poses=np.concatenate([quaternion, extrinsics[:, :, 3]], axis=-1),
            camera_ids=(np.searchsorted(camera, model.camera_index) + 1).astype(np.uint32),
            names=model.names,
            counts=counts,
            xy=model.observations + 0.5,
            point_ids=np.where(seen, (model.observation_point + 1).astype(np.uint64), NO_POINT),
        ),
        PointRecords(
            ids=np.arange(1, len(model.points) + 1, dtype=np.uint64),
            xyz=model.points,
            rgb=model.colors,
            errors=model.errors,
            lengths=model.track_lengths,
            tracks=np.stack([image[rows] + 1, within[rows]], axis=-1).astype(np.uint32),
        ),
    )


def _find(ids: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Places of ``wanted`` among the increasing ``ids``."""
    places = np.searchsorted(ids, wanted)
    known = np.zeros(len(wanted), dtype=bool)
    known[places < len(ids)] = ids[places[places < len(ids)]] == wanted[places < len(ids)]
    if not known.all():
        raise MalformedError(f"{what} {wanted[~known][0]} is used but not defined")
    return places


def _order(ids: np.ndarray, what: str) -> np.ndarray:
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(twice):
        raise MalformedError(f"{what} {ids[order[twice[0]]]} is there twice")
    return order


def _model(cameras: CameraRecords, images: ImageRecords, points: PointRecords) -> SparseModel:
    """The model the three files tell of.

    Raises:
        MalformedError: they contradict each other or themselves.
    """
    by_camera, by_image = _order(cameras.ids, "camera"), _order(images.ids, "image")
    by_point = _order(points.ids, "3D point")
    if len(set(images.names)) < len(images.names):
        raise MalformedError("two images have the same name")
    # Clipped, because the square of a hostile number may overflow.
    norms = np.linalg.norm(np.clip(images.poses[:, :4], -2, 2), axis=-1)
    for what, numbers in (
        ("pose", images.poses),
        ("2D point", images.xy),
        ("3D point", points.xyz),
        ("error", points.errors),
        ("rotation", np.where(np.abs(norms - 1) < 0.01, 1, np.nan)),
    ):
        if not np.isfinite(numbers).all():
            raise MalformedError(f"a {what} is not a finite number or no {what} at all")

    camera_place = _find(cameras.ids[by_camera], images.camera_ids[by_image], "camera")
    camera = by_camera[camera_place]
    fx, fy, cx, cy = cameras.params[camera].T
    intrinsics = np.tile(np.eye(3), (len(camera), 1, 1))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = fx, fy
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = cx - 0.5, cy - 0.5
    poses = images.poses[by_image]
    rotation = geometry.quaternion_to_matrix(poses[:, [1, 2, 3, 0]])

    counts = images.counts[by_image]
    starts = np.cumsum(counts) - counts
    before = (np.cumsum(images.counts) - images.counts)[by_image]
    rows = np.repeat(before - starts, counts) + np.arange(counts.sum())
    point_ids = images.point_ids[rows]
    seen = point_ids != NO_POINT
    observation_point = np.full(len(rows), -1, dtype=np.int64)
    observation_point[seen] = _find(points.ids[by_point], point_ids[seen], "3D point")

    image = _find(images.ids[by_image], points.tracks[:, 0], "image")
    index = points.tracks[:, 1].astype(np.int64)
    if (index >= counts[image]).any():
        raise MalformedError("a track names a 2D point that its image does not have")
    element = starts[image] + index
    place = np.empty(len(by_point), dtype=np.int64)
    place[by_point] = np.arange(len(by_point))
    owner = np.repeat(place, points.lengths)
    if (
        (observation_point[element] != owner).any()
        or len(element) != seen.sum()
        or len(np.unique(element)) != len(element)
    ):
        raise MalformedError("the tracks of points3D and the 2D points of images disagree")
    return SparseModel(
        names=tuple(images.names[i] for i in by_image),
        cameras=Cameras(
            intrinsics=intrinsics,
            camera_from_world=np.concatenate([rotation, poses[:, 4:, None]], axis=-1),
            sizes=cameras.sizes[camera][:, ::-1],
        ),
        camera_index=np.unique(camera_place, return_inverse=True)[1].astype(np.int32),
        points=points.xyz[by_point],
        colors=points.rgb[by_point],
        errors=points.errors[by_point],
        observations=images.xy[rows] - 0.5,
        observation_image=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        observation_point=observation_point,
    )
