"""Points and cameras as binary glTF 2.0 (``.glb``), for three.js, Blender and most other viewers.

glTF is y up and its cameras look along their own -z with y up; our world and cameras are OpenCV's
(y down, z forward). Both turn by 180 degrees about x, ``(x, y, z) -> (x, -y, -z)``, which is baked
into the numbers, so that loaders that ignore node transforms get it right too. The first camera
thus sits at the origin and looks along -z.

Vertex colours are linear light in glTF, photographs are not: colours are decoded from sRGB before
they are stored in 8 bits, which costs up to 6 of 255 levels in the darkest shadows (``ply`` is
exact). Specification: Khronos glTF 2.0, sections 3.7.2 (meshes), 3.10 (cameras) and 4 (GLB).
"""

from __future__ import annotations

import colorsys
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .. import geometry
from ..errors import OutputError
from ..files import replacing
from ..types import Scene
from . import finite_json

GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0])

_COMPONENTS = {"f4": 5126, "u1": 5121, "u2": 5123}
_KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_POINTS, _LINES = 0, 1
_VERTICES, _INDICES = 34962, 34963
_MOST_BYTES = 2**32 - 1

# Apex 0, the corners of the image plane 1 to 4 clockwise from top left, and 5, a mark above its
# upper edge that shows which way up the camera is.
_FRUSTUM_EDGES = np.array(
    [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1], [1, 5], [5, 2]], dtype="<u2"
)


def write(scene: Scene, path: str | Path, *, frustum_size: float | None = None) -> Path:
    """Write the points as one POINTS mesh, and per view a camera and its wire frustum.

    The nodes are called "points", and as the views are with a child "NAME frustum"; the ``extras``
    of a view's node hold the exact pinhole intrinsics of the source picture, for a glTF camera has
    no principal point.

    Args:
        scene: may lack points or cameras; points that are not finite are left out.
        path: of the file, usually ending in ``.glb``.
        frustum_size: distance from camera centre to the image plane of the wire frusta, in the
            scene's units; by default a twenty-fifth of the scene's extent.

    Raises:
        OutputError: the file cannot be written, or would exceed the 4 GB a GLB can hold.
    """
    path = Path(path)
    finite = np.isfinite(scene.points).all(axis=1)
    points = scene.points[finite].astype("<f4") * np.array([1, -1, -1], dtype="<f4")
    document = _Document()
    if len(points):
        colors = np.full((len(points), 4), 255, dtype=np.uint8)
        colors[:, :3] = linear_from_srgb(scene.colors[finite])
        mesh = document.mesh("points", _POINTS, points, colors)
        document.add_root({"name": "points", "mesh": mesh})
    if scene.prediction.cameras is not None:
        size = frustum_size or _extent(points, scene.cameras.centers) / 25
        _add_cameras(document, scene, size)
    document.write(path)
    return path


def linear_from_srgb(colors: np.ndarray) -> np.ndarray:
    """uint8 sRGB of any shape to uint8 linear light, by the curve of IEC 61966-2-1."""
    s = np.arange(256) / 255.0
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    coded: np.ndarray = np.rint(linear * 255).astype(np.uint8)[colors]
    return coded


def _extent(points: np.ndarray, centers: np.ndarray) -> float:
    """Diagonal of the box that holds the cameras and all but the outermost points."""
    everything = centers @ GLTF_FROM_WORLD
    if len(points):
        sample = points[:: max(1, len(points) // 100_000)]
        everything = np.concatenate([np.percentile(sample, [5, 95], axis=0), everything])
    return float(np.linalg.norm(np.ptp(everything, axis=0))) or 1.0


def _add_cameras(document: _Document, scene: Scene, size: float) -> None:
    cameras = scene.prediction.source_cameras
    pose = cameras.world_from_camera
    rotation = GLTF_FROM_WORLD @ pose[:, :, :3] @ GLTF_FROM_WORLD
    quaternions = geometry.matrix_to_quaternion(rotation)
    centers = pose[:, :, 3] @ GLTF_FROM_WORLD
    edges = document.accessor(_FRUSTUM_EDGES.reshape(-1), target=_INDICES)
    for i, name in enumerate(scene.views.names):
        k = cameras.intrinsics[i]
        height, width = cameras.sizes[i].tolist()
        hue = 0.8 * i / len(cameras)
        color = np.array([*colorsys.hsv_to_rgb(hue, 0.85, 1.0), 1.0]) * 255
        linear = linear_from_srgb(np.rint(color).astype(np.uint8))
        mesh = document.mesh(
            f"{name} frustum",
            _LINES,
            size * _frustum(k, height, width),
            np.tile(linear, (6, 1)),
            indices=edges,
        )
        lens = {
            "yfov": 2 * float(np.arctan(height / (2 * k[1, 1]))),
            "aspectRatio": float(width / k[0, 0] * k[1, 1] / height),
            "znear": size / 100,
        }
        camera = {"name": name, "type": "perspective", "perspective": lens}
        extras = {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
        document.add_root(
            {
                "name": name,
                "camera": document.add("cameras", camera),
                # A child, since Blender and trimesh take a node for a camera or for a mesh.
                "children": [document.add("nodes", {"name": f"{name} frustum", "mesh": mesh})],
                "translation": centers[i].tolist(),
                "rotation": quaternions[i].tolist(),
                "extras": {**extras, "width": width, "height": height},
            },
        )


def _frustum(intrinsics: np.ndarray, height: int, width: int) -> np.ndarray:
    """(6, 3) float32 vertices in glTF camera axes, the image plane at distance 1."""
    # The mark stands a fifth of the height above the middle of the upper edge.
    columns = np.array([0, width, width, 0, width / 2]) - 0.5
    rows = np.array([0, 0, height, height, -height / 5]) - 0.5
    pixels = np.stack([columns, rows, np.ones(5)], axis=1)
    rays = pixels @ np.linalg.inv(intrinsics).T @ GLTF_FROM_WORLD
    return np.concatenate([np.zeros((1, 3)), rays]).astype("<f4")


class _Document:
    """The JSON of a glTF file and the arrays that follow it."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.arrays: list[np.ndarray] = []
        self.length = 0
        self.roots: list[int] = []
        # Points and lines have no normals; unlit says that none are wanted.
        self.add("materials", {"name": "unlit", "extensions": {"KHR_materials_unlit": {}}})

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to one of the top-level lists; returns the index to refer to it by."""
        items = self.lists.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_root(self, node: dict[str, Any]) -> None:
        """Append a node of the scene."""
        self.roots.append(self.add("nodes", node))

    def accessor(self, array: np.ndarray, target: int = _VERTICES, **extra: Any) -> int:
        """Store an array, whose size in bytes must be a multiple of four."""
        view = {
            "buffer": 0,
            "byteOffset": self.length,
            "byteLength": array.nbytes,
            "target": target,
        }
        self.arrays.append(array)
        self.length += array.nbytes
        width = 1 if array.ndim == 1 else array.shape[1]
        return self.add(
            "accessors",
            {
                "bufferView": self.add("bufferViews", view),
                "componentType": _COMPONENTS[array.dtype.str[1:]],
                "count": len(array),
                "type": _KINDS[width],
                **extra,
            },
        )

    def mesh(
        self, name: str, mode: int, points: np.ndarray, colors: np.ndarray, **extra: Any
    ) -> int:
        """Store one primitive: (N, 3) float32 positions and (N, 4) uint8 linear colours."""
        bounds = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        attributes = {
            "POSITION": self.accessor(points.astype("<f4"), **bounds),
            "COLOR_0": self.accessor(colors, normalized=True),
        }
        primitive = {"mode": mode, "material": 0, "attributes": attributes, **extra}
        return self.add("meshes", {"name": name, "primitives": [primitive]})

    def write(self, path: Path) -> None:
        """Write header, JSON chunk and binary chunk."""
        tree = {
            "asset": {"version": "2.0", "generator": "vggt-edge"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
            "scenes": [{"nodes": self.roots}],
            "buffers": [{"byteLength": self.length}],
            **self.lists,
        }
        if not self.roots:
            raise OutputError(f"cannot write {path}: the scene has neither points nor cameras")
        text = finite_json.encode(tree, path).encode("utf-8")
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self.length
        if total > _MOST_BYTES:
            raise OutputError(
                f"cannot write {path}: {total / 1e9:.1f} GB are more than a GLB can hold (4.3 GB); "
                f"keep fewer points (max_points)"
            )
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", self.length, b"BIN\0"))
            for array in self.arrays:
                file.write(np.ascontiguousarray(array).data)
