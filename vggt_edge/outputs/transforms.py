"""Cameras as nerfstudio's ``transforms.json``, which Instant-NGP and many splatting tools read too.

``transform_matrix`` is world-from-camera with OpenGL camera axes (x right, y up, z backwards), in
the scene's own world; pixels count from the corner of the image, so principal points gain 0.5.
Reference: docs.nerf.studio, "Data conventions".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..errors import OutputError
from ..types import Scene
from .files import replacing

_CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
_ORIENTATION = 0x0112
_READ_BY_ALL = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP")


class _Picture(NamedTuple):
    file_path: str
    intrinsics: np.ndarray
    height: int
    width: int


def write(scene: Scene, path: str | Path, *, ply: str | Path | None = None) -> Path:
    """Write the cameras of the source pictures, with paths relative to the JSON's folder.

    Readers of the format decode pictures without turning them by their EXIF orientation, and know
    neither HEIC nor videos: a photograph stored turned or as HEIC is copied upright into
    ``images/`` beside the JSON, and a view that is no image file on this disk (a video frame, a
    download) is stored there as the network saw it, with the intrinsics to match.

    Args:
        scene: with cameras.
        path: of the JSON; its folder is what the tools are pointed at.
        ply: the scene's points in the same world (``ply.write``), to start splats from.

    Raises:
        OutputError: no cameras, or a file cannot be written.
    """
    path = Path(path)
    if scene.prediction.cameras is None:
        raise OutputError(f"cannot write {path}: no cameras, predict with heads=('camera', ...)")
    poses = np.tile(np.eye(4), (len(scene.cameras), 1, 1))
    poses[:, :3] = scene.cameras.world_from_camera
    frames = []
    for index, pose in enumerate(poses @ _CAMERA_AXES):
        picture = _picture(scene, index, path.parent)
        k = picture.intrinsics
        frames.append(
            {
                "file_path": picture.file_path,
                "fl_x": float(k[0, 0]),
                "fl_y": float(k[1, 1]),
                "cx": float(k[0, 2]) + 0.5,
                "cy": float(k[1, 2]) + 0.5,
                "w": picture.width,
                "h": picture.height,
                "transform_matrix": pose.tolist(),
            }
        )
    tree: dict[str, object] = {"camera_model": "OPENCV", "frames": frames}
    if ply is not None:
        tree["ply_file_path"] = _relative(Path(ply), path.parent)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    return path


def _picture(scene: Scene, index: int, folder: Path) -> _Picture:
    views, cameras = scene.views, scene.prediction.source_cameras
    source, copy = Path(views.sources[index]), folder / "images" / views.names[index]
    height, width = cameras.sizes[index].tolist()
    try:
        with Image.open(source) as image:
            chosen = source
            if image.format not in _READ_BY_ALL or image.getexif().get(_ORIENTATION, 1) != 1:
                chosen = copy.with_name(copy.name + ".jpg")
                upright = ImageOps.exif_transpose(image).convert("RGB")
                with replacing(chosen) as temporary:
                    upright.save(temporary, quality=95, subsampling=0)
            return _Picture(_relative(chosen, folder), cameras.intrinsics[index], height, width)
    except (OSError, ValueError):
        pass  # no image file of this disk: the view itself serves
    chosen = copy.with_name(copy.name + ".png")
    top, left, bottom, right = views.valid[index].tolist()
    with replacing(chosen) as temporary:
        Image.fromarray(views.images[index, top:bottom, left:right]).save(temporary)
    intrinsics = scene.cameras.intrinsics[index] - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])
    return _Picture(_relative(chosen, folder), intrinsics, bottom - top, right - left)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.resolve().as_posix()
