"""From surfaces to light: sky, sun or lamp with shadows, bounce light, occlusion, haze."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import materials as m
from .noise import fractal_noise, value_noise
from .shapes import CONE, ELLIPSOID, FAR, TUBE, Solids, gradient
from .textures import PATTERNS, Spot, face_coordinates
from .tiles import Grid, blocked


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
    """What N rays met.

    Fields
        normal    (3, N) unit, towards the camera.
        albedo    (3, N) linear reflectance.
        specular  (N,) strength of the highlight.
        gloss     (N,) its Blinn exponent.
        emission  (N,) light given off, in units of the albedo.
    """

    normal: Tensor
    albedo: Tensor
    specular: Tensor
    gloss: Tensor
    emission: Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def _unit(v: Tensor) -> Tensor:
    return v * _dot(v, v).clamp_min(1e-20).rsqrt()


def _groups(values: Tensor) -> list[tuple[int, int, int]]:
    """(value, start, end) of the runs of a sorted tensor of small integers."""
    counts = torch.bincount(values).tolist()
    runs, start = [], 0
    for value, count in enumerate(counts):
        if count:
            runs.append((value, start, start + count))
        start += count
    return runs


def surface(
    solids: Solids, solid: Tensor, point: Tensor, ray: Tensor, footprint: Tensor
) -> Surface:
    """Normals and textures of hits.

    Args:
        solids: the scenes.
        solid: (N,) rows of ``solids``, ordered by their material's pattern.
        point: (3, N) where they were met, world.
        ray: (3, N) along which way.
        footprint: (N,) a pixel's size there, metres.
    """
    table = torch.cat(
        [solids.frame.flatten(1), solids.center, solids.half, solids.extra, solids.material], 1
    )
    row = table.T.contiguous().index_select(1, solid)
    f, center, half, extra = row[:9], row[9:12], row[12:15], row[15:27]
    material = row[27:]
    kind = solids.kind[solid]
    offset = point - center
    q = torch.stack([_dot(f[i : i + 3], offset) for i in (0, 3, 6)])
    slope = q
    for value in torch.unique(solids.kind).tolist():
        if value != ELLIPSOID:
            index = (kind == value).nonzero().squeeze(1)
            slope = slope.index_copy(1, index, gradient(value, q[:, index], extra[:, index]))
    object_normal = slope / half
    normal = _unit(torch.stack([_dot(f[i::3], slope) for i in range(3)]))
    facing = _dot(normal, ray)
    normal = normal * -torch.sign(facing + 1e-12)
    cosine = (facing.abs() * _dot(ray, ray).rsqrt()).clamp_min(0.15)
    curved = (kind == ELLIPSOID) | (kind == CONE) | (kind == TUBE)
    local = q * half
    shift = material[m.OFFSET]
    spot = Spot(
        solid=local + shift,
        face=face_coordinates(local, object_normal, curved, material[m.ANGLE]) + shift[:2],
        footprint=footprint * cosine.rsqrt(),
        a=material[m.COLOR_A],
        b=material[m.COLOR_B],
        c=material[m.COLOR_C],
        scale=material[m.SCALE],
        aspect=material[m.ASPECT],
        seed=material[m.SEED],
    )
    albedo = torch.cat(
        [
            PATTERNS[value](Spot(*(field[..., start:end] for field in spot)))
            for value, start, end in _groups(material[m.PATTERN].long())
        ],
        1,
    )
    stain = value_noise(spot.solid * 2.3 + 3) - 0.5
    albedo = albedo * (1 + stain * material[m.DIRT] * 1.6)
    index = (material[m.BUMP] > 0).nonzero().squeeze(1)
    bumped = _bumped(
        normal[:, index], spot.solid[:, index], spot.footprint[index], material[:, index]
    )
    normal = normal.index_copy(1, index, bumped)
    return Surface(
        normal,
        albedo.clamp(0.004, 0.97),
        material[m.SPECULAR],
        material[m.GLOSS],
        material[m.EMISSION],
    )


def _bumped(normal: Tensor, solid: Tensor, footprint: Tensor, material: Tensor) -> Tensor:
    scale = material[m.BUMP_SCALE].clamp_min(1e-3)
    p = solid / scale
    wobble = torch.stack([value_noise(p + 13.7 * k) for k in range(3)]) - 0.5
    fade = (1.2 - footprint / scale).clamp(0, 1) * material[m.BUMP]
    return _unit(normal + wobble * fade * 1.6)


def _at(values: Tensor, scene: Tensor) -> Tensor:
    """(B, ...) values of scenes to (..., N), or (..., 1) if there is only one scene."""
    values = values.movedim(0, -1)
    return values if values.shape[-1] == 1 else values.index_select(-1, scene)


def sky(direction: Tensor, lights: Lights, scene: Tensor) -> Tensor:
    """(3, N) radiance of the sky in unit directions (3, N), for rays of ``scene`` (N,)."""
    up = direction[2]
    horizon = _at(lights.horizon, scene)
    color = torch.lerp(horizon, _at(lights.zenith, scene), up.clamp(0, 1).sqrt())
    plane = direction[:2] / (up.abs() + 0.12) * 1.5
    seed = _at(lights.seed, scene).expand_as(up)
    amount = _at(lights.clouds, scene)
    noise = fractal_noise(torch.cat([plane, seed[None]]), 4)
    cloud = ((noise - 0.75 + 0.5 * amount) * 3).clamp(0, 1) * (up > 0) * (amount > 0)
    color = torch.lerp(color, horizon.mean(0, keepdim=True) * 1.15, cloud * 0.85)
    glow = _dot(direction, _at(lights.key, scene)).clamp(0, 1) ** 64
    glow = glow * (_at(lights.sun, scene) & (amount > 0))
    return color + glow * _at(lights.key_color, scene) * 0.3


def occlusion(grid: Grid, point: Tensor, normal: Tensor, reach: Tensor) -> Tensor:
    """(T, 64) share of ambient light that gets into corners: 1 in the open.

    Neighbouring pixels stand for the surroundings (screen-space occlusion, Shanmugam and
    Arikan 2007), at two distances and eight directions. ``point`` and ``normal`` are (3, T, 64),
    ``reach`` (V,) metres.
    """
    p, n = grid.to_image(point).contiguous(), grid.to_image(normal).contiguous()
    total = torch.zeros_like(p[0])
    reach = (1 / (reach * reach))[:, None, None]
    near, far = max(grid.width // 48, 1), max(grid.width // 14, 2)
    for radius, offsets in (
        (near, ((1, 0), (-1, 0), (0, 1), (0, -1))),
        (far, ((1, 1), (-1, -1), (1, -1), (-1, 1))),
    ):
        for dx, dy in offsets:
            v = torch.roll(p, (dy * radius, dx * radius), (2, 3)) - p
            squared = _dot(v, v).clamp_min(1e-8)
            lift = _dot(v, n) * squared.rsqrt()
            total += (lift - 0.12).relu() / (1 + squared * reach)
    return grid.to_tiles(1 / (1 + total * 0.32))


def _soften(grid: Grid, lit: Tensor) -> Tensor:
    """Shadows (T, 64) with a penumbra of about a pixel."""
    image = grid.to_image(lit)[:, None]
    soft = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    return grid.to_tiles(soft[:, 0])


def shade(grid: Grid, solids: Solids, lights: Lights, depth: Tensor, solid: Tensor) -> Tensor:
    """(3, T, 64) linear radiance along the camera rays.

    Args:
        grid: the views.
        solids: the scenes.
        lights: their lights.
        depth: (T, 64) z-depth, above ``FAR`` for sky.
        solid: (T, 64) rows of ``solids``.
    """
    tiles = grid.rows * grid.cols
    ray = grid.directions()
    hit = depth < FAR
    scene = grid.scene.repeat_interleave(tiles)[:, None]
    flat_scene = scene.expand_as(depth).flatten()
    miss = (~hit).flatten().nonzero().squeeze(1)
    index = hit.flatten().nonzero().squeeze(1)
    # In order of texture, so that each texture works on a slice.
    pattern = solids.material[:, m.PATTERN].to(torch.uint8)
    index = index[pattern[solid.flatten()[index]].argsort(stable=True)]

    position = grid.center.T.repeat_interleave(tiles, 1)[..., None]
    points = position + ray * torch.where(hit, depth, 1e4)
    rays = ray.flatten(1)[:, index]
    at = flat_scene[index]
    length = _dot(rays, rays).sqrt()
    near = depth.flatten()[index]
    focal = grid.focal.repeat_interleave(tiles)[:, None].expand_as(depth).flatten()[index]
    here = points.flatten(1)[:, index]
    found = surface(solids, solid.flatten()[index], here, rays, near / focal)

    normal = torch.zeros_like(ray).flatten(1).index_copy(1, index, found.normal).view_as(ray)
    open_share = occlusion(grid, points, normal, lights.reach[grid.scene]).flatten()[index]
    key = lights.key[grid.scene].T.repeat_interleave(tiles, 1)[..., None]
    sun = lights.sun[grid.scene].repeat_interleave(tiles)[:, None]
    toward = torch.where(sun, key.expand_as(points), key - points)
    wanted = hit & (_dot(toward, normal) > 0)
    lifted = points + normal * 2e-3
    shadow = blocked(grid, solids, lifted, wanted, lights.key[grid.scene], lights.sun[grid.scene])
    lit = _soften(grid, (~shadow).to(depth.dtype)).flatten()[index]

    n, eye = found.normal, rays / -length
    below = _at(lights.below, at)
    light = torch.lerp(below, _at(lights.above, at), 0.5 + 0.5 * n[2]) * open_share
    shine = torch.zeros_like(light)
    is_sun = _at(lights.sun, at)
    for lamp, vector, strength, seen in (
        (~is_sun, toward.flatten(1)[:, index], _at(lights.key_color, at), lit),
        (
            torch.ones_like(is_sun),
            _at(lights.fill, at) - here,
            _at(lights.fill_color, at),
            open_share,
        ),
    ):
        squared = _dot(vector, vector).clamp_min(1e-4)
        way = vector * squared.rsqrt()
        falls = torch.where(lamp, 4.6 / (squared + 0.6), 1.0) * seen
        light = torch.addcmul(light, strength, falls * _dot(way, n).relu())
        half_way = _dot(_unit(way + eye), n).clamp_min(1e-3)
        peak = half_way ** found.gloss.clamp_min(1) * (found.gloss * 0.04 + 0.3)
        shine = torch.addcmul(shine, strength, falls * peak)
    color = found.albedo * (light + found.emission) + shine * (found.specular * 0.6)
    clear = torch.exp(-near * length * _at(lights.haze, at))
    color = torch.lerp(_at(lights.horizon, at).expand_as(color), color, clear)
    out = torch.empty_like(ray).flatten(1).index_copy(1, index, color)
    above = sky(_unit(ray.flatten(1)[:, miss]), lights, flat_scene[miss])
    return out.index_copy(1, miss, above).view_as(ray)
