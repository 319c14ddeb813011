"""Any folder of pictures with a COLMAP model, sparse or dense.

Layout: ``sparse/0`` or ``sparse`` (binary or text) and ``images``, as COLMAP, MipNeRF-360 and the
gaussian splatting codes have it; a dense workspace of ``colmap image_undistorter`` adds
``stereo/depth_maps`` and ``fused.ply`` (colmap.github.io/format.html).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...recording import Recording
from ...types import Cameras
from .. import colmap_cameras, ply_points
from ..dataset_files import (
    check_root,
    malformed,
    parsing,
    picture_size,
    read_bytes,
    resized,
    safe_name,
    wrong_root,
)
from . import Dataset


def read(root: Path, split: str) -> list[Recording]:
    """The model in the root, or one in each of its folders; pictures in the order of their names.

    Cameras must be PINHOLE or SIMPLE_PINHOLE: the lens is not modelled here, and a model with
    distortion is refused with the command that undistorts it. Pictures of another size than their
    cameras but of equal shape are taken for resized copies. Depth is that of dense stereo where
    every picture has a ``geometric`` map, points are ``fused.ply``; a sparse cloud is no surface
    and is not offered. The unit is taken for arbitrary.

    Raises:
        InputError: the root is missing or has no model, a model is malformed or distorted.
    """
    root = check_root(DATASET, root, split)
    model = colmap_cameras.find(root)
    if model is not None:
        return [_recording(root, model)]
    found = [(f, m) for f in sorted(root.iterdir()) if (m := colmap_cameras.find(f)) is not None]
    if not found:
        raise wrong_root(DATASET, root, "holds no COLMAP model")
    return [_recording(folder, model) for folder, model in found]


def _recording(folder: Path, model: Path) -> Recording:
    names, declared = colmap_cameras.read(model)
    pictures = folder / "images" if (folder / "images").is_dir() else folder
    paths = tuple(pictures / name for name in names)
    sizes = [picture_size(path) for path in paths]
    intrinsics = []
    for k, (height, width), size, path in zip(
        declared.intrinsics, declared.sizes.tolist(), sizes, paths, strict=True
    ):
        with parsing(path, "the picture of its COLMAP camera"):
            intrinsics.append(resized(k, (height, width), size))
    depths = [folder / "stereo" / "depth_maps" / f"{name}.geometric.bin" for name in names]
    fused = folder / "fused.ply"
    return Recording(
        safe_name(folder.resolve().name),
        paths,
        Cameras(np.stack(intrinsics), declared.camera_from_world, np.array(sizes)),
        depth=(lambda i: read_map(depths[i])) if all(d.is_file() for d in depths) else None,
        points=(lambda: ply_points.read(fused)) if fused.is_file() else None,
        units="arbitrary",
    )


def read_map(path: Path) -> np.ndarray:
    """(H, W) float32 depth of dense stereo: ``width&height&channels&`` and floats; 0 is unknown.

    Raises:
        InputError: it cannot be read or is no such file.
    """
    data = read_bytes(path)
    header = re.match(rb"(\d{1,6})&(\d{1,6})&1&", data)
    if header is None:
        raise malformed(path, "not a depth map of COLMAP")
    width, height = int(header[1]), int(header[2])
    if len(data) - header.end() != 4 * width * height:
        raise malformed(path, f"{width}x{height} floats do not fill it")
    depth = np.frombuffer(data, "<f4", offset=header.end()).reshape(height, width).copy()
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    return depth


DATASET = Dataset(
    name="colmap",
    title="A COLMAP folder",
    fetch=(
        "any pictures that COLMAP has posed (`colmap automatic_reconstructor`, then `colmap "
        "image_undistorter` where lenses are distorted); the root then holds images/ and "
        "sparse/0/cameras and images as .bin or .txt, or folders of this kind"
    ),
    splits=("all",),
    read=read,
    units="arbitrary",
)
