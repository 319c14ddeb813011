"""A scene as one HTML page that needs neither network nor server.

The page's sources are in ``viewer/``; this module inlines them and packs the data:

    points       16 bits an axis after the contraction of mip-NeRF 360 (Barron et al. 2022), applied
                 per axis: linear inside the box of the central 98 % of the points, which keeps its
                 precision however far a stray point flies.
    confidence   8 bits of rank, since confidence has no scale.
    order        raster order, per channel the difference to the previous point, zlib; about half of
                 the plain bytes.
    photographs  JPEG of the part of each view that shows picture, its longer side 320 pixels or,
                 from about 3,000 views on, less: all together stay near 200 MB, for browsers read
                 no text of more than 512 MB.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .. import geometry
from ..errors import OutputError
from ..files import replacing
from ..types import Scene
from . import finite_json

SOURCES = Path(__file__).parent / "viewer"
SCRIPTS = (
    "vendor/three.bundle.js",
    "data.js",
    "points.js",
    "cameras.js",
    "ground.js",
    "navigation.js",
    "interface.js",
    "viewer.js",
)
PHOTOGRAPH_SIDE = 320
PHOTOGRAPHS_BYTES = 200e6
# Of JPEG in base64, a generous estimate.
PHOTOGRAPH_BYTES_PER_PIXEL = 0.67
PHOTOGRAPH_QUALITY = 80
MAX_VIEWS = 65_536
SAMPLE = 500_000


class _Extent(NamedTuple):
    """Where the bulk of the points is: statistics that a few stray points do not move."""

    center: np.ndarray
    half: np.ndarray
    middle: np.ndarray
    radius: float
    reach: float


class _Owners(NamedTuple):
    """Per view: the row that gives a world point's depth, and one pixel's size at depth 1."""

    depth_row: np.ndarray
    pixel: np.ndarray


def write(scene: Scene, path: Path) -> Path:
    """Write ``scene`` as a self-contained HTML page with a 3D viewer.

    Points that are not finite are left out. A scene without cameras shows its points only.

    Returns:
        ``path``.

    Raises:
        OutputError: the page cannot be written there, or the scene has more than 65,536 views.
    """
    path = Path(path)
    if len(scene.views) > MAX_VIEWS:
        raise OutputError(
            f"{path}: an HTML page holds at most {MAX_VIEWS:,} views, this scene has "
            f"{len(scene.views):,}: write a part of it"
        )
    page = _page(scene, path)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _page(scene: Scene, path: Path) -> str:
    # scene.html is called after the folder it is in.
    title = path.resolve().parent.name if path.stem == "scene" else path.stem
    order = _raster_order(scene)
    points = scene.points[order].astype(np.float32)
    extent = _extent(points, scene)
    contracted = _contract(points, extent)
    reach = float(np.abs(contracted).max(initial=0.5))
    owners = _owners(scene)
    view_index = scene.view_index[order]
    depth = np.einsum("ni,ni->n", points, owners.depth_row[view_index, :3])
    depth += owners.depth_row[view_index, 3]
    footprint = np.abs(depth) * owners.pixel[view_index]
    up = _up(scene)
    description: dict[str, Any] = {
        "count": len(points),
        "units": scene.units,
        "center": extent.center.tolist(),
        "half": extent.half.tolist(),
        "range": reach,
        "middle": extent.middle.tolist(),
        "radius": extent.radius,
        "reach": extent.reach,
        "up": up.tolist(),
        "floor": float(_percentile(points @ up, 0.5)) - 0.005 * extent.radius,
        "depthRange": _spread(depth, extent.radius),
        "footprintCap": 4 * float(_percentile(footprint, 50)),
        "frustum": _frustum_depth(scene, extent),
        "owners": [
            [*map(float, row), float(pixel), 0.0, 0.0, 0.0]
            for row, pixel in zip(owners.depth_row, owners.pixel, strict=True)
        ],
        "cameras": _cameras(scene, view_index, depth),
    }
    packed = zlib.compress(
        _pack(contracted / reach, view_index, scene.colors[order], scene.confidence[order]), 6
    )
    style = _source("viewer.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_source, SCRIPTS)) + "\n})();"
    parts = {
        "title": html.escape(title),
        "style": style,
        "style_hash": _content_hash(style),
        "script": script,
        "script_hash": _content_hash(script),
        "scene": _json_for_script(description, path),
        "points": base64.b64encode(packed).decode(),
    }
    # One pass, so that nothing that is put in is taken for a placeholder.
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], _source("template.html"))


def _source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _content_hash(text: str) -> str:
    """A Content-Security-Policy source: the page runs our script and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_for_script(value: object, path: Path) -> str:
    """JSON that cannot end the script element it stands in."""
    text = finite_json.encode(value, path)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _raster_order(scene: Scene) -> np.ndarray:
    """Indices of the finite points, sorted by view, row and column: neighbours compress well."""
    finite = np.flatnonzero(np.isfinite(scene.points).all(axis=1))
    height, width = scene.views.size
    key = scene.view_index[finite].astype(np.int64) * height + scene.pixel[finite, 1]
    key = key * width + scene.pixel[finite, 0]
    return finite[np.argsort(key, kind="stable")]


def _percentile(values: np.ndarray, at: float | tuple[float, ...]) -> np.ndarray:
    """Percentiles along the first axis, of half a million samples at most; zeros of nothing."""
    if len(values) == 0:
        return np.zeros(np.shape(at) + values.shape[1:])
    sample = values[:: -(-len(values) // SAMPLE)].astype(np.float64)
    return np.asarray(np.percentile(sample, at, axis=0))


def _extent(points: np.ndarray, scene: Scene) -> _Extent:
    low, middle, high = _percentile(points, (1, 50, 99))
    # A flat axis still needs a width to divide by.
    half = np.maximum((high - low) / 2, 1e-3 * max(float((high - low).max()), 1e-3))
    center = (low + high) / 2
    away = np.linalg.norm(points - middle, axis=1)
    radius = float(_percentile(away, 90))
    if radius == 0:  # one point: what the cameras span, else one unit
        centers = scene.cameras.centers if scene.prediction.cameras is not None else points
        radius = float(np.linalg.norm(centers - middle, axis=1).max(initial=0)) or 1.0
    return _Extent(center, half, middle, radius, min(float(away.max(initial=1.0)), 50 * radius))


def _contract(points: np.ndarray, extent: _Extent) -> np.ndarray:
    t = (points - extent.center.astype(np.float32)) / extent.half.astype(np.float32)
    size = np.abs(t)
    return np.where(size <= 1, t, np.sign(t) * (2 - 1 / np.maximum(size, 1)))


def _owners(scene: Scene) -> _Owners:
    count = len(scene.views)
    cameras = scene.prediction.cameras
    height, width = scene.views.size
    # Fewer points than pixels (a mask, --max-points): each stands for more than its own pixel.
    pixels = int(scene.views.valid_mask().sum())
    sparsity = min(float(np.sqrt(pixels / max(1, len(scene.points)))), 6.0)
    if cameras is None:  # the world is the first camera's frame
        row = np.tile([0.0, 0.0, 1.0, 0.0], (count, 1))
        return _Owners(row, np.full(count, max(1.0, sparsity) / max(height, width)))
    focal = np.sqrt(np.abs(cameras.intrinsics[:, 0, 0] * cameras.intrinsics[:, 1, 1]))
    return _Owners(cameras.camera_from_world[:, 2], max(1.0, sparsity) / focal)


def _up(scene: Scene) -> np.ndarray:
    """The mean of the cameras' up directions (-y), in the world."""
    cameras = scene.prediction.cameras
    if cameras is None or len(cameras) == 0:
        return np.array([0.0, -1.0, 0.0])
    up = -cameras.camera_from_world[:, 1, :3]
    mean = up.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 0.1 else up[0])


def _spread(depth: np.ndarray, radius: float) -> list[float]:
    low, high = (float(value) for value in _percentile(depth, (2, 98)))
    return [low, high if high - low > 1e-6 * radius else low + radius]


def _frustum_depth(scene: Scene, extent: _Extent) -> float:
    """How deep frusta are drawn: about as far as neighbouring cameras are apart, within reason."""
    cameras = scene.prediction.cameras
    if cameras is None or len(cameras) < 2:
        return 0.12 * extent.radius
    steps = np.linalg.norm(np.diff(cameras.centers, axis=0), axis=1)
    return float(np.clip(0.6 * np.median(steps), 0.05 * extent.radius, 0.16 * extent.radius))


def _cameras(scene: Scene, view_index: np.ndarray, depth: np.ndarray) -> list[dict[str, Any]]:
    if scene.prediction.cameras is None:
        return []
    views, cameras = scene.views, scene.cameras
    source_intrinsics = scene.prediction.source_cameras.intrinsics
    # Points are sorted by view.
    bounds = np.searchsorted(view_index, np.arange(len(views) + 1))
    side = _photograph_side(len(views))
    described = []
    for i, pose in enumerate(geometry.invert_rigid(cameras.camera_from_world)):
        top, left, bottom, right = (int(edge) for edge in views.valid[i])
        own = depth[bounds[i] : bounds[i + 1]]
        k, source = cameras.intrinsics[i], source_intrinsics[i]
        described.append(
            {
                "name": views.names[i],
                "source": views.sources[i],
                "sourceSize": [int(side) for side in views.source_sizes[i]],
                "sourceFx": float(source[0, 0]),
                "sourceFy": float(source[1, 1]),
                "sourceCx": float(source[0, 2]),
                "sourceCy": float(source[1, 2]),
                "fx": float(k[0, 0]),
                "fy": float(k[1, 1]),
                "cx": float(k[0, 2]),
                "cy": float(k[1, 2]),
                "skew": float(k[0, 1]),
                "pose": pose.ravel().tolist(),
                "crop": [left - 0.5, top - 0.5, right - 0.5, bottom - 0.5],
                "depth": max(float(np.median(own)), 1e-6) if len(own) else 1.0,
                "points": len(own),
                "photo": _photograph(views.images[i, top:bottom, left:right], side),
            }
        )
    return described


def _photograph_side(views: int) -> int:
    """The longer side that photographs of so many views can have."""
    pixels = PHOTOGRAPHS_BYTES / max(1, views) / PHOTOGRAPH_BYTES_PER_PIXEL
    return min(PHOTOGRAPH_SIDE, int(np.sqrt(pixels)))


def _photograph(picture: np.ndarray, side: int) -> str:
    image = Image.fromarray(picture)
    scale = side / max(image.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=PHOTOGRAPH_QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _pack(
    normalised: np.ndarray, view_index: np.ndarray, colors: np.ndarray, confidence: np.ndarray
) -> bytes:
    """x, y, z, view as low and high byte planes, then red, green, blue, rank; see ``data.js``."""
    codes = np.rint((normalised + 1) * (65535 / 2)).astype(np.uint16)
    planes: list[bytes] = []
    for channel in (*codes.T, view_index.astype(np.uint16)):
        steps = np.diff(channel, prepend=np.uint16(0))
        planes += [
            (steps & 0xFF).astype(np.uint8).tobytes(),
            (steps >> 8).astype(np.uint8).tobytes(),
        ]
    for plane in (*colors.T, _rank(confidence)):
        planes.append(np.diff(plane, prepend=np.uint8(0)).tobytes())
    return b"".join(planes)


def _rank(confidence: np.ndarray) -> np.ndarray:
    """(N,) uint8: the share of points that are at most as confident, so equals stay together."""
    clean = np.nan_to_num(confidence, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    at_most = np.searchsorted(np.sort(clean), clean, side="right")
    rank: np.ndarray = np.ceil(at_most * (256 / max(1, len(clean)))) - 1
    return rank.astype(np.uint8)
