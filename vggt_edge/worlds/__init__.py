"""Procedural scenes with exact depth, poses and intrinsics, rendered by torch on CPU or GPU.

``render`` makes batches of small sets of views, for training; ``walk`` follows a long path through
one scene. Everything is drawn from the seed: no file is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import indoor, objects, outdoor
from .builder import Builder
from .camera_effects import photograph
from .paths import Cameras, sample_views, sample_walk
from .render import develop, pack_grid, pack_lights, pack_solids, picture

_MAKERS = {
    "room": (indoor.room, 0.34),
    "table": (indoor.table, 0.18),
    "object": (objects.single, 0.15),
    "street": (outdoor.street, 0.11),
    "terrace": (outdoor.terrace, 0.11),
    "facade": (outdoor.facade, 0.11),
}

KINDS: tuple[str, ...] = tuple(_MAKERS)
"""The kinds of scene."""

# Views traced at a time: what fits the caches of a CPU; enough to fill a GPU.
_VIEWS_AT_ONCE = {"cpu": 8}
_VIEWS_OF_A_GPU = 64


class WorldBatch(NamedTuple):
    """Views of B scenes, S to a scene, on the device asked for.

    Fields
        images             (B, S, 3, H, W) float32, RGB in [0, 1].
        depth              (B, S, H, W) float32, z-depth of the pixel-centre ray in metres; 0 where
                           invalid.
        valid              (B, S, H, W) bool: False for sky and plain backgrounds.
        intrinsics         (B, S, 3, 3) float32, pixels; integer coordinates are pixel centres and
                           the principal point is (W / 2, H / 2).
        camera_from_world  (B, S, 3, 4) float32, OpenCV axes; the world has z up, metres.
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    intrinsics: Tensor
    camera_from_world: Tensor


def _scene(
    seed: int, index: int, kinds: Sequence[str] | None
) -> tuple[Builder, np.random.Generator]:
    rng = np.random.default_rng([seed, index])
    for kind in kinds or ():
        if kind not in _MAKERS:
            raise InputError(f"unknown kind of scene {kind!r}: choose from {', '.join(KINDS)}")
    names = KINDS if kinds is None else tuple(kinds)
    weights = np.array([_MAKERS[name][1] for name in names])
    kind = names[rng.choice(len(names), p=weights / weights.sum())]
    builder = Builder(rng)
    _MAKERS[kind][0](builder)
    return builder, rng


def _camera_seeds(rng: np.random.Generator, views: int) -> tuple[list[int], list[int]]:
    """Seeds of views and of their cameras: mostly one camera a scene, sometimes one a view."""
    own = [int(s) for s in rng.integers(1 << 31, size=views)]
    return own, (own if rng.random() < 0.15 else [own[0]] * views)


def _photograph(
    builders: Sequence[Builder],
    cameras: Sequence[Cameras],
    height: int,
    width: int,
    device: torch.device,
    seeds: tuple[Sequence[int], Sequence[int]] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures, depth, intrinsics and camera_from_world of all views, flat."""
    grid = pack_grid(cameras, height, width, device)
    solids, lights = pack_solids(builders, device), pack_lights(builders, device)
    step = _VIEWS_AT_ONCE.get(device.type, _VIEWS_OF_A_GPU)
    parts = [
        picture(grid.views(start, start + step), solids, lights)
        for start in range(0, len(grid.scene), step)
    ]
    radiance, depth = (torch.cat(column) for column in zip(*parts, strict=True))
    images = develop(radiance, depth, grid.scene, len(builders))
    if seeds is not None:
        images = photograph(images, *seeds)
    rotation = grid.rotation.transpose(1, 2)
    pose = torch.cat([rotation, -(rotation @ grid.center[..., None])], -1)
    intrinsics = torch.zeros(len(pose), 3, 3, device=device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = grid.focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1.0
    return images, depth, intrinsics, pose


def render(
    seed: int,
    scenes: int,
    views: int,
    height: int,
    width: int,
    *,
    kinds: Sequence[str] | None = None,
    overlap: float = 0.7,
    device: str | torch.device = "cpu",
    augment: bool = True,
    first: int = 0,
) -> WorldBatch:
    """Render ``scenes`` scenes of ``views`` views each.

    Args:
        seed: same seed and device, same pixels.
        scenes: how many scenes.
        views: how many views a scene.
        height, width: of every view, pixels.
        kinds: which of ``KINDS`` to draw from; None for all, in natural proportions.
        overlap: how much neighbouring views see in common, in (0, 1]: 1 for tiny baselines. It
            sets the step of the camera; walls in its way make the true share larger, and a
            third of the sets come in no order.
        device: where to render.
        augment: whether to add what cameras do: exposure, white balance, noise, blur, JPEG.
        first: number of the first scene: ``render(s, 1, ..., first=i)`` is scene i of
            ``render(s, n, ...)``.

    Raises:
        InputError: for an unknown kind, or an overlap outside (0, 1].
    """
    if not 0 < overlap <= 1:
        raise InputError(f"overlap must be in (0, 1], got {overlap}")
    device = torch.device(device)
    chunk = 1 if device.type in _VIEWS_AT_ONCE else max(_VIEWS_OF_A_GPU // views, 1)
    parts = []
    with torch.inference_mode():
        for start in range(first, first + scenes, chunk):
            indices = range(start, min(start + chunk, first + scenes))
            pairs = [_scene(seed, i, kinds) for i in indices]
            cameras = [sample_views(b, rng, views, overlap) for b, rng in pairs]
            drawn = [_camera_seeds(rng, views) for _, rng in pairs]
            seeds = [s for own, _ in drawn for s in own], [s for _, owner in drawn for s in owner]
            parts.append(
                _photograph(
                    [b for b, _ in pairs],
                    cameras,
                    height,
                    width,
                    device,
                    seeds if augment else None,
                )
            )
        return _batch(parts, scenes, views)


def walk(
    seed: int,
    views: int,
    height: int,
    width: int,
    *,
    kind: str = "room",
    stride: float = 0.06,
    device: str | torch.device = "cpu",
    augment: bool = False,
) -> WorldBatch:
    """Render one scene along a continuous path: a batch of one scene with any number of views.

    Args:
        seed, views, height, width, device, augment: as for ``render``.
        kind: one of ``KINDS``.
        stride: metres between neighbouring views, about.

    Raises:
        InputError: for an unknown kind.
    """
    builder, rng = _scene(seed, 0, (kind,))
    cameras = sample_walk(builder, rng, views, stride)
    seeds = _camera_seeds(rng, views) if augment else None
    with torch.inference_mode():
        part = _photograph([builder], [cameras], height, width, torch.device(device), seeds)
        return _batch([part], 1, views)


def _batch(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], scenes: int, views: int
) -> WorldBatch:
    images, depth, intrinsics, pose = (torch.cat(column) for column in zip(*parts, strict=True))
    fields = (images, depth, depth > 0, intrinsics, pose)
    return WorldBatch(*(field.view(scenes, views, *field.shape[1:]) for field in fields))
