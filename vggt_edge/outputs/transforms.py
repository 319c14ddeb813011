"""Cameras as nerfstudio's ``transforms.json``, which Instant-NGP and many splatting tools read too.

``transform_matrix`` is world-from-camera with OpenGL camera axes (x right, y up, z backwards), in
the scene's own world; pixels count from the corner of the image, so principal points gain 0.5.
Reference: docs.nerf.studio, "Data conventions".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import OutputError
from ..files import replacing
from ..types import Scene
from . import finite_json

_CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])


def write(
    scene: Scene, path: str | Path, pictures: Sequence[str], *, ply: str | Path | None = None
) -> Path:
    """Write the cameras of the source pictures, with paths relative to the JSON's folder.

    Args:
        scene: with cameras.
        path: of the JSON; its folder is what the tools are pointed at.
        pictures: of every view its upright source picture, such as ``source_pictures.write`` makes,
            as a path relative to the JSON's folder.
        ply: the scene's points in the same world (``ply.write``), to start splats from.

    Raises:
        OutputError: no cameras, or a file cannot be written.
    """
    path = Path(path)
    if scene.prediction.cameras is None:
        raise OutputError(f"cannot write {path}: no cameras, predict with heads=('camera', ...)")
    cameras = scene.prediction.source_cameras
    poses = np.tile(np.eye(4), (len(cameras), 1, 1))
    poses[:, :3] = cameras.world_from_camera
    frames = [
        {
            "file_path": picture,
            "fl_x": float(k[0, 0]),
            "fl_y": float(k[1, 1]),
            "cx": float(k[0, 2]) + 0.5,
            "cy": float(k[1, 2]) + 0.5,
            "w": int(width),
            "h": int(height),
            "transform_matrix": pose.tolist(),
        }
        for picture, k, (height, width), pose in zip(
            pictures, cameras.intrinsics, cameras.sizes, poses @ _CAMERA_AXES, strict=True
        )
    ]
    tree: dict[str, object] = {"camera_model": "OPENCV", "frames": frames}
    if ply is not None:
        tree["ply_file_path"] = _relative(Path(ply), path.parent)
    text = finite_json.encode(tree, path, indent=1)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.resolve().as_posix()
