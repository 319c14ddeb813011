"""The way out: one file format a module, each with one ``write``; here all of them by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    "transforms": "nerfstudio's transforms.json",
    "npz": "every array, for numpy; reads back exactly",
    "depth": "depth maps as 16-bit PNG, with their scale in depth.json",
    "exr": "depth maps and confidence as float32 OpenEXR (extra: exr)",
    "rerun": "a recording for the rerun viewer (extra: rerun)",
}
"""What ``write`` knows: name to one line of description."""


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
        sparse_model: what "colmap" writes (``scene.tracks.build_sparse_model``).
        link: make hard links to the source pictures instead of copies, where that is possible.

    Returns:
        Format to the path to hand to the next program: a file, or for "exr" and "colmap" a folder.

    Raises:
        OutputError: an unknown format or one without what it needs, a folder that cannot be
            written, a full disk. What was complete by then stays.
        MissingExtraError: the format's package is not installed.
    """
    folder = Path(folder)
    formats = check_formats(formats)
    if "colmap" in formats and sparse_model is None:
        raise _usage("format colmap needs sparse_model=build_sparse_model(scene)")

    pictures: tuple[str, ...] = ()
    if {"colmap", "transforms"} & set(formats):
        from . import source_pictures

        pictures = source_pictures.write(scene.views, folder / "images", link=link)
    written = {}
    for name in formats:
        # Each writer is imported when asked for: some bring a package that others do without.
        if name == "glb":
            from . import glb

            written[name] = glb.write(scene, folder / "scene.glb")
        elif name == "ply":
            from . import ply

            written[name] = ply.write(scene, folder / "scene.ply")
        elif name == "html":
            from . import html

            written[name] = html.write(scene, folder / "scene.html")
        elif name == "colmap" and sparse_model is not None:
            from . import colmap

            written[name] = colmap.write(sparse_model, folder, pictures=pictures)
        elif name == "transforms":
            from . import transforms

            cloud = folder / "scene.ply" if "ply" in formats else None
            paths = [f"images/{file}" for file in pictures]
            written[name] = transforms.write(scene, folder / "transforms.json", paths, ply=cloud)
        elif name == "npz":
            from . import npz

            written[name] = npz.write(scene, folder / "scene.npz")
        elif name == "depth":
            from . import depth

            depth_map = full_resolution or depth.view_resolution
            written[name] = depth.write(
                scene.prediction, folder / "depth", units=scene.units, depth_map=depth_map
            )
        elif name == "exr":
            from . import depth, exr

            depth_map = full_resolution or depth.view_resolution
            written[name] = exr.write(
                scene.prediction, folder / "depth", units=scene.units, depth_map=depth_map
            )
        elif name == "rerun":
            from . import rerun

            written[name] = rerun.write(scene, folder / "scene.rrd")
    return written


def _usage(message: str) -> OutputError:
    error = OutputError(message)
    error.exit_code = 2
    return error
