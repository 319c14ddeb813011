"""ScanNet: indoor RGB-D videos with poses of BundleFusion and reconstructed meshes.

Dai et al., "ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes", CVPR 2017. Layout:
``SensReader/python`` (what the .sens files are exported to: color/N.jpg, depth/N.png in
millimetres, pose/N.txt from camera to world, intrinsic/*.txt) and the README of ScanNet/ScanNet;
folders ``scans``, ``scans_test`` and lists: the same repository's ``Tasks/Benchmark``; the fifty
scenes: ``eval/scannet_50.yaml`` of FastVGGT (stored in skyrimHuang/FastVGGT).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...recording import Recording
from .. import ply_points
from ..dataset_files import (
    SAFE_NAME,
    check_root,
    malformed,
    parsing,
    picture_size,
    read_text,
    rigid,
    wrong_root,
)
from ..rgbd_files import by_number, one_lens, read_depth, read_matrix
from . import Dataset

TEST = tuple(f"scene{number:04d}_00" for number in range(707, 807))
_FIFTY = (
    *("0000_00", "0013_02", "0029_01", "0042_02", "0056_00", "0071_00", "0084_01", "0096_00"),
    *("0109_00", "0121_01", "0136_01", "0150_00", "0164_01", "0177_01", "0194_00", "0207_01"),
    *("0221_01", "0238_00", "0254_01", "0267_00", "0280_00", "0294_02", "0309_00", "0325_01"),
    *("0340_01", "0353_02", "0367_01", "0380_02", "0395_00", "0409_01", "0421_02", "0435_03"),
    *("0451_01", "0466_01", "0477_00", "0493_01", "0509_01", "0525_00", "0540_02", "0555_00"),
    *("0571_00", "0582_02", "0593_00", "0606_01", "0619_00", "0631_01", "0648_00", "0663_01"),
    *("0675_00", "0691_00"),
)
FIFTY = tuple(f"scene{place}" for place in _FIFTY)
"""ScanNet-50 of the papers that make VGGT fast."""
_FOLDERS = ("scans_test", "scans", "")


def read(root: Path, split: str) -> list[Recording]:
    """Scenes that are there, in the order of their names, which is also what they are called.

    "test" are scene0707_00 to scene0806_00, "fifty" is ScanNet-50, "val" and "train" are read from
    scannetv2_val.txt and scannetv2_train.txt in the root or its folder splits, "all" is every scene
    folder. Frames whose pose is not finite are left out. The true surface is the vertices of
    SCENE_vh_clean_2.ply where that file lies in the scene's folder.

    Raises:
        InputError: the root is missing or not of this layout, a file is malformed.
    """
    root = check_root(DATASET, root, split)
    scenes = _exported(root)
    names = {"test": TEST, "fifty": FIFTY, "all": tuple(scenes)}.get(split)
    if names is None:
        names = _listed(root, split)
    found = [name for name in names if name in scenes]
    if not found:
        raise wrong_root(DATASET, root, f"holds no exported scene of the split {split}")
    return [_recording(root, name, scenes[name]) for name in found]


def _exported(root: Path) -> dict[str, Path]:
    """Folders of scenes whose .sens has been exported."""
    places = [root / folder for folder in _FOLDERS if (root / folder).is_dir()]
    scenes = [path for place in places for path in place.glob("scene*_*")]
    return {path.name: path for path in sorted(scenes) if (path / "color").is_dir()}


def _listed(root: Path, split: str) -> tuple[str, ...]:
    name = f"scannetv2_{split}.txt"
    path = next((p for p in (root / name, root / "splits" / name) if p.is_file()), None)
    if path is None:
        raise wrong_root(DATASET, root, f"lacks {name}, the list of the split {split}")
    with parsing(path, "a list of scenes"):
        names = read_text(path).split()
        if odd := [scene for scene in names if not SAFE_NAME.fullmatch(scene)]:
            raise ValueError(f"{odd[0]!r} is no scene")
    return tuple(sorted(names))


def _intrinsics(path: Path) -> np.ndarray:
    matrix = read_matrix(path, 4, 4)[:3, :3]
    limits = np.abs(matrix).max() < 1e9 and matrix[0, 0] > 0 and matrix[1, 1] > 0
    if not (limits and (matrix[2] == [0, 0, 1]).all()):
        raise malformed(path, "no pinhole camera")
    return matrix


def _recording(root: Path, name: str, folder: Path) -> Recording:
    for part in ("color", "depth", "pose", "intrinsic"):
        if not (folder / part).is_dir():
            raise wrong_root(DATASET, root, f"lacks {(folder / part).relative_to(root)}")
    pictures = by_number(folder / "color", r"(\d+)\.jpg")
    depths = by_number(folder / "depth", r"(\d+)\.png")
    frames, poses = [], []
    for i in pictures:
        path = folder / "pose" / f"{i}.txt"
        matrix = read_matrix(path, 4, 4)
        # BundleFusion writes -inf where tracking was lost.
        if np.isfinite(matrix).all():
            with parsing(path, "a camera pose"):
                poses.append(rigid(matrix))
            if i not in depths:
                raise wrong_root(DATASET, root, f"has {name}/color/{i}.jpg, but no depth/{i}.png")
            frames.append(i)
    if not frames:
        raise malformed(folder / "pose", "no frame has a finite pose")
    size = picture_size(pictures[frames[0]])
    color = _intrinsics(folder / "intrinsic/intrinsic_color.txt")
    sensor = _intrinsics(folder / "intrinsic/intrinsic_depth.txt")
    mesh = folder / f"{name}_vh_clean_2.ply"
    return Recording(
        name,
        tuple(pictures[i] for i in frames),
        one_lens(color, np.stack(poses), size),
        depth=lambda i: _as_color_sees(
            read_depth(depths[frames[i]], 0.001, (65535,)), sensor, color, size
        ),
        points=(lambda: ply_points.read(mesh)) if mesh.is_file() else None,
    )


def _as_color_sees(
    depth: np.ndarray, sensor: np.ndarray, color: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Depth over the field of view of the colour camera, of its own size: the nearest pixel's.

    The two cameras share a centre and axes (extrinsic_color.txt is the identity), but not a field
    of view: the colour picture reaches several pixels further, where nothing is known.
    """
    rows, cols = depth.shape
    # Pixel centres of a map of this size in the colour picture, then on the sensor.
    u = (np.arange(cols) + 0.5) * size[1] / cols - 0.5
    v = (np.arange(rows) + 0.5) * size[0] / rows - 0.5
    u = (u - color[0, 2]) / color[0, 0] * sensor[0, 0] + sensor[0, 2]
    v = (v - color[1, 2]) / color[1, 1] * sensor[1, 1] + sensor[1, 2]
    col, row = np.rint(u).astype(int), np.rint(v).astype(int)
    seen = ((row >= 0) & (row < rows))[:, None] & ((col >= 0) & (col < cols))
    there = depth[row.clip(0, rows - 1)[:, None], col.clip(0, cols - 1)]
    return np.where(seen, there, 0).astype(np.float32)


DATASET = Dataset(
    name="scannet",
    title="ScanNet",
    fetch=(
        "sign the terms of use at github.com/ScanNet/ScanNet (non-commercial research), download "
        "the .sens and _vh_clean_2.ply and export each .sens with SensReader/python/reader.py: "
        "color, depth, poses, intrinsics; the root then holds scans/SCENE or scans_test/SCENE or "
        "SCENE, each with color/N.jpg, depth/N.png, pose/N.txt, intrinsic/intrinsic_color.txt, "
        "intrinsic/intrinsic_depth.txt and, for points, SCENE_vh_clean_2.ply; scannetv2_val.txt of "
        "Tasks/Benchmark for split val"
    ),
    splits=("test", "fifty", "val", "train", "all"),
    read=read,
)
