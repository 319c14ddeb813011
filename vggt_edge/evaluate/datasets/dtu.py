"""DTU MVS: 124 objects on a table, 49 or 64 calibrated pictures each, structured-light scans.

Two layouts, told apart by what the root holds:

``Rectified``     the pictures and scans of roboimagedata.compute.dtu.dk with the cameras of MVSNet
                  (github.com/YoYo000/MVSNet) and the ``Depths_raw`` of CasMVSNet. Points are the
                  whole scan; the benchmark's own program also takes predicted points inside
                  ``ObsMask`` only and true ones above ``Plane`` only, which is left to it.
``scanN/images``  the preprocessed copy of 22 test scans that github.com/yyfz/Pi3 (branch
                  evaluation) and Spann3R score: ``depths`` in .npy, ``binary_masks``.

Millimetres are turned into metres. Camera files: MVSNet's README, "File formats".
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...recording import Recording
from ...types import Cameras
from .. import ply_points
from ..dataset_files import (
    check_root,
    malformed,
    numbers,
    parsing,
    picture_size,
    pinhole,
    read_bytes,
    read_gray,
    read_text,
    resized,
    rigid,
    wrong_root,
)
from . import Dataset

SCANS = {
    "test": (
        *(1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118),
    ),
    "val": (3, 5, 17, 21, 28, 35, 37, 38, 40, 43, 56, 59, 66, 67, 82, 86, 106, 117),
    "train": (
        *(2, 6, 7, 8, 14, 16, 18, 19, 20, 22, 30, 31, 36, 39, 41, 42, 44, 45, 46, 47, 50, 51, 52),
        *(53, 55, 57, 58, 60, 61, 63, 64, 65, 68, 69, 70, 71, 72, 74, 76, 83, 84, 85, 87, 88, 89),
        *(90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 107, 108, 109),
        *(111, 112, 113, 115, 116, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128),
    ),
}
"""MVSNet's split of the scans by number."""
METRES = 1e-3
LIGHT = "3_r5000"
"""Of the seven lights, the one that MVSNet and its heirs evaluate."""
ERODE = 10
"""Pixels by which Pi3's evaluation shrinks the masks of the preprocessed copy."""


def read(root: Path, split: str) -> list[Recording]:
    """The split's scans that are there, by number, pictures by number, metres.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    recordings = []
    for number in SCANS[split]:
        scan = f"scan{number}"
        if (root / "Rectified" / scan).is_dir():
            recordings.append(_rectified(root, number))
        elif (root / scan / "images").is_dir():
            recordings.append(_preprocessed(root / scan))
    if not recordings:
        raise wrong_root(DATASET, root, f"holds no scan of the split {split}")
    return recordings


def _cameras(
    files: list[Path], paths: list[Path], declared: tuple[int, int] | None = None
) -> Cameras:
    """Cameras of the pictures; ``files`` hold an extrinsic and an intrinsic matrix each.

    Where given, ``declared`` is the (height, width) that the intrinsics are for.
    """
    poses, intrinsics = [], []
    sizes = [picture_size(path) for path in paths]
    for path, size in zip(files, sizes, strict=True):
        words = read_text(path).split()
        with parsing(path, "an MVSNet camera"):
            if words[0] != "extrinsic" or words[17] != "intrinsic":
                raise ValueError("it does not name its extrinsic and intrinsic matrix")
            pose = rigid(numbers([float(v) for v in words[1:17]], 16).reshape(4, 4))
            pose[:, 3] *= METRES
            k = numbers([float(v) for v in words[18:27]], 9).reshape(3, 3)
            # DTU's calibration is MATLAB's, MVSNet's code takes its numbers at pixel centres.
            k = pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)
            intrinsics.append(resized(k, declared or size, size))
            if not (0 < intrinsics[-1][0, 2] < size[1] and 0 < intrinsics[-1][1, 2] < size[0]):
                raise ValueError(f"it is not for pictures of {size[1]}x{size[0]}")
        poses.append(pose)
    return Cameras(np.stack(intrinsics), np.stack(poses), np.array(sizes))


def _rectified(root: Path, number: int) -> Recording:
    scan = f"scan{number}"
    found = {}
    for path in (root / "Rectified" / scan).iterdir():
        match = re.fullmatch(rf"rect_(\d{{3}})_{LIGHT}\.png", path.name)
        if match:
            found[int(match[1]) - 1] = path  # pictures count from 1, cameras from 0
    if not found:
        folder = root / "Rectified" / scan
        raise InputError(f"{folder} holds no rect_NNN_{LIGHT}.png; unpack the dataset again")
    views = sorted(found)
    paths = [found[view] for view in views]
    depths = [root / "Depths_raw" / scan / f"depth_map_{view:04d}.pfm" for view in views]
    cloud = root / "Points" / "stl" / f"stl{number:03d}_total.ply"

    def depth(i: int) -> np.ndarray:
        depth = read_pfm(depths[i])
        mask = depths[i].with_name(f"depth_visual_{views[i]:04d}.png")
        if mask.is_file():
            depth = _masked(depth, mask, read_gray(mask) > 10)
        return depth * np.float32(METRES)

    return Recording(
        scan,
        tuple(paths),
        _cameras([root / "Cameras" / f"{view:08d}_cam.txt" for view in views], paths),
        depth=depth if all(path.is_file() for path in depths) else None,
        points=(lambda: ply_points.read(cloud) * METRES) if cloud.is_file() else None,
    )


def _preprocessed(folder: Path) -> Recording:
    paths = sorted(path for path in (folder / "images").iterdir() if path.suffix == ".jpg")
    if not paths:
        raise InputError(f"{folder / 'images'} holds no .jpg; unpack the dataset again")

    def stored(i: int) -> np.ndarray:
        path = folder / "depths" / f"{paths[i].stem}.npy"
        with parsing(path, "a depth map"):
            try:
                values = np.load(path, allow_pickle=False, mmap_mode="r")
            except (OSError, EOFError) as error:
                raise InputError(f"cannot read {path}: {error}; check the download") from None
            if values.ndim != 2 or values.dtype.kind != "f":
                raise ValueError(f"it holds {values.dtype} of shape {values.shape}")
        return values

    def depth(i: int) -> np.ndarray:
        depth = np.nan_to_num(stored(i).astype(np.float32), nan=0, posinf=0, neginf=0)
        mask = folder / "binary_masks" / f"{paths[i].stem}.png"
        inside = _eroded(_nearest(read_gray(mask) > 127, depth.shape))
        return _masked(depth, mask, inside) * np.float32(METRES)

    has_depth = (folder / "depths").is_dir()
    # Pi3's loader brings pictures to the size of the depth, so the cameras are for that.
    rows, cols = stored(0).shape if has_depth else picture_size(paths[0])
    files = [folder / "cams" / f"{path.stem}_cam.txt" for path in paths]
    cameras = _cameras(files, paths, (rows, cols))
    return Recording(folder.name, tuple(paths), cameras, depth=depth if has_depth else None)


def _masked(depth: np.ndarray, path: Path, mask: np.ndarray) -> np.ndarray:
    if mask.shape != depth.shape:
        raise malformed(path, "not of the size of its depth")
    kept: np.ndarray = np.where(mask & (depth > 0), depth, np.float32(0))
    return kept


def _nearest(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool at another size, as OpenCV's INTER_NEAREST: pixel i takes floor(i * ratio)."""
    rows, cols = (np.arange(new) * old // new for old, new in zip(mask.shape, shape, strict=True))
    return mask[rows[:, None], cols]


def _eroded(mask: np.ndarray) -> np.ndarray:
    """True where all of the ERODE x ERODE pixels around are, as OpenCV's ``erode``.

    The square reaches from 5 before to 4 after; what lies outside the picture counts as True.
    """
    for axis in (0, 1):
        before, after = ERODE // 2, ERODE - 1 - ERODE // 2
        width = [(before, after) if axis == a else (0, 0) for a in (0, 1)]
        padded = np.pad(mask, width, constant_values=True)
        windows = np.lib.stride_tricks.sliding_window_view(padded, ERODE, axis=axis)
        mask = np.all(windows, axis=-1)
    return mask


def read_pfm(path: Path) -> np.ndarray:
    """(H, W) float32 of a one-channel PFM, whose rows run from the bottom up; 0 where not finite.

    Format: www.pauldebevec.com/Research/HDR/PFM.

    Raises:
        InputError: it cannot be read or is no such file.
    """
    data = read_bytes(path)
    header = re.match(rb"Pf\s+(\d{1,6})\s+(\d{1,6})\s+(-?[0-9.eE+-]+)\s", data)
    with parsing(path, "a one-channel PFM"):
        if header is None:
            raise ValueError("its header is not one")
        width, height, scale = int(header[1]), int(header[2]), float(header[3])
        if len(data) - header.end() != 4 * width * height:
            raise ValueError(f"{width}x{height} floats do not fill it")
        order = "<f4" if scale < 0 else ">f4"
        rows = np.frombuffer(data, order, offset=header.end()).reshape(height, width)
    values = rows[::-1].astype(np.float32)
    values[~np.isfinite(values)] = 0
    return values


DATASET = Dataset(
    name="dtu",
    title="DTU MVS",
    fetch=(
        "get Rectified.zip and Points.zip from roboimagedata.compute.dtu.dk (free for research), "
        "Cameras from MVSNet's dtu_training and, for depth, CasMVSNet's Depths_raw.zip; the root "
        "then holds Rectified/scanN/rect_NNN_3_r5000.png, Cameras/NNNNNNNN_cam.txt, "
        "Points/stl/stlNNN_total.ply and Depths_raw/scanN/depth_map_NNNN.pfm; or Pi3's "
        "preprocessed copy, scanN/images, cams, depths and binary_masks"
    ),
    splits=("test", "val", "train"),
    read=read,
)
