"""RealEstate10K: clips of YouTube tours of houses, posed by structure from motion.

Camera files: google.github.io/realestate10k/download.html (one line a frame: microseconds; focal
lengths and principal point as shares of width and height; two zeros; a row-major 3x4 matrix from
world to camera, OpenCV axes). Where frames lie: the downloaders write CLIP/TIMESTAMP.jpg or .png,
below ``frames/test`` in facebookresearch/PoseDiffusion, whose ``re10k_test_1800.txt`` names the
clips that VGGT's table is about.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ...recording import Recording
from ...types import Cameras
from ..dataset_files import (
    SAFE_NAME,
    check_root,
    malformed,
    numbers,
    parsing,
    picture_size,
    pinhole,
    read_text,
    rigid,
    wrong_root,
)
from . import Dataset

CLIP_LIST = "re10k_{split}_1800.txt"
_PLACES = ("frames/{split}/{clip}", "{split}/{clip}", "{clip}/images", "{clip}")
_SUFFIXES = (".png", ".jpg")


def read(root: Path, split: str) -> list[Recording]:
    """Clips by name, frames in time; those whose picture was not extracted are left out.

    All clips of the split, or those that ``re10k_SPLIT_1800.txt`` names where it lies in the root.
    Clips without pictures (their videos have gone from YouTube) are left out, so compare numbers
    only between runs on the same clips. The world's unit is arbitrary, another one a clip.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    folders = [root / "RealEstate10K" / split, root / "metadata" / split, root / split]
    texts = next((found for f in folders if (found := sorted(f.glob("*.txt")))), [])
    if not texts:
        raise wrong_root(DATASET, root, f"holds no {split}/CLIP.txt")
    chosen = root / CLIP_LIST.format(split=split)
    if chosen.is_file():
        names = set(read_text(chosen).split())
        texts = [path for path in texts if path.stem in names]
    recordings = []
    for path in texts:
        if not SAFE_NAME.fullmatch(path.stem):
            raise malformed(path, "its name is not that of a clip")
        recording = _clip(root, split, path)
        if recording is not None:
            recordings.append(recording)
    if not recordings:
        raise wrong_root(DATASET, root, "holds no frames of its clips")
    return recordings


def parse(text: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """A camera file: S timestamps in microseconds, (S, 4) fx, fy, cx, cy, and (S, 3, 4) extrinsics.

    Raises:
        ValueError: it is not one.
    """
    # The first line is the address of the video.
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    if not rows:
        raise ValueError("it has no cameras")
    times = [int(row[0]) for row in rows]
    table = numbers([[float(v) for v in row[1:]] for row in rows], len(rows), 18)
    return times, table[:, :4], np.stack([rigid(row.reshape(3, 4)) for row in table[:, 6:]])


def _clip(root: Path, split: str, path: Path) -> Recording | None:
    with parsing(path, "a camera file of RealEstate10K"):
        times, shares, poses = parse(read_text(path))
    folder = next(
        (f for p in _PLACES if (f := root / p.format(split=split, clip=path.stem)).is_dir()), None
    )
    if folder is None:
        return None
    names = {file.name: file for file in folder.iterdir() if file.suffix in _SUFFIXES}
    # pixelSplat's and VGGT's preprocessing number the frames instead: 0000.png and so on.
    numbered = "0000.png" in names or "0000.jpg" in names
    if numbered and len(names) != len(times):
        raise InputError(f"{folder} holds {len(names)} frames, but {path} has {len(times)}")
    found = [
        (i, names[name])
        for i, time in sorted(enumerate(times), key=lambda pair: pair[1])
        for suffix in _SUFFIXES
        if (name := f"{f'{i:04d}' if numbered else time}{suffix}") in names
    ]
    if not found:
        return None
    kept = [i for i, _ in found]
    # All frames of a clip come from one video.
    height, width = picture_size(found[0][1])
    size = np.array([width, height, width, height])
    with parsing(path, "a camera file of RealEstate10K"):
        intrinsics = np.stack([pinhole(*(share * size)) for share in shares[kept]])
    cameras = Cameras(intrinsics, poses[kept], np.tile([height, width], (len(kept), 1)))
    return Recording(path.stem, tuple(file for _, file in found), cameras, units="arbitrary")


DATASET = Dataset(
    name="re10k",
    title="RealEstate10K",
    fetch=(
        "get RealEstate10K.tar.gz from google.github.io/realestate10k (cameras: CC BY 4.0; the "
        "videos are their owners' and are fetched from YouTube by a downloader of your choice); "
        "the root then holds RealEstate10K/test/CLIP.txt and frames/test/CLIP/TIMESTAMP.png or "
        ".jpg; re10k_test_1800.txt of facebookresearch/PoseDiffusion in the root picks VGGT's clips"
    ),
    splits=("test", "train"),
    read=read,
    units="arbitrary",
)
