"""TUM RGB-D: hand-held and robot-borne Kinects under a motion capture system.

Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012. Formats and
calibration: cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats; association: ``associate.py``
of the benchmark's tools (closest pairs first, within 20 ms); lists of sequences:
``scripts/eval_tum.sh`` of rmurai0610/MASt3R-SLAM and ``datasets_preprocess/prepare_tum.py`` of
Junyi42/monst3r.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

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
    resized,
    wrong_root,
)
from ..rgbd_files import one_lens, read_depth
from . import Dataset

# fx, fy, cx, cy of the three colour cameras, calibrated; depth is registered to them.
CAMERAS = {
    "1": (517.3, 516.5, 318.6, 255.3),
    "2": (520.9, 521.0, 325.1, 249.7),
    "3": (535.4, 539.2, 320.1, 247.6),
}
UNIT = 1 / 5000
"""Metres of one count of depth."""
REACH = 0.02
"""Seconds within which two stamps are one moment."""

_FREIBURG1 = ("360", "desk", "desk2", "floor", "plant", "room", "rpy", "teddy", "xyz")
_MOTIONS = ("halfsphere", "rpy", "static", "xyz")
SPLITS = {
    "freiburg1": tuple(f"rgbd_dataset_freiburg1_{name}" for name in _FREIBURG1),
    "dynamics": tuple(
        f"rgbd_dataset_freiburg3_{activity}_{motion}"
        for activity in ("sitting", "walking")
        for motion in _MOTIONS
    ),
    "all": (),
}


def read(root: Path, split: str) -> list[Recording]:
    """Sequences that are there, named as their folders; the root may be one of them itself.

    "freiburg1" are the nine of SLAM tables, "dynamics" the eight with people in the room, "all" is
    every folder with a groundtruth.txt. Frames are the colour pictures that have a pose within
    20 ms; depth is 0 throughout where no map is as close. The lens distortion of freiburg1 and
    freiburg2, up to several pixels in the corners, is not modelled; freiburg3 has none.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    inside = [root] if (root / "groundtruth.txt").is_file() else sorted(root.iterdir())
    found = [
        folder
        for folder in inside
        if (folder / "groundtruth.txt").is_file()
        and (split == "all" or folder.resolve().name in SPLITS[split])
    ]
    if not found:
        raise wrong_root(DATASET, root, f"holds no sequence of the split {split}")
    return [_recording(folder) for folder in found]


def associate(first: np.ndarray, second: np.ndarray, reach: float = REACH) -> np.ndarray:
    """(M, 2) indices of stamps that are one moment: closest first, each used once, by ``first``.

    Args:
        first: (N,) seconds, in any order.
        second: (K,) seconds, in any order.
        reach: pairs are strictly closer than this.
    """
    order = np.argsort(second, kind="stable")
    low = np.searchsorted(second[order], first - reach, "left")
    high = np.searchsorted(second[order], first + reach, "right")
    pairs = [(i, int(order[k])) for i in range(len(first)) for k in range(low[i], high[i])]
    gaps = np.array([abs(first[i] - second[j]) for i, j in pairs])
    matches, taken = {}, set()
    for index in np.argsort(gaps, kind="stable"):
        i, j = pairs[index]
        if gaps[index] < reach and i not in matches and j not in taken:
            matches[i] = j
            taken.add(j)
    return np.array(sorted(matches.items()), dtype=int).reshape(-1, 2)


def _lines(path: Path, columns: int) -> list[list[str]]:
    """Words of the lines that are no comments."""
    with parsing(path, f"lines of {columns} columns"):
        rows = [re.split(r"[\s,]+", line.strip()) for line in read_text(path).splitlines()]
        rows = [row for row in rows if row[0] and not row[0].startswith("#")]
        if any(len(row) != columns for row in rows):
            raise ValueError(f"a line has not {columns} columns")
        return rows


def _pictures(folder: Path, name: str) -> tuple[np.ndarray, list[Path]]:
    """Stamps and paths of rgb.txt or depth.txt."""
    rows = _lines(folder / name, 2)
    with parsing(folder / name, "stamps and file names"):
        stamps = numbers([row[0] for row in rows], len(rows))
        for _, place in rows:
            if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
                raise ValueError(f"the path {place!r} leaves the sequence")
    return stamps, [folder / place for _, place in rows]


def _recording(folder: Path) -> Recording:
    name = folder.resolve().name
    camera = re.search(r"freiburg([123])", name)
    if camera is None:
        raise wrong_root(DATASET, folder, "has no freiburg1, 2 or 3 in its name to tell the camera")
    for needed in ("rgb.txt", "depth.txt"):
        if not (folder / needed).is_file():
            raise wrong_root(DATASET, folder, f"lacks {needed}")
    truth = folder / "groundtruth.txt"
    rows = _lines(truth, 8)
    with parsing(truth, "a trajectory"):
        trajectory = numbers(rows, len(rows), 8)
        if np.abs(trajectory[:, 1:]).max(initial=0) > 1e9:
            raise ValueError("a pose holds implausibly large numbers")
        if np.linalg.norm(trajectory[:, 4:], axis=1).min(initial=1) < 0.5:
            raise ValueError("a quaternion has no length")
    stamps, pictures = _pictures(folder, "rgb.txt")
    posed = associate(stamps, trajectory[:, 0])
    if not len(posed):
        raise malformed(truth, f"no pose lies within {REACH} s of a picture of rgb.txt")
    moments, places = trajectory[posed[:, 1]], [pictures[i] for i in posed[:, 0]]
    rotation = geometry.quaternion_to_matrix(moments[:, 4:])
    world_from_camera = np.concatenate([rotation, moments[:, 1:4, None]], axis=2)

    depth_stamps, depth_paths = _pictures(folder, "depth.txt")
    maps = {i: depth_paths[j] for i, j in associate(stamps[posed[:, 0]], depth_stamps)}
    size = picture_size(places[0])
    fx, fy, cx, cy = CAMERAS[camera[1]]
    try:
        intrinsics = resized(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (480, 640), size)
    except ValueError as error:
        raise malformed(places[0], str(error)) from None

    def depth(index: int) -> np.ndarray:
        if index not in maps:
            return np.zeros(size, dtype=np.float32)
        return read_depth(maps[index], UNIT)

    return Recording(name, tuple(places), one_lens(intrinsics, world_from_camera, size), depth)


DATASET = Dataset(
    name="tum",
    title="TUM RGB-D",
    fetch=(
        "download the sequences' .tgz from cvg.cit.tum.de/data/datasets/rgbd-dataset/download "
        "(CC BY 4.0) and unpack them; the root then holds folders such as "
        "rgbd_dataset_freiburg1_desk with rgb.txt, depth.txt, groundtruth.txt, rgb and depth"
    ),
    splits=tuple(SPLITS),
    read=read,
)
