"""CO3Dv2: turntable-like phone videos of everyday objects, posed by COLMAP.

Layout and encodings: the README, ``co3d/dataset/data_types.py`` and ``co3d_dataset_v2.py`` of
github.com/facebookresearch/co3d; NDC cameras: ``pytorch3d/renderer/camera_conversions.py``; choice
of sequences: ``evaluation/preprocess_co3d.py`` and ``test_co3d.py`` of facebookresearch/vggt, which
go back to RelPose++ (``viewpoint_quality_score`` above 0.5, lists of ``fewview_dev``).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

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
    read_gray,
    read_json,
    rigid,
    wrong_root,
)
from . import Dataset

SEEN = (
    *("apple", "backpack", "banana", "baseballbat", "baseballglove", "bench", "bicycle", "bottle"),
    *("bowl", "broccoli", "cake", "car", "carrot", "cellphone", "chair", "cup", "donut"),
    *("hairdryer", "handbag", "hydrant", "keyboard", "laptop", "microwave", "motorcycle", "mouse"),
    *("orange", "parkingmeter", "pizza", "plant", "stopsign", "teddybear", "toaster", "toilet"),
    *("toybus", "toyplane", "toytrain", "toytruck", "tv", "umbrella", "vase", "wineglass"),
)
"""The 41 categories of PoseDiffusion's and VGGT's training and evaluation."""
UNSEEN = (
    *("ball", "book", "couch", "frisbee", "hotdog", "kite", "remote", "sandwich", "skateboard"),
    "suitcase",
)
"""The 10 categories that PoseDiffusion and RelPose++ never trained on."""
MIN_QUALITY = 0.5
MAX_TRANSLATION = 1e5
_FLIP = np.diag([-1.0, -1.0, 1.0])


class _Frame(NamedTuple):
    """One picture: paths below the root, extrinsics, and intrinsics still in NDC."""

    picture: str
    pose: np.ndarray
    focal: np.ndarray
    principal: np.ndarray
    isotropic: bool
    size: tuple[int, int] | None
    depth: tuple[str, str | None, float] | None


def read(root: Path, split: str) -> list[Recording]:
    """Sequences by category and name, named CATEGORY/SEQUENCE, of the categories that are there.

    Frames keep the order of the annotation, by which the published script draws. Where
    ``CATEGORY_test.jgz`` of the VGGT evaluation's preprocessing lies in the root it is read in
    place of the much larger annotations; it holds no depth. Left out, as by that script, are
    sequences with a translation that sums to above 1e5, and those whose pictures are not there; how
    many frames it takes is the protocol's to say. The world's unit is COLMAP's.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    subset = "train" if split == "train" else "test"
    recordings = []
    for category in UNSEEN if split == "unseen" else SEEN:
        packed = root / f"{category}_{subset}.jgz"
        if packed.is_file():
            sequences = _packed(packed)
        elif (root / category / "frame_annotations.jgz").is_file():
            packed = root / category / "frame_annotations.jgz"
            sequences = _published(root / category, subset)
        else:
            continue
        for name in sorted(sequences):
            frames = sequences[name]
            too_far = any(_FLIP.diagonal() @ f.pose[:, 3] > MAX_TRANSLATION for f in frames)
            if too_far:
                continue
            if not SAFE_NAME.fullmatch(name):
                raise malformed(packed, f"a sequence is called {name!r}")
            if (root / frames[0].picture).is_file():
                recordings.append(_recording(root, f"{category}/{name}", frames, packed))
    if not recordings:
        raise wrong_root(DATASET, root, f"holds no sequence of the {split} categories")
    return recordings


def _packed(path: Path) -> dict[str, list[_Frame]]:
    """Sequences of the preprocessed annotation: name to its list of frames."""
    with parsing(path, "a preprocessed CO3D annotation"):
        return {
            name: [_frame(f["filepath"], f, None, None) for f in frames]
            for name, frames in read_json(path).items()
            if frames
        }


def _published(folder: Path, subset: str) -> dict[str, list[_Frame]]:
    """Sequences of ``fewview_dev`` whose cameras are good."""
    lists = folder / "set_lists/set_lists_fewview_dev.json"
    sequences: dict[str, list[_Frame]] = {}
    with parsing(folder / "sequence_annotations.jgz", "a list of sequences"):
        for sequence in read_json(folder / "sequence_annotations.jgz"):
            # Absent scores are null.
            if (sequence["viewpoint_quality_score"] or 0.0) > MIN_QUALITY:
                sequences[sequence["sequence_name"]] = []
    with parsing(lists, "a set list"):
        wanted = [(s, n, p) for s, n, p in read_json(lists)[subset] if s in sequences]
    keys = {(s, n) for s, n, _ in wanted}
    found = {}
    path = folder / "frame_annotations.jgz"
    with parsing(path, "a list of frames"):
        for annotation in read_json(path):
            key = annotation["sequence_name"], annotation["frame_number"]
            if key in keys:
                found[key] = annotation
        for sequence, number, picture in wanted:
            annotation = found[sequence, number]
            height, width = annotation["image"]["size"]
            frame = _frame(
                picture, annotation["viewpoint"], (height, width), annotation.get("depth")
            )
            sequences[sequence].append(frame)
    return {name: frames for name, frames in sequences.items() if frames}


def _frame(
    picture: str, viewpoint: dict[str, Any], size: tuple[int, int] | None, depth: Any
) -> _Frame:
    """A frame of its ViewpointAnnotation: row vectors times R, axes left, up, forward.

    Raises:
        ValueError, TypeError, KeyError: the annotation is not one.
    """
    rotation = numbers(viewpoint["R"], 3, 3).T
    translation = numbers(viewpoint["T"], 3)
    # The preprocessed files do not say; all of version 2 is isotropic.
    form = viewpoint.get("intrinsics_format", "ndc_isotropic")
    if form not in ("ndc_isotropic", "ndc_norm_image_bounds"):
        raise ValueError(f"intrinsics_format {form!r}")
    scale = None
    if depth is not None:
        factor = float(numbers(depth["scale_adjustment"]))
        mask = depth.get("mask_path")
        scale = _below(depth["path"]), None if mask is None else _below(mask), factor
    return _Frame(
        _below(picture),
        rigid(np.concatenate([_FLIP @ rotation, _FLIP @ translation[:, None]], axis=1)),
        numbers(viewpoint["focal_length"], 2),
        numbers(viewpoint["principal_point"], 2),
        form == "ndc_isotropic",
        None if size is None else (int(size[0]), int(size[1])),
        scale,
    )


def _below(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"the path {path!r} leaves the dataset")
    return path


def _intrinsics(frame: _Frame, size: tuple[int, int]) -> np.ndarray:
    """Pixels of NDC: the picture's edges, or those of its shorter side, are at -1 and 1."""
    half = np.array(size[::-1]) / 2
    scale = half.min() if frame.isotropic else half
    return pinhole(*(frame.focal * scale), *(half - frame.principal * scale))


def _recording(root: Path, name: str, frames: list[_Frame], source: Path) -> Recording:
    # All pictures of a sequence have one size, says the README.
    first = frames[0].size or picture_size(root / frames[0].picture)
    sizes = [frame.size or first for frame in frames]
    with parsing(source, f"cameras of {name}"):
        intrinsics = [_intrinsics(f, size) for f, size in zip(frames, sizes, strict=True)]

    def depth(i: int) -> np.ndarray:
        place = frames[i].depth
        if place is None:
            return np.zeros(sizes[i], np.float32)
        return _depth(root, *place)

    return Recording(
        name,
        tuple(root / frame.picture for frame in frames),
        Cameras(np.stack(intrinsics), np.stack([f.pose for f in frames]), np.array(sizes)),
        depth=None if all(frame.depth is None for frame in frames) else depth,
        units="arbitrary",
    )


def _depth(root: Path, path: str, mask: str | None, factor: float) -> np.ndarray:
    """The bits of a 16-bit PNG are those of float16; 0, infinity and what the mask bars is unknown.

    Raises:
        InputError: a file is missing or not such a picture.
    """
    stored = read_gray(root / path)
    if stored.min() < 0 or stored.max() > 65535:
        raise malformed(root / path, "not 16 bits a pixel")
    depth = stored.astype(np.uint16).view(np.float16).astype(np.float32) * np.float32(factor)
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    if mask is not None:
        valid = read_gray(root / mask)
        if valid.shape != depth.shape:
            raise malformed(root / mask, "not of the size of its depth")
        depth[valid == 0] = 0
    return depth


DATASET = Dataset(
    name="co3d",
    title="CO3Dv2",
    fetch=(
        "run co3d/download_dataset.py of github.com/facebookresearch/co3d (terms in its LICENSE; "
        "5.5 TB, by category); the root then holds CATEGORY/frame_annotations.jgz, "
        "sequence_annotations.jgz, set_lists/set_lists_fewview_dev.json and "
        "SEQUENCE/images, depths, depth_masks; CATEGORY_test.jgz of the VGGT evaluation's "
        "preprocess_co3d.py may lie beside the categories"
    ),
    splits=("test", "train", "unseen"),
    read=read,
    units="arbitrary",
)
