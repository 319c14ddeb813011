"""ETH3D high-resolution multi-view: DSLR photographs registered to laser scans, metric.

Layout and formats: www.eth3d.net/documentation; MeshLab projects as its ``multi-view-evaluation``
reads them; ``custom_undistorted``: the preprocessed copy that github.com/yyfz/Pi3 (branch
evaluation) and evaluation code derived from it score, 13 scenes.
"""

from __future__ import annotations

import functools
import io
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ... import geometry
from ...errors import InputError
from ...recording import Recording
from ...types import Cameras
from .. import colmap_cameras, ply_points
from ..dataset_files import (
    check_root,
    malformed,
    numbers,
    parsing,
    picture_size,
    pinhole,
    read_bytes,
    read_text,
    rigid,
    wrong_root,
)
from . import Dataset

TRAIN = (
    *("courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes"),
    *("playground", "relief", "relief_2", "terrace", "terrains"),
)
"""The 13 scenes whose scans are published."""
TEST = (
    *("botanical_garden", "boulders", "bridge", "door", "exhibition_hall", "lecture_room"),
    *("living_room", "lounge", "observatory", "old_computer", "statue", "terrace_2"),
)
"""The 12 scenes with poses but without scans."""
_SCANS = ("dslr_scan_eval", "scan_clean")  # the first is what the benchmark scores against
_PRISM = "THIN_PRISM_FISHEYE"


def read(root: Path, split: str) -> list[Recording]:
    """The scenes that are there, by name, pictures in the order of their names, metres.

    Depth is published for the distorted pictures. It is given for the undistorted ones where
    ``dslr_calibration_jpg`` tells how the lens bends: each pixel takes the nearest stored value,
    and z is the same in both, since undistortion does not turn the camera.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    recordings = []
    for scene in TRAIN if split == "train" else TEST:
        folder = root / scene
        if (folder / "images" / "custom_undistorted").is_dir():
            recordings.append(_preprocessed(folder))
        elif (folder / "dslr_calibration_undistorted").is_dir():
            recordings.append(_published(folder))
    if not recordings:
        raise wrong_root(DATASET, root, f"holds no scene of the split {split}")
    return recordings


def _published(folder: Path) -> Recording:
    names, cameras = colmap_cameras.read(folder / "dslr_calibration_undistorted")
    paths = tuple(folder / "images" / name for name in names)
    depths = [folder / "ground_truth_depth" / "dslr_images" / path.name for path in paths]
    lens_file = folder / "dslr_calibration_jpg" / "cameras.txt"
    has_depth = lens_file.is_file() and all(path.is_file() for path in depths)

    def depth(i: int) -> np.ndarray:
        lenses = _lenses(folder / "dslr_calibration_jpg")
        lens = lenses.get(paths[i].name)
        if lens is None:
            raise malformed(lens_file, f"no camera for {paths[i].name}")
        return _undistorted(depths[i], lens, cameras.intrinsics[i], cameras.sizes[i])

    scans = [folder / name for name in _SCANS if (folder / name / "scan_alignment.mlp").is_file()]
    return Recording(
        folder.name,
        paths,
        cameras,
        depth=depth if has_depth else None,
        points=(lambda: _scan(scans[0])) if scans else None,
    )


@functools.lru_cache(maxsize=4)
def _lenses(folder: Path) -> dict[str, tuple[tuple[int, int], np.ndarray]]:
    """File name of each distorted picture to its (height, width) and 12 lens parameters."""
    cameras = {}
    with parsing(folder / "cameras.txt", f"a list of {_PRISM} cameras"):
        for line in read_text(folder / "cameras.txt").splitlines():
            items = line.split()
            if not items or items[0].startswith("#"):
                continue
            if items[1] != _PRISM:
                raise ValueError(f"a camera is {items[1]}")
            size = int(items[3]), int(items[2])
            cameras[int(items[0])] = size, numbers([float(v) for v in items[4:]], 12)
    lenses = {}
    path = folder / "images.txt"
    images = colmap_cameras.decode_images(path)
    with parsing(path, "a list of posed images"):
        for name, camera in zip(images.names, images.camera_ids.tolist(), strict=True):
            lenses[Path(name).name] = cameras[camera]
    return lenses


def distort(rays: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """(..., 2) of x / z, y / z to (..., 2) pixels counted from the corner: THIN_PRISM_FISHEYE.

    Args:
        rays: in the camera frame.
        lens: fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1. Formula:
            www.eth3d.net/documentation, "THIN_PRISM_FISHEYE camera model".
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = lens
    radius = np.linalg.norm(rays, axis=-1, keepdims=True)
    # The limit of atan(r) / r at the axis is 1.
    shrink = np.where(radius > 1e-12, np.arctan(radius) / np.maximum(radius, 1e-12), 1.0)
    u, v = np.moveaxis(rays * shrink, -1, 0)
    r2 = u * u + v * v
    radial = r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    du = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + sx1 * r2
    dv = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v) + sy1 * r2
    return np.stack([fx * (u + du) + cx, fy * (v + dv) + cy], axis=-1)


def _undistorted(
    path: Path, lens: tuple[tuple[int, int], np.ndarray], intrinsics: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Depth of the undistorted picture of (height, width) ``size``; 0 outside the distorted one."""
    stored = _raw_depth(path, lens[0])
    rows, cols = (int(side) for side in size)
    y = (np.arange(rows) - intrinsics[1, 2]) / intrinsics[1, 1]
    x = (np.arange(cols) - intrinsics[0, 2]) / intrinsics[0, 0]
    depth = np.zeros((rows, cols), np.float32)
    for row in range(rows):  # 24 megapixels: row by row keeps the memory small
        pixels = distort(np.stack([x, np.full(cols, y[row])], axis=-1), lens[1])
        i, j = np.floor(pixels[:, 1]).astype(int), np.floor(pixels[:, 0]).astype(int)
        inside = (i >= 0) & (i < stored.shape[0]) & (j >= 0) & (j < stored.shape[1])
        depth[row, inside] = stored[i[inside], j[inside]]
    return depth


def _raw_depth(path: Path, size: tuple[int, int]) -> np.ndarray:
    """4-byte floats, row by row and without a header, named .JPG all the same; inf is unknown."""
    data = read_bytes(path)
    if len(data) != 4 * size[0] * size[1]:
        raise malformed(path, f"not {size[1]}x{size[0]} floats but {len(data)} bytes")
    depth = np.frombuffer(data, "<f4").reshape(size).copy()
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    return depth


def _scan(folder: Path) -> np.ndarray:
    """The laser scans of a scene, each moved as ``scan_alignment.mlp`` says."""
    path = folder / "scan_alignment.mlp"
    text = read_text(path)
    clouds = []
    # Not an XML parser: a project is a list of meshes, and entities have no business in it.
    for attributes, body in re.findall(r"<MLMesh\b([^>]*)>(.*?)</MLMesh>", text, re.DOTALL):
        name = re.search(r'\bfilename="([^"]+)"', attributes)
        matrix = re.search(r"<MLMatrix44>([^<]*)</MLMatrix44>", body)
        with parsing(path, "a MeshLab project"):
            if name is None or matrix is None or Path(name[1]).name != name[1]:
                raise ValueError("a mesh lacks its file name or matrix")
            pose = rigid(numbers([float(v) for v in matrix[1].split()], 16).reshape(4, 4))
        clouds.append(geometry.transform(pose, ply_points.read(folder / name[1])))
    if not clouds:
        raise malformed(path, "it lists no mesh")
    return np.concatenate(clouds)


def _preprocessed(folder: Path) -> Recording:
    """A scene of Pi3's copy: an .npz of ``intrinsics`` and ``extrinsics`` for every picture."""
    pictures = folder / "images" / "custom_undistorted"
    paths = tuple(sorted(path for path in pictures.iterdir() if path.suffix == ".JPG"))
    if not paths:
        raise InputError(f"{pictures} holds no .JPG; unpack the dataset again")
    intrinsics, poses = [], []
    for picture in paths:
        path = folder / "custom_undistorted_cam" / f"{picture.stem}.npz"
        with parsing(path, "a camera"):
            try:
                # Of bytes: given a path, np.load leaves a damaged file open.
                with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
                    k, pose = numbers(arrays["intrinsics"], 3, 3), rigid(arrays["extrinsics"])
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(str(error)) from None
            # As that code unprojects them: integer coordinates are pixel centres.
            intrinsics.append(pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5))
        poses.append(pose)
    sizes = np.array([picture_size(path) for path in paths])
    depths = folder / "ground_truth_depth" / "custom_undistorted"

    def depth(i: int) -> np.ndarray:
        return _raw_depth(depths / paths[i].name, (int(sizes[i, 0]), int(sizes[i, 1])))

    cameras = Cameras(np.stack(intrinsics), np.stack(poses), sizes)
    return Recording(folder.name, paths, cameras, depth=depth if depths.is_dir() else None)


DATASET = Dataset(
    name="eth3d",
    title="ETH3D high-resolution multi-view",
    fetch=(
        "get SCENE_dslr_undistorted.7z, SCENE_dslr_jpg.7z, SCENE_dslr_depth.7z and "
        "SCENE_dslr_scan_eval.7z from www.eth3d.net/datasets (CC BY-NC-SA 4.0) and unpack them "
        "into one folder; the root then holds SCENE/images/dslr_images_undistorted, "
        "dslr_calibration_undistorted, dslr_calibration_jpg, ground_truth_depth/dslr_images and "
        "dslr_scan_eval/scan_alignment.mlp"
    ),
    splits=("train", "test"),
    read=read,
)
