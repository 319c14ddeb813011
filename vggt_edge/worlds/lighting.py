"""From surfaces to light: sky, sun or lamp with shadows, bounce light, occlusion, haze."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import materials as m
from .noise import fractal_noise, value_noise
from .shapes import FAR, LEAVES, TUBE, Solids, gradient
from .textures import PATTERNS, Spot, face_coordinates
from .tiles import TILE, Grid, blocked


class Lights(NamedTuple):
    """The light of B scenes; colours are linear radiance.

    Fields
        key        (B, 3) position of the main lamp, or unit direction towards the sun.
        sun        (B,) bool, which of the two.
        key_color  (B, 3) irradiance of the sun, or of the lamp at two metres.
        fill       (B, 3) position of a second lamp, without shadows.
        fill_color (B, 3) its irradiance at two metres.
        above      (B, 3) ambient light from above.
        below      (B, 3) and from below.
        horizon    (B, 3) colour of the sky (or of a plain background) low down.
        zenith     (B, 3) and high up.
        clouds     (B,) amount of cloud in [0, 1].
        haze       (B,) extinction per metre.
        reach      (B,) metres over which corners darken.
        seed       (B,) a number of the scene's own.
    """

    key: Tensor
    sun: Tensor
    key_color: Tensor
    fill: Tensor
    fill_color: Tensor
    above: Tensor
    below: Tensor
    horizon: Tensor
    zenith: Tensor
    clouds: Tensor
    haze: Tensor
    reach: Tensor
    seed: Tensor


class Surface(NamedTuple):
    """What N rays met: world point, unit normal towards the camera, its albedo and material rows."""

    point: Tensor
    normal: Tensor
    albedo: Tensor
    material: Tensor


def surface(
    solids: Solids, solid: Tensor, point: Tensor, ray: Tensor, footprint: Tensor
) -> Surface:
    """Normals and textures of hits: rows ``solid`` (N,) met at ``point`` (N, 3) along ``ray`` (N, 3)."""
    frame, half = solids.frame[solid], solids.half[solid]
    kind, extra, material = solids.kind[solid], solids.extra[solid], solids.material[solid]
    q = (frame @ (point - solids.center[solid])[..., None]).squeeze(-1)
    slope = torch.zeros_like(q)
    for value in torch.unique(solids.kind).tolist():
        index = (kind == value).nonzero().squeeze(1)
        slope[index] = gradient(value, q[index], extra[index])
    object_normal = _unit(slope / half)
    normal = _unit((slope[:, None] @ frame).squeeze(1))
    facing = (normal * ray).sum(1, keepdim=True)
    normal = normal * -torch.sign(facing + 1e-12)
    cosine = (facing.abs() / ray.norm(dim=1, keepdim=True)).clamp_min(0.15).squeeze(1)
    curved = (kind > 0) & (kind <= TUBE) & (kind != 3)
    local = q * half
    spot = Spot(
        solid=local + material[:, m.OFFSET],
        face=face_coordinates(local, object_normal, curved, material[:, m.ANGLE])
        + material[:, m.OFFSET][:, :2],
        footprint=footprint / cosine.sqrt(),
        a=material[:, m.COLOR_A],
        b=material[:, m.COLOR_B],
        c=material[:, m.COLOR_C],
        scale=material[:, m.SCALE],
        aspect=material[:, m.ASPECT],
        seed=material[:, m.SEED],
    )
    pattern = material[:, m.PATTERN].long()
    albedo = torch.zeros_like(point)
    for value in torch.unique(pattern).tolist():
        index = (pattern == value).nonzero().squeeze(1)
        albedo[index] = PATTERNS[value](Spot(*(field[index] for field in spot)))
    stain = fractal_noise(spot.solid * 1.9 + 3, 2) - 0.5
    albedo = albedo * (1 + stain * material[:, m.DIRT] * 2)[:, None]
    rough = (material[:, m.BUMP] > 0) | (kind == LEAVES)
    index = rough.nonzero().squeeze(1)
    normal[index] = _bumped(normal[index], Spot(*(f[index] for f in spot)), material[index])
    return Surface(point, normal, albedo.clamp(0.004, 0.97), material)


def _unit(v: Tensor) -> Tensor:
    return v * (v * v).sum(-1, keepdim=True).clamp_min(1e-20).rsqrt()


def _bumped(normal: Tensor, spot: Spot, material: Tensor) -> Tensor:
    scale = material[:, m.BUMP_SCALE].clamp_min(1e-3)
    p = spot.solid / scale[:, None]
    wobble = torch.stack([value_noise(p + 13.7 * k) for k in range(3)], 1) - 0.5
    fade = (1.2 - spot.footprint / scale).clamp(0, 1) * material[:, m.BUMP]
    return _unit(normal + wobble * fade[:, None] * 1.6)


def sky(direction: Tensor, lights: Lights, scene: Tensor) -> Tensor:
    """(N, 3) radiance of the sky in unit directions (N, 3), for rays of ``scene`` (N,)."""
    up = direction[:, 2]
    blend = up.clamp(0, 1).sqrt()[:, None]
    color = lights.horizon[scene] + (lights.zenith[scene] - lights.horizon[scene]) * blend
    plane = direction[:, :2] / (up.abs()[:, None] + 0.12)
    p = torch.cat([plane * 1.5, lights.seed[scene][:, None]], 1)
    amount = lights.clouds[scene]
    cloud = ((fractal_noise(p, 4) - 0.75 + 0.5 * amount) * 3).clamp(0, 1) * (up > 0) * (amount > 0)
    white = lights.horizon[scene].mean(1, keepdim=True) * 1.15
    color = color + (white - color) * (cloud * 0.85)[:, None]
    glow = ((direction * lights.key[scene]).sum(1).clamp(0, 1) ** 64) * lights.sun[scene]
    glow = glow * (amount > 0)
    return color + glow[:, None] * lights.key_color[scene] * 0.3


def occlusion(grid: Grid, point: Tensor, normal: Tensor, reach: Tensor) -> Tensor:
    """(V * Q, 64) share of ambient light that gets into corners: 1 in the open.

    Neighbouring pixels stand for the surroundings (screen-space occlusion, Shanmugam and
    Arikan 2007), at two distances and eight directions.
    """
    p = grid.to_image(point).permute(3, 0, 1, 2).contiguous()
    n = grid.to_image(normal).permute(3, 0, 1, 2).contiguous()
    near = max(grid.width // 48, 1)
    far = max(grid.width // 14, 2)
    total = torch.zeros_like(p[0])
    reach = (reach * reach)[:, None, None]
    for radius, offsets in (
        (near, ((1, 0), (-1, 0), (0, 1), (0, -1))),
        (far, ((1, 1), (-1, -1), (1, -1), (-1, 1))),
    ):
        for dx, dy in offsets:
            v = torch.roll(p, (dy * radius, dx * radius), (2, 3)) - p
            squared = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).clamp_min(1e-8)
            lift = (v[0] * n[0] + v[1] * n[1] + v[2] * n[2]) * squared.rsqrt()
            total += (lift - 0.12).relu() / (1 + squared / reach)
    share = 1 / (1 + total * 0.32)
    rows, cols = grid.rows * TILE, grid.cols * TILE
    share = torch.nn.functional.pad(share, (0, cols - grid.width, 0, rows - grid.height), value=1.0)
    share = share.view(-1, grid.rows, TILE, grid.cols, TILE).transpose(2, 3)
    return share.reshape(-1, TILE * TILE)


def _soften(grid: Grid, lit: Tensor) -> Tensor:
    """Shadows with a penumbra of about a pixel."""
    image = lit.view(-1, grid.rows, grid.cols, TILE, TILE).transpose(2, 3)
    image = image.reshape(-1, 1, grid.rows * TILE, grid.cols * TILE)
    image = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    tiles = image.view(-1, grid.rows, TILE, grid.cols, TILE).transpose(2, 3)
    return tiles.reshape(-1, TILE * TILE)


def shade(grid: Grid, solids: Solids, lights: Lights, depth: Tensor, solid: Tensor) -> Tensor:
    """(V * Q, 64, 3) linear radiance along the camera rays.

    Args:
        grid: the views.
        solids, lights: the scenes.
        depth: (V * Q, 64) z-depth, above ``FAR`` for sky.
        solid: (V * Q, 64) rows of ``solids``.
    """
    tiles = grid.rows * grid.cols
    ray = grid.directions()
    hit = depth < FAR
    view = torch.arange(len(grid.scene), device=depth.device).repeat_interleave(tiles)
    scene = grid.scene[view]
    index = hit.flatten().nonzero().squeeze(1)
    pixel_scene = scene[:, None].expand_as(depth).flatten()
    out = sky(_unit(ray).flatten(0, 1), lights, pixel_scene)
    safe = torch.where(hit, depth, 0.0)
    points = grid.center[view][:, None] + ray * safe[..., None]
    rays = ray.flatten(0, 1)[index]
    footprint = (depth / grid.focal[view][:, None]).flatten()[index]
    found = surface(solids, solid.flatten()[index], points.flatten(0, 1)[index], rays, footprint)

    normal = torch.zeros_like(out)
    normal[index] = found.normal
    normal = normal.view_as(ray)
    far_points = torch.where(hit[..., None], points, points + ray * 1e4)
    open_share = occlusion(grid, far_points, normal, lights.reach[grid.scene]).flatten()[index]

    lifted = points + normal * 2e-3
    is_sun = lights.sun[scene][:, None]
    toward = torch.where(
        is_sun[..., None], lights.key[scene][:, None], lights.key[scene][:, None] - points
    )
    facing = (toward * normal).sum(-1)
    wanted = hit & (facing > 0)
    shadow = blocked(grid, solids, lifted, wanted, lights.key[grid.scene], lights.sun[grid.scene])
    lit = _soften(grid, (~shadow).to(depth.dtype)).flatten()[index]

    at = pixel_scene[index]
    material = found.material
    n, eye = found.normal, -_unit(rays)
    light = lights.below[at] + (lights.above[at] - lights.below[at]) * (0.5 + 0.5 * n[:, 2:])
    light = light * open_share[:, None]
    shine = torch.zeros_like(light)
    key = toward.flatten(0, 1)[index]
    sun = lights.sun[at]
    for vector, strength, seen in (
        (key, lights.key_color[at], lit),
        (lights.fill[at] - found.point, lights.fill_color[at], open_share),
    ):
        squared = (vector * vector).sum(1, keepdim=True).clamp_min(1e-4)
        way = vector * squared.rsqrt()
        falls = 4.6 / (squared + 0.6)
        if vector is key:
            falls = torch.where(sun[:, None], torch.ones_like(falls), falls)
        arriving = strength * falls * seen[:, None]
        light = light + arriving * (way * n).sum(1, keepdim=True).relu()
        middle = _unit(way + eye)
        gloss = material[:, m.GLOSS].clamp_min(1)
        peak = (middle * n).sum(1).clamp_min(1e-3) ** gloss * (gloss * 0.04 + 0.3)
        shine = shine + arriving * (peak * material[:, m.SPECULAR])[:, None]
    color = found.albedo * light + shine * 0.6
    color = color + found.albedo * material[:, m.EMISSION][:, None]
    distance = footprint * 0 + depth.flatten()[index] * rays.norm(dim=1)
    clear = torch.exp(-distance * lights.haze[at])[:, None]
    out[index] = color * clear + lights.horizon[at] * (1 - clear)
    return out.view_as(ray)
