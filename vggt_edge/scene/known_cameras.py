"""A scene laid onto cameras that are known, which are matched to its pictures by file name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from ..errors import InputError
from ..types import Scene, Views
from .georeference import moved, similarity_to_cameras

LEAST = 3
# How many parts of a path are compared, at most, where fewer do not tell pictures apart.
_PARTS = 4
_FRAME = re.compile(r".+@\d+(\.\d+)?s", re.DOTALL)


@dataclass(frozen=True)
class KnownCameras:
    """Cameras from a file.

    Fields
        file               what to call it in errors.
        names              N picture files, as the file names them.
        camera_from_world  (N, 3, 4) rigid, OpenCV axes.
        units              of the world, "metres" or "arbitrary".
    """

    file: str
    names: tuple[str, ...]
    camera_from_world: np.ndarray
    units: str


def match(views: Views, known: KnownCameras) -> tuple[list[int], list[int]]:
    """Indices of views, and of the known cameras of the same pictures.

    Pictures are the same if their files have the same name without suffix; folders are compared
    only where names alone come twice. Frames of videos go by the name of the view.

    Raises:
        InputError: fewer than three are the same, or names do not tell them apart.
    """
    pictures = [
        name if _FRAME.fullmatch(source) else source
        for name, source in zip(views.names, views.sources, strict=True)
    ]
    twice: set[tuple[str, ...]] = set()
    for parts in range(1, _PARTS + 1):
        ours, theirs = _keys(pictures, parts), _keys(known.names, parts)
        shared = set(ours) & set(theirs)
        count = Counter(key for keys in (ours, theirs) for key in keys)
        if all(count[key] == 2 for key in shared):
            break
        twice = {key for key in shared if count[key] > 2}
    if twice and (not shared or any(count[key] > 2 for key in shared)):
        raise InputError(
            f"{known.file}: several cameras or pictures are called {'/'.join(min(twice))}, so "
            "names do not tell which is which: give each a name of its own"
        )
    if len(shared) < LEAST:
        raise InputError(
            f"{known.file}: {len(shared)} of its {len(known.names)} cameras belong to these "
            f"{len(views)} pictures by file name ({known.names[0]} there, {pictures[0]} here), "
            f"alignment needs {LEAST}"
        )
    place = {key: i for i, key in enumerate(theirs)}
    found = [i for i, key in enumerate(ours) if key in shared]
    return found, [place[ours[i]] for i in found]


def _keys(paths: Sequence[str], parts: int) -> list[tuple[str, ...]]:
    """The last parts of each path, the last without suffix."""
    split = [PurePath(path.replace("\\", "/")) for path in paths]
    return [(*path.parts[:-1], path.stem)[-parts:] for path in split]


def align_to_known(scene: Scene, known: KnownCameras) -> Scene:
    """The scene in the world of known cameras of three or more of its pictures, at their scale.

    One similarity for all (``similarity_to_cameras``, robust): the cameras are laid onto the known
    ones as well as it goes, not replaced by them.

    Raises:
        InputError: fewer than three pictures are known, the cameras are all in one place, or they
            do not fit.
    """
    ours, theirs = match(scene.views, known)
    cameras = scene.cameras
    matched = replace(
        cameras,
        intrinsics=cameras.intrinsics[ours],
        camera_from_world=cameras.camera_from_world[ours],
        sizes=cameras.sizes[ours],
    )
    truth = replace(matched, camera_from_world=known.camera_from_world[theirs])
    try:
        known_from_world = similarity_to_cameras(matched, truth)
    except InputError as error:
        raise InputError(f"{known.file}: {error}") from error
    return moved(scene, known_from_world, known.units)
