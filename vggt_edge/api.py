"""Where rooms of one floor meet for Python callers, as they do for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import outputs
from .model.config import VGGTConfig
from .scene.full_resolution import full_resolution as full_resolution_of
from .scene.tracks import build_sparse_model
from .types import Scene


def default_size(config: VGGTConfig) -> int:
    """Longer side of the views a network does well with: 518, less for small networks."""
    return min(518, config.image_size)


def write(
    scene: Scene,
    folder: str | Path,
    formats: Sequence[str] = ("glb", "html"),
    *,
    full_resolution: bool = False,
    link: bool = False,
) -> dict[str, Path]:
    """Write a scene in several formats, each file whole or not at all.

    Args:
        scene: from ``reconstruct``.
        folder: made if need be; files are called ``scene`` plus the suffix of their format.
        formats: names from ``outputs.FORMATS``.
        full_resolution: depth maps at the size of the source pictures, not of the views.
        link: make hard links to the source pictures instead of copies, where that is possible.

    Returns:
        Format to the path to hand to the next program.

    Raises:
        OutputError: an unknown format, a folder that cannot be written, a full disk.
        ImageError: a source picture that "colmap", "colmap-text" or "transforms" needs has gone;
            all other formats are written by then.
        MissingExtraError: a format's package is not installed.
    """
    formats = outputs.check_formats(formats)
    sparse = build_sparse_model(scene) if outputs.NEEDS_SPARSE_MODEL & set(formats) else None
    return outputs.write(
        scene,
        folder,
        formats,
        full_resolution=full_resolution_of if full_resolution else None,
        sparse_model=sparse,
        link=link,
    )
