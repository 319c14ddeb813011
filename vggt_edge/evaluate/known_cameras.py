"""Cameras that are known, from any of the files that posed pictures come with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..scene.known_cameras import KnownCameras
from . import colmap_cameras
from .dataset_files import malformed, parsing, read_json
from .datasets import cameras_json, transforms

_JSON = ("transforms.json", cameras_json.FILE)


def read_known_cameras(path: str | Path) -> KnownCameras:
    """Names and poses of a ``transforms.json``, a COLMAP model or a ``cameras.json``.

    The pictures themselves are not needed, and lens distortion is no obstacle.

    Args:
        path: the file, or the folder that it or a COLMAP model (``sparse/0``, ``sparse``) lies in.

    Raises:
        InputError: it does not exist, is none of these, or is malformed.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; give a transforms.json, COLMAP or cameras.json")
    if path.is_dir():
        files = [path / name for name in _JSON if (path / name).is_file()]
        model = colmap_cameras.find(path)
    else:
        files = [path] if path.suffix == ".json" else []
        model = path.parent if path.stem in ("images", "cameras") else None
    if files:
        return _read_json(files[0])
    if model is None:
        raise InputError(
            f"{path} holds no known cameras: give a transforms.json, a COLMAP folder (images.bin "
            "or .txt, perhaps in sparse/0) or a cameras.json"
        )
    names, poses = colmap_cameras.read_poses(model)
    return KnownCameras(str(path), tuple(names), poses, "arbitrary")


def _read_json(path: Path) -> KnownCameras:
    with parsing(path, "a list of frames with cameras"):
        first = read_json(path)["frames"][0]
        ours = "c2w" in first
    if not ours:
        names, poses = transforms.read_poses(path)
        return KnownCameras(str(path), tuple(names), poses, "arbitrary")
    recording = cameras_json.read_folder(path.parent, path.stem, path.name)
    if recording.cameras is None:
        raise malformed(path, "none of its frames has K and c2w")
    files = tuple(file.relative_to(path.parent).as_posix() for file in recording.paths)
    poses = np.asarray(recording.cameras.camera_from_world)
    return KnownCameras(str(path), files, poses, recording.units)
