"""Procedural scenes with exact depth, poses and intrinsics, rendered by torch on CPU or GPU.

``render`` makes batches of small sets of views, for training; ``walk`` follows a long path through
one scene. Everything is drawn from the seed: no file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import depot, indoor, objects, outdoor
from .builder import Builder
from .camera_effects import photograph
from .lighting import Lights
from .paths import Cameras, sample_views, sample_walk
from .render import develop, pack_grid, pack_lights, pack_solids, picture
from .shapes import Solids
from .tiles import Grid

_MAKERS = {
    "room": (indoor.room, 0.34),
    "table": (indoor.table, 0.18),
    "object": (objects.single, 0.15),
    "street": (outdoor.street, 0.11),
    "terrace": (outdoor.terrace, 0.11),
    "facade": (outdoor.facade, 0.11),
    # Comes only when it is asked for by name: it is kept for scoring what was never seen.
    "depot": (depot.depot, 1e-9),
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


class Built(NamedTuple):
    """Some scenes and their cameras, ready to be photographed together.

    Fields
        grid     the views, flat.
        solids   of the scenes.
        lights   of the scenes.
        seeds    of views and of their cameras, for the effects of a camera; None without these.
    """

    grid: Grid
    solids: Solids
    lights: Lights
    seeds: tuple[list[int], list[int]] | None

    def map(self, change: Callable[[Any], Any], kind: type) -> Built:
        """The same with ``change`` applied to all values of a ``kind``: tensors or arrays."""

        def each(part: tuple[Any, ...]) -> list[Any]:
            return [change(value) if isinstance(value, kind) else value for value in part]

        return Built(
            Grid._make(each(self.grid)),
            Solids._make(each(self.solids)),
            Lights._make(each(self.lights)),
            self.seeds,
        )


def _pack(
    builders: Sequence[Builder],
    cameras: Sequence[Cameras],
    height: int,
    width: int,
    seeds: tuple[list[int], list[int]] | None,
) -> Built:
    cpu = torch.device("cpu")
    grid = pack_grid(cameras, height, width, cpu)
    return Built(grid, pack_solids(builders, cpu), pack_lights(builders, cpu), seeds)


def _photograph(built: Built, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures, depth, intrinsics and camera_from_world of all views, flat."""
    grid, solids, lights, seeds = built.map(lambda value: value.to(device), Tensor)
    step = _VIEWS_AT_ONCE.get(device.type, _VIEWS_OF_A_GPU)
    parts = [
        picture(grid.views(start, start + step), solids, lights)
        for start in range(0, len(grid.scene), step)
    ]
    radiance, depth = (torch.cat(column) for column in zip(*parts, strict=True))
    images = develop(radiance, depth, grid.scene, len(lights.seed))
    if seeds is not None:
        images = photograph(images, *seeds)
    rotation = grid.rotation.transpose(1, 2)
    pose = torch.cat([rotation, -(rotation @ grid.center[..., None])], -1)
    intrinsics = torch.zeros(len(pose), 3, 3, device=device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = grid.focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = grid.width / 2, grid.height / 2
    intrinsics[:, 2, 2] = 1.0
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
    device = torch.device(device)
    built = build(
        seed,
        scenes,
        views,
        height,
        width,
        kinds=kinds,
        overlap=overlap,
        device=device,
        augment=augment,
        first=first,
    )
    return shoot(built, scenes, views, device)


def build(
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
) -> list[Built]:
    """The half of ``render`` that always runs on the CPU, on one core.

    Arguments and errors are those of ``render``; on ``device`` nothing is put, it decides how many
    scenes are put together.
    """
    if not 0 < overlap <= 1:
        raise InputError(f"overlap must be in (0, 1], got {overlap}")
    on_cpu = torch.device(device).type in _VIEWS_AT_ONCE
    chunk = 1 if on_cpu else max(_VIEWS_OF_A_GPU // views, 1)
    parts = []
    for start in range(first, first + scenes, chunk):
        indices = range(start, min(start + chunk, first + scenes))
        pairs = [_scene(seed, i, kinds) for i in indices]
        cameras = [sample_views(b, rng, views, overlap) for b, rng in pairs]
        drawn = [_camera_seeds(rng, views) for _, rng in pairs]
        seeds = [s for own, _ in drawn for s in own], [s for _, owner in drawn for s in owner]
        builders = [b for b, _ in pairs]
        parts.append(_pack(builders, cameras, height, width, seeds if augment else None))
    return parts


def shoot(
    built: Sequence[Built], scenes: int, views: int, device: str | torch.device
) -> WorldBatch:
    """The half of ``render`` that runs on ``device``: photograph what ``build`` has built."""
    with torch.inference_mode():
        return _batch([_photograph(part, torch.device(device)) for part in built], scenes, views)


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
        built = _pack([builder], [cameras], height, width, seeds)
        return _batch([_photograph(built, torch.device(device))], 1, views)


def _batch(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], scenes: int, views: int
) -> WorldBatch:
    images, depth, intrinsics, pose = (torch.cat(column) for column in zip(*parts, strict=True))
    fields = (images, depth, depth > 0, intrinsics, pose)
    return WorldBatch(*(field.view(scenes, views, *field.shape[1:]) for field in fields))
