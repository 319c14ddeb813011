"""Point cloud as binary little-endian PLY, with the confidence and the view of each point."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files import replacing
from ..types import Scene

_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    + [("confidence", "<f4"), ("view_index", "<i4")]
)
_NAMES = {"f4": "float", "i4": "int", "u1": "uchar"}
_CHUNK = 1 << 20


def write(scene: Scene, path: str | Path) -> Path:
    """Write the scene's points in the scene's own world frame (OpenCV axes: y down, z forward).

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    properties = "".join(
        f"property {_NAMES[_VERTEX[name].str[1:]]} {name}\n" for name in _VERTEX.names or ()
    )
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        "comment written by vggt-edge\n"
        "comment world frame of the first camera: x right, y down, z forward\n"
        f"comment units {scene.units}\n"
        f"element vertex {len(scene.points)}\n{properties}end_header\n"
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header.encode("ascii"))
        for start in range(0, len(scene.points), _CHUNK):
            part = slice(start, start + _CHUNK)
            vertices = np.empty(len(scene.points[part]), dtype=_VERTEX)
            vertices["x"], vertices["y"], vertices["z"] = scene.points[part].T
            vertices["red"], vertices["green"], vertices["blue"] = scene.colors[part].T
            vertices["confidence"] = scene.confidence[part]
            vertices["view_index"] = scene.view_index[part]
            file.write(vertices.tobytes())
    return path
