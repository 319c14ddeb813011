"""Points of a PLY file, in text or either byte order; every other element and property is skipped.

Format: Turk, "The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .dataset_files import malformed, parsing

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_HEADER_LIMIT = 1 << 16


class _Header(NamedTuple):
    order: str
    vertices: int
    properties: list[tuple[str, str]]
    end: int


def read(path: Path) -> np.ndarray:
    """(N, 3) float64 vertices; those with a coordinate that is not finite are left out.

    Raises:
        InputError: it cannot be read, is no PLY, or is shorter than it says.
    """
    try:
        with path.open("rb") as file, parsing(path, "a PLY point cloud"):
            header = _header(file.read(_HEADER_LIMIT))
            file.seek(header.end)
            names = [name for name, _ in header.properties]
            if header.order:
                layout = np.dtype([(n, header.order + t) for n, t in header.properties])
                if layout.itemsize * header.vertices > path.stat().st_size - header.end:
                    raise ValueError(f"it ends before its {header.vertices} vertices")
                rows = np.frombuffer(file.read(layout.itemsize * header.vertices), layout)
                points = np.stack([rows[axis] for axis in "xyz"], axis=1).astype(np.float64)
            else:
                where = [names.index(axis) for axis in "xyz"]
                # Counted from the file, not from its header, which may promise anything.
                lines = [line for line, _ in zip(file, range(header.vertices), strict=False)]
                if len(lines) < header.vertices:
                    raise ValueError(f"it ends before its {header.vertices} vertices")
                split = [line.split() for line in lines]
                points = np.array([[float(s[i]) for i in where] for s in split]).reshape(-1, 3)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the download") from None
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise malformed(path, "it holds no points")
    return points


def _header(data: bytes) -> _Header:
    """What the header says of the vertices.

    Raises:
        ValueError: this is no header, or the vertices are not its first element.
    """
    lines = data.splitlines(keepends=True)
    if not lines or lines[0].strip() != b"ply":
        raise ValueError("it does not begin with ply")
    properties: list[tuple[str, str]] = []
    order, element, count, end, known = "", "", -1, 0, False
    for line in lines:
        end += len(line)
        words = line.decode("latin-1").split()
        if words[:1] == ["end_header"]:
            if not known or count < 0:
                raise ValueError("its header names no format or no vertices")
            if not {"x", "y", "z"} <= {name for name, _ in properties}:
                raise ValueError("its vertices have no x, y, z")
            return _Header(order, count, properties, end)
        if words[:1] == ["format"]:
            order, known = _ORDERS[words[1]], True
        elif words[:1] == ["element"]:
            if words[1] != "vertex" and count < 0:
                raise ValueError(f"element {words[1]} comes before the vertices")
            element = words[1]
            if element == "vertex":
                count = int(words[2])
        elif words[:1] == ["property"] and element == "vertex":
            properties.append((words[2], _TYPES[words[1]]))
    raise ValueError("its header has no end")
