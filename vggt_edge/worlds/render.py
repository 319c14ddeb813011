"""Scenes to pictures: pack, trace, shade, expose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .builder import Builder, solid_bounds
from .lighting import Lights, shade
from .materials import WIDTH
from .paths import Cameras
from .shapes import FAR, Solids
from .tiles import Grid, first_hits


def pack_solids(builders: Sequence[Builder], device: torch.device) -> Solids:
    """The solids of scenes as tensors, padded to the same number of rows a scene."""
    count = max(len(builder.rows) for builder in builders)
    total = len(builders) * count
    frame = np.zeros((total, 3, 3), np.float32)
    center = np.zeros((total, 3), np.float32)
    half = np.zeros((total, 3), np.float32)
    bound = np.zeros((total, 3), np.float32)
    kind = np.zeros(total, np.int64)
    extra = np.zeros((total, 12), np.float32)
    material = np.zeros((total, WIDTH), np.float32)
    shadow = np.zeros(total, bool)
    for scene, builder in enumerate(builders):
        for i, row in enumerate(builder.rows, scene * count):
            center[i], half[i], kind[i], extra[i], material[i], shadow[i] = row[0], *row[2:]
            frame[i] = row[1] / half[i][:, None]
            bound[i] = solid_bounds(row)
    arrays = (frame, center, half, bound, kind, extra, material, shadow)
    return Solids(*(torch.from_numpy(a).to(device) for a in arrays), count=count)


def pack_lights(builders: Sequence[Builder], device: torch.device) -> Lights:
    """The lights of scenes as tensors."""
    lights = [builder.finished_light() for builder in builders]
    values = {}
    for name in Lights._fields:
        column = np.stack([np.asarray(getattr(light, name)) for light in lights])
        values[name] = torch.from_numpy(
            column if column.dtype == bool else column.astype(np.float32)
        ).to(device)
    return Lights(**values)


def pack_grid(cameras: Sequence[Cameras], height: int, width: int, device: torch.device) -> Grid:
    """The views of scenes, in order, as one tiling."""
    pose = np.concatenate([c.world_from_camera for c in cameras]).astype(np.float32)
    focal = np.concatenate([c.focal * width for c in cameras]).astype(np.float32)
    scene = np.repeat(np.arange(len(cameras)), [len(c.focal) for c in cameras])
    return Grid(
        scene=torch.from_numpy(scene).to(device),
        center=torch.from_numpy(pose[:, :, 3].copy()).to(device),
        rotation=torch.from_numpy(pose[:, :, :3].copy()).to(device),
        focal=torch.from_numpy(focal).to(device),
        height=height,
        width=width,
    )


def picture(grid: Grid, solids: Solids, lights: Lights) -> tuple[Tensor, Tensor]:
    """(V, 3, H, W) linear radiance and (V, H, W) z-depth, 0 where there is only sky."""
    depth, solid = first_hits(grid, solids)
    radiance = grid.to_image(shade(grid, solids, lights, depth, solid)).transpose(0, 1)
    rows = grid.to_image(torch.where(depth < FAR, solid, -1))
    image = _antialias(radiance.contiguous(), rows)
    return image, grid.to_image(torch.where(depth < FAR, depth, 0.0)).contiguous()


def _antialias(image: Tensor, rows: Tensor) -> Tensor:
    """Blend across the outlines of solids, where one sample a pixel leaves stairs.

    Radiance is compressed first, or a bright sky would eat thin dark things.
    """
    image = image / (1 + image)
    edge = torch.zeros_like(rows, dtype=torch.bool)
    down, across = rows[:, 1:] != rows[:, :-1], rows[:, :, 1:] != rows[:, :, :-1]
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    tent = image.new_tensor([1.0, 2.0, 1.0]) / 4
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    blur = sum(w * padded[:, :, i : i + image.shape[2]] for i, w in enumerate(tent.tolist()))
    blur = sum(w * blur[:, :, :, i : i + image.shape[3]] for i, w in enumerate(tent.tolist()))
    image = torch.lerp(image, blur, edge[:, None] * 0.75)
    return image / (1 - image).clamp_min(1e-3)


def develop(radiance: Tensor, depth: Tensor, scene: Tensor, scenes: int) -> Tensor:
    """Linear radiance (V, 3, H, W) to pictures in [0, 1], exposed alike within a scene.

    The exposure puts the mean logarithmic luminance at mid grey, the sky counting little; the
    curve is the extended one of Reinhard et al. 2002, then gamma.
    """
    weight = (depth > 0).float() + 0.1
    light = radiance.mean(1).clamp_min(1e-3).log() * weight
    zeros = torch.zeros(scenes, device=depth.device)
    total = zeros.index_add(0, scene, light.sum((1, 2)))
    share = zeros.index_add(0, scene, weight.sum((1, 2)))
    exposure = (0.25 / (total / share).exp())[scene][:, None, None, None]
    x = radiance * exposure
    x = x * (1 + x / 9.0) / (1 + x * 0.75)
    return x.clamp(1e-6, 1) ** (1 / 2.2)
