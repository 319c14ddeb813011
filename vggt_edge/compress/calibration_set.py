"""A calibration set on disk: a folder of pictures with a manifest that says why each is in it.

    set/manifest.json                 settings, every candidate's statistics, and the scenes
    set/scene-00/view-00.png ...      pictures as the network saw them, lossless

A folder of pictures without a manifest is a set too: its pictures, dealt out into scenes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ImageError, InputError
from ..files import replacing
from ..images import read_views
from ..types import Views

MANIFEST = "manifest.json"
CANDIDATES = "candidates"
FORMAT = 1
MOST_VIEWS = 10
"""Of one scene, when views are dealt out: as many as QuantVGGT calibrates with."""


def as_scenes(calibration: Views | Sequence[Views]) -> list[Views]:
    """Sets of views, one a scene; a single set of many views is dealt out in turn.

    Raises:
        InputError: none at all, or a scene without views.
    """
    if isinstance(calibration, Views):
        parts = max(1, -(-len(calibration) // MOST_VIEWS))
        calibration = [calibration[i::parts] for i in range(parts)]
    scenes = list(calibration)
    if not scenes or not all(map(len, scenes)):
        raise InputError("the calibration holds no views: give at least one picture")
    return scenes


def write_scene(folder: Path, number: int, views: Views) -> dict[str, Any]:
    """Write the pictures of one scene; its entry for the manifest."""
    files = []
    for index, image in enumerate(views.images):
        place = f"scene-{number:02d}/view-{index:02d}.png"
        with replacing(folder / place) as temporary:
            Image.fromarray(image).save(temporary, compress_level=4)
        files.append({"file": place, "source": views.sources[index]})
    return {"views": files}


def write_manifest(folder: Path, data: dict[str, Any]) -> Path:
    """Write the manifest, which makes a folder a whole set."""
    path = folder / MANIFEST
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **data}, indent=1, allow_nan=False))
    return path


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a set.

    Raises:
        InputError: it is missing or of another form.
    """
    path = Path(folder) / MANIFEST
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data["format"] != FORMAT:
            raise ValueError("format")
        [[view["file"] for view in scene["views"]] for scene in data["scenes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no manifest of a calibration set; make it anew") from error
    return data


def read_set(
    folder: str | Path, *, size: int = 518, patch: int = 14, limit: int = 16, views: int = 8
) -> list[Views]:
    """Scenes of a set, or of any folder of pictures.

    Args:
        folder: from ``calibrate``, or of pictures; a video file or a glob are taken as well.
        size: longer side of the views of plain pictures.
        patch: of the network.
        limit: scenes to take of plain pictures.
        views: of each of these scenes.

    Raises:
        ImageError: nothing to read, a picture that cannot be read, or fewer than two.
        InputError: a set that was never finished, or is damaged.
    """
    root = Path(folder).expanduser()
    if (root / MANIFEST).is_file():
        return [_read_scene(root, scene["views"]) for scene in read_manifest(root)["scenes"]]
    if (root / CANDIDATES).is_dir():
        raise InputError(
            f"{folder}: this calibration was interrupted; run the same vggt-edge calibrate again"
        )
    read = read_views(folder, size=size, patch=patch, limit=limit * views)
    if len(read) < 2:
        raise ImageError(f"{folder}: {len(read)} picture is too few to calibrate with; give more")
    parts = -(-len(read) // views)
    return [read[i::parts] for i in range(parts)]


def _read_scene(root: Path, entries: Sequence[dict[str, Any]]) -> Views:
    images = []
    for entry in entries:
        try:
            with Image.open(root / entry["file"]) as picture:
                images.append(np.asarray(picture.convert("RGB")))
        except OSError as error:
            raise ImageError(
                f"{root / entry['file']}: a picture of the calibration set that cannot be read; "
                "make the set anew"
            ) from error
    return Views.from_images(np.stack(images))
