"""Scenes to score a compression on: procedural ones, and folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import geometry
from ..errors import ImageError
from ..images import read_views
from ..pictures import SUFFIXES
from ..types import Views
from ..worlds import KINDS, render
from .damage import Case, Target

# Training draws seeds below 2^40, its validation from 2^41, the evaluation from 2^43.
WORLD_SEED = 2**42


def world_cases(count: int, views: int, size: int, seed: int = WORLD_SEED) -> list[Case]:
    """Procedural scenes with truth, evenly over all kinds.

    Args:
        count: scenes.
        views: of each.
        size: height and width of the views.
        seed: of the first scene; by default none that training or evaluation draws.
    """
    cases = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        world = render(seed + index, 1, views, size, size, kinds=(kind,))
        images = (world.images[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        poses = world.camera_from_world[0].double().numpy()
        poses = geometry.compose_rigid(poses, geometry.invert_rigid(poses[:1]))
        depth, valid = world.depth[0].numpy(), world.valid[0].numpy()
        points = geometry.unproject(depth, world.intrinsics[0].double().numpy(), poses)
        truth = Target(poses, depth, points, valid)
        cases.append(Case(f"worlds/{kind}-{index:03d}", "worlds", Views.from_images(images), truth))
    return cases


def view_cases(scenes: Sequence[Views], group: str = "calibration") -> list[Case]:
    """Scenes of views that were read already, such as a calibration set's."""
    return [Case(f"{group}/{index:03d}", group, views) for index, views in enumerate(scenes)]


def folder_cases(
    folder: str | Path, count: int, views: int, size: int, patch: int = 14
) -> list[Case]:
    """Scenes out of a folder: each of its sub-folders, or else every n-th of its pictures.

    Scenes cut from one set of pictures are not independent, so that intervals over them are too
    narrow; sub-folders are better.

    Args:
        folder: of pictures, or of folders of pictures.
        count: at most so many scenes.
        views: pictures of each scene, spread over it.
        size: longer side of the views.
        patch: the network's patch size.

    Raises:
        ImageError: no such folder, or too few pictures in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder of pictures")
    group = folder.resolve().name
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and _pictures(p))
    if inner and not _pictures(folder):
        inner = [inner[i] for i in np.unique(np.linspace(0, len(inner) - 1, count).astype(int))]
        sets = {f"{group}/{one.name}": _spread(_pictures(one), views) for one in inner}
    else:
        found = _pictures(folder)
        count = max(1, min(count, len(found) // views))
        sets = {f"{group}/{i:03d}": _spread(found[i::count], views) for i in range(count)}
    short = [name for name, paths in sets.items() if len(paths) < 2]
    if short:
        raise ImageError(f"{folder}: {short[0]} has fewer than two pictures, too few to score")
    return [
        Case(name, group, read_views(list(paths), size=size, patch=patch))
        for name, paths in sets.items()
    ]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _spread(paths: list[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]
