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
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    return Solids._make([*tensors, count])


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
    beside = [first_hits(grid, solids, shift) for shift in _BESIDE]
    rows, *others = (_rows(grid, *hits) for hits in ((depth, solid), *beside))
    image = _antialias(radiance.contiguous(), rows, others)
    return image, grid.to_image(torch.where(depth < FAR, depth, 0.0)).contiguous()


_BESIDE = ((0.36, 0.18), (-0.36, -0.18))
"""Where else in a pixel outlines are looked at; depth is that of the centre."""


def _rows(grid: Grid, depth: Tensor, solid: Tensor) -> Tensor:
    return grid.to_image(torch.where(depth < FAR, solid, -1)).contiguous()


def _antialias(image: Tensor, rows: Tensor, others: list[Tensor]) -> Tensor:
    """Smooth outlines: where another sample of a pixel meets another solid, mix in its colour.

    That colour is borrowed from a neighbour whose centre meets that solid; only visibility is
    sampled more than once. Radiance is mixed compressed, or a bright sky would eat thin things.
    """
    count, _, height, width = image.shape
    color = image.permute(1, 0, 2, 3).reshape(3, -1)
    color = color / (1 + color)
    centre = rows.flatten()
    mixed = color.clone()
    for other in others:
        index = (other != rows).flatten().nonzero().squeeze(1)
        wanted = other.flatten()[index]
        col, row = index % width, torch.div(index, width, rounding_mode="floor") % height
        source = index
        for dx, dy in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)):
            near = index + (col + dx).clamp(0, width - 1) - col
            near = near + ((row + dy).clamp(0, height - 1) - row) * width
            source = torch.where(centre[near] == wanted, near, source)
        change = (color[:, source] - color[:, index]) / (1 + len(others))
        mixed.index_add_(1, index, change)
    mixed = mixed / (1 - mixed).clamp_min(1e-3)
    return mixed.view(3, count, height, width).transpose(0, 1).contiguous()


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
