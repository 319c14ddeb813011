"""The way out: one file format a module, each with one ``write``; here all of them by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import OutputError
from ..sparse_model import SparseModel
from ..types import Scene

if TYPE_CHECKING:
    from .depth import DepthMapOf

FORMATS = {
    "glb": "points and cameras for three.js, Blender and most viewers",
    "ply": "the point cloud, with confidence and view of each point",
    "html": "a page with a 3D viewer, for any browser, offline",
    "colmap": "a COLMAP sparse model with tracks, ready for bundle adjustment",
    "colmap-text": "the same sparse model as text files",
    "transforms": "nerfstudio's transforms.json",
    "npz": "every array, for numpy; reads back exactly",
    "depth": "depth maps and confidence as 16-bit PNG, with their scale in depth.json",
    "exr": "depth maps and confidence as float32 OpenEXR (extra: exr)",
    "rerun": "a recording for the rerun viewer (extra: rerun)",
}
"""What ``write`` knows: name to one line of description."""

NEEDS_SPARSE_MODEL = frozenset({"colmap", "colmap-text"})
"""Formats that ``write`` cannot do without ``sparse_model``."""

_NEED_PICTURES = NEEDS_SPARSE_MODEL | {"transforms"}


def check_formats(formats: str | Sequence[str]) -> tuple[str, ...]:
    """The names without repetition.

    Raises:
        OutputError: an unknown name, or none at all.
    """
    formats = (formats,) if isinstance(formats, str) else tuple(dict.fromkeys(formats))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        what = f"unknown format {', '.join(unknown)}" if unknown else "no format asked for"
        raise _usage(f"{what}; known are {', '.join(FORMATS)}")
    return formats


def write(
    scene: Scene,
    folder: str | Path,
    formats: Sequence[str] = ("glb", "ply"),
    *,
    full_resolution: DepthMapOf | None = None,
    sparse_model: SparseModel | None = None,
    link: bool = False,
) -> dict[str, Path]:
    """Write a scene in several formats, each file whole or not at all.

    Args:
        scene: what to write.
        folder: made if need be. Files are called ``scene`` plus the suffix of their format, but for
            ``transforms.json``, ``depth/`` (PNG and EXR) and ``sparse/0/`` (COLMAP). The source
            pictures that COLMAP's and nerfstudio's files speak of go to ``images/``, so that the
            folder is a data set for trainers.
        formats: names from ``FORMATS``, all checked before anything is written.
        full_resolution: makes the depth maps of "depth" and "exr" at the size of the source
            pictures, one view at a time (``scene.full_resolution.full_resolution``); by default
            they have the size of the views.
        sparse_model: what ``NEEDS_SPARSE_MODEL`` write (``scene.tracks.build_sparse_model``).
        link: make hard links to the source pictures instead of copies, where that is possible.

    Returns:
        Format to the path to hand to the next program: a file, or for "exr" and COLMAP's a folder.

    Raises:
        OutputError: an unknown format or one without what it needs, a folder that cannot be
            written, a full disk. What was complete by then stays.
        ImageError: a source picture has gone or cannot be read any more. Only COLMAP's and
            nerfstudio's files need them, and these come last.
        MissingExtraError: the format's package is not installed.
    """
    folder = Path(folder)
    formats = check_formats(formats)
    models = [name for name in formats if name in NEEDS_SPARSE_MODEL]
    if models and sparse_model is None:
        raise _usage(f"format {models[0]} needs sparse_model=build_sparse_model(scene)")

    written = {}
    for name in formats:
        if name not in _NEED_PICTURES:
            written[name] = _write(name, scene, folder, full_resolution)
    if _NEED_PICTURES & set(formats):
        cloud = written.get("ply")
        written |= _write_data_set(scene, folder, formats, sparse_model, cloud, link)
    return {name: written[name] for name in formats}


def _write(name: str, scene: Scene, folder: Path, full_resolution: DepthMapOf | None) -> Path:
    """One of the formats that need nothing but the scene."""
    # Each writer is imported when asked for: some bring a package that others do without.
    if name == "glb":
        from . import glb

        return glb.write(scene, folder / "scene.glb")
    if name == "ply":
        from . import ply

        return ply.write(scene, folder / "scene.ply")
    if name == "html":
        from . import html

        return html.write(scene, folder / "scene.html")
    if name == "npz":
        from . import npz

        return npz.write(scene, folder / "scene.npz")
    if name == "rerun":
        from . import rerun

        return rerun.write(scene, folder / "scene.rrd")
    from . import depth, exr

    writer = depth if name == "depth" else exr
    depth_map = full_resolution or depth.view_resolution
    return writer.write(scene.prediction, folder / "depth", units=scene.units, depth_map=depth_map)


def _write_data_set(
    scene: Scene,
    folder: Path,
    formats: Sequence[str],
    sparse_model: SparseModel | None,
    cloud: Path | None,
    link: bool,
) -> dict[str, Path]:
    """The source pictures and those of the formats that speak of them."""
    from . import colmap, source_pictures, transforms

    # COLMAP's text files have no way to write a name with white space.
    spaces = "colmap-text" not in formats
    pictures = source_pictures.write(scene.views, folder / "images", link=link, spaces=spaces)
    written = {}
    models = [name for name in formats if name in NEEDS_SPARSE_MODEL]
    if sparse_model is not None and models:
        text: bool | Literal["both"] = "both" if len(models) > 1 else models == ["colmap-text"]
        place = colmap.write(sparse_model, folder, text=text, pictures=pictures)
        written = dict.fromkeys(models, place)
    if "transforms" in formats:
        paths = [f"images/{file}" for file in pictures]
        path = folder / "transforms.json"
        written["transforms"] = transforms.write(scene, path, paths, ply=cloud)
    return written


def _usage(message: str) -> OutputError:
    error = OutputError(message)
    error.exit_code = 2
    return error
