"""Procedural textures, evaluated where a ray met a surface.

A texture sees the point in the object's coordinates (solid textures: marble, wood, plaster) or on
the face it lies on (bricks, tiles, windows), both in metres, and a pixel's footprint there. Detail
finer than the footprint fades into its mean, as it would in a photograph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .noise import fractal_noise, hash_cells, value_noise


class Spot(NamedTuple):
    """Where a texture is asked for its colour; N points.

    Fields
        solid      (3, N) object coordinates plus the material's offset, metres.
        face       (2, N) coordinates on the face, metres, rotated by the material.
        footprint  (N,) a pixel's size on the surface, metres.
        a, b, c    (3, N) the material's colours, linear.
        scale      (N,) size of a cell of the pattern, metres.
        aspect     (N,) width of a cell over its height.
        seed       (N,) a number of the material's own.
    """

    solid: Tensor
    face: Tensor
    footprint: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    scale: Tensor
    aspect: Tensor
    seed: Tensor

    @property
    def scaled(self) -> Tensor:
        """(3, N) object coordinates in cells."""
        return self.solid / self.scale


def _mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return torch.lerp(a, b, t)


def _column(like: Tensor, values: list[float]) -> Tensor:
    return like.new_tensor(values)[:, None]


def _band(x: Tensor, width: Tensor, edge: Tensor) -> Tensor:
    """1 inside [0, width] of a unit period, box-filtered over ``edge``."""
    inside = ((width - (x - width / 2).abs() * 1.0 - width / 2) / edge + 0.5).clamp(0, 1)
    wrapped = ((x - 1) / edge + 0.5).clamp(0, 1)
    return torch.maximum(inside, wrapped)


def _cells(spot: Spot, brick: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cell indices, the place in the cell in [0, 1), and the footprint in cell heights."""
    v = spot.face[1] / spot.scale
    row = v.floor()
    u = spot.face[0] / (spot.scale * spot.aspect) + brick * row
    col = u.floor()
    return col, row, u - col, v - row, spot.footprint / spot.scale


def _grout(x: Tensor, y: Tensor, aspect: Tensor, footprint: Tensor, width: float) -> Tensor:
    """How much of the joint between cells is at a place: a tent filter over the footprint."""
    edge = footprint + 0.02
    dx = torch.minimum(x, 1 - x) * aspect
    dy = torch.minimum(y, 1 - y)
    near = torch.minimum(dx, dy)
    strength = (width / edge).clamp(max=1)
    return ((width - near) / edge + 0.5).clamp(0, 1) * strength


def paint(spot: Spot) -> Tensor:
    """Nearly one colour: wall paint, plastic."""
    noise = fractal_noise(spot.scaled, 2, spot.footprint / spot.scale)
    return spot.a * (0.93 + 0.14 * noise)


def plaster(spot: Spot) -> Tensor:
    """Two colours in clouds of several octaves: plaster, concrete, soil, grass."""
    noise = fractal_noise(spot.scaled, 4, spot.footprint / spot.scale)
    fine = value_noise(spot.scaled * 9.0)
    fade = (1 - 9 * spot.footprint / spot.scale).clamp(0, 1)
    color = _mix(spot.a, spot.b, ((noise - 0.5) * 1.8 + 0.5).clamp(0, 1))
    return _mix(color, spot.c, (fine - 0.62).clamp(min=0) * 2.2 * fade)


def marble(spot: Spot) -> Tensor:
    """Veins along the zeros of a distorted wave."""
    p = spot.scaled
    noise = fractal_noise(p, 4, spot.footprint / spot.scale)
    wave = torch.sin(2.2 * p[0] + 1.3 * p[1] + 0.9 * p[2] + 9 * noise)
    vein = (1 - wave.abs()).clamp(min=0) ** 4
    base = _mix(spot.a, spot.c, (noise * 1.4 - 0.3).clamp(0, 1) * 0.6)
    return _mix(base, spot.b, vein * (1 - spot.footprint / spot.scale).clamp(0, 1))


def wood(spot: Spot) -> Tensor:
    """Rings around an axis, seen as grain."""
    p = spot.scaled
    stretched = p * _column(p, [0.12, 1.0, 1.0])
    warp = fractal_noise(stretched, 2)
    rings = torch.hypot(p[1] + 0.4, p[2] + 2.3) * 1.7 + 2.4 * warp
    saw = rings - rings.floor()
    fade = (1.2 - 2 * spot.footprint / spot.scale).clamp(0, 1)
    fibre = value_noise(p * _column(p, [0.6, 9.0, 9.0])) - 0.5
    fine = (1 - 9 * spot.footprint / spot.scale).clamp(0, 1)
    t = 0.5 + ((saw * (1 - saw) * 4) ** 1.5 - 0.5) * fade + 0.4 * fibre * fine
    return _mix(spot.a, spot.b, (t * 0.8).clamp(0, 1))


def bricks(spot: Spot) -> Tensor:
    """Rows of bricks, each of its own shade, with mortar."""
    col, row, x, y, foot = _cells(spot, 0.5)
    shade = hash_cells(col, row, spot.seed)
    dirt = fractal_noise(spot.scaled * 1.7, 3, foot * 1.7)
    color = _mix(spot.a, spot.b, shade * (1.3 - foot).clamp(0.1, 1)) * (0.72 + 0.56 * dirt)
    return _mix(color, spot.c, _grout(x, y, spot.aspect, foot, 0.07))


def tiling(spot: Spot) -> Tensor:
    """Tiles in a grid, nearly alike."""
    col, row, x, y, foot = _cells(spot, 0.0)
    shade = hash_cells(col, row, spot.seed)
    vein = fractal_noise(spot.solid * 7 + shade * 13, 2, spot.footprint * 7)
    color = _mix(spot.a, spot.b, (0.35 * shade + 0.9 * (vein - 0.35)).clamp(0, 1))
    return _mix(color, spot.c, _grout(x, y, spot.aspect, foot, 0.03))


def planks(spot: Spot) -> Tensor:
    """Boards side by side, each with a grain and shade of its own."""
    v = spot.face[1] / spot.scale
    row = v.floor()
    u = spot.face[0] / (spot.scale * spot.aspect) + hash_cells(row, spot.seed) * 7
    col = u.floor()
    shade = hash_cells(col, row, spot.seed)
    grain_at = torch.stack([u * 2.2, v * 7, shade * 31])
    foot = spot.footprint / spot.scale
    grain = fractal_noise(grain_at, 3, foot * 7)
    t = (0.55 * shade + 1.1 * (grain - 0.5) + 0.25).clamp(0, 1)
    joint = _grout(u - col, v - row, spot.aspect, foot, 0.025)
    return _mix(_mix(spot.a, spot.b, t), spot.c * 0.35, joint * 0.85)


def checker(spot: Spot) -> Tensor:
    """Squares of two colours."""
    col, row, x, y, foot = _cells(spot, 0.0)
    odd = ((col + row) % 2) * 2 - 1
    soft = (torch.minimum(x, 1 - x) / (foot + 1e-4) + 0.5).clamp(0, 1) * (
        torch.minimum(y, 1 - y) / (foot + 1e-4) + 0.5
    ).clamp(0, 1)
    fade = (1.5 - foot).clamp(0, 1)
    wear = fractal_noise(spot.solid * 3, 2, spot.footprint * 3)
    color = _mix(spot.a, spot.b, 0.5 + 0.5 * odd * soft * fade)
    return color * (0.85 + 0.3 * wear)


def stripes(spot: Spot) -> Tensor:
    """Stripes of two colours and a thin third."""
    v = spot.face[1] / spot.scale
    foot = spot.footprint / spot.scale + 0.01
    x = v - v.floor()
    wide = _band(x, torch.full_like(x, 0.5), foot)
    thin = _band((x + 0.32) % 1.0, torch.full_like(x, 0.12), foot)
    fade = (1.4 - foot).clamp(0, 1)
    color = _mix(spot.a, spot.b, 0.5 + (wide - 0.5) * fade)
    return _mix(color, spot.c, thin * fade)


def dots(spot: Spot) -> Tensor:
    """Dots of varying size in a staggered grid."""
    col, row, x, y, foot = _cells(spot, 0.5)
    radius = 0.18 + 0.24 * hash_cells(col, row, spot.seed)
    distance = torch.hypot((x - 0.5) * spot.aspect, y - 0.5)
    dot = ((radius - distance) / (foot + 0.02) + 0.5).clamp(0, 1) * (1.5 - foot).clamp(0.2, 1)
    which = hash_cells(row, col, spot.seed + 5)
    return _mix(spot.a, _mix(spot.b, spot.c, (which > 0.6).float()), dot)


def granite(spot: Spot) -> Tensor:
    """Speckles of three colours."""
    p = spot.scaled * 5
    fade = (1.3 - 5 * spot.footprint / spot.scale).clamp(0, 1)
    first = ((value_noise(p) - 0.55) * 8 + 0.5).clamp(0, 1)
    second = ((value_noise(p * 1.7 + 11) - 0.62) * 8 + 0.5).clamp(0, 1)
    cloud = fractal_noise(spot.scaled * 0.4, 2)
    color = _mix(spot.a, spot.b, 0.4 + (first - 0.4) * fade)
    return _mix(color, spot.c, 0.3 + (second - 0.3) * fade) * (0.8 + 0.4 * cloud)


def carpet(spot: Spot) -> Tensor:
    """A woven pattern: diamonds in bands, with the weave."""
    u, v = (spot.face / spot.scale).unbind(0)
    foot = spot.footprint / spot.scale
    fade = (1.3 - foot * 2).clamp(0, 1)
    diamond = ((u % 1.0 - 0.5).abs() + (v % 1.0 - 0.5).abs() - 0.35).clamp(-0.5, 0.5)
    ring = torch.sin(diamond * 14 + hash_cells((v * 0.5).floor(), spot.seed) * 6)
    weave = torch.sin(u * 60) * torch.sin(v * 60) * (1 - foot * 20).clamp(0, 1)
    color = _mix(spot.a, spot.b, 0.5 + (ring * 2.5).clamp(-0.5, 0.5) * fade)
    border = hash_cells((v * 0.5).floor(), spot.seed + 3) > 0.62
    return _mix(color, spot.c, border.float() * 0.6) * (1 + 0.12 * weave)


def poster(spot: Spot) -> Tensor:
    """Rectangles, bands and lines of strokes that look like print."""
    height = spot.scale
    u, v = spot.face[0] / height, spot.face[1] / height
    foot = spot.footprint / height
    color = spot.a
    for layer, size in enumerate((0.9, 0.43, 0.23)):
        cu, cv = u / size + 0.37 * layer, v / size + 0.21 * layer
        key = hash_cells(cu.floor(), cv.floor(), spot.seed + 17 * layer)
        left, low = 0.35 * key, 0.5 * ((key * 37) % 1.0)
        x, y = cu % 1.0, cv % 1.0
        inside = (x > left) & (x < left + 0.6) & (y > low) & (y < low + 0.45) & (key > 0.35)
        ink = torch.stack([(key * k) % 1.0 for k in (91.0, 57.0, 33.0)])
        tint = _mix(spot.b, spot.c, (key * 5) % 1.0) * (ink * 0.5 + 0.7)
        tint = _mix(tint, ink * 0.6 + 0.02, (key * 23) % 1.0 * 0.7)
        color = torch.where(inside, tint, color)
    line = v / 0.055
    row = line.floor()
    letter = hash_cells((u / 0.028).floor(), row, spot.seed)
    ragged = hash_cells(row, spot.seed + 2)
    text = (line % 1.0 > 0.35) & (letter > 0.3) & (hash_cells((row / 5).floor(), spot.seed) > 0.5)
    text &= (u % 1.1) < 0.4 + 0.6 * ragged
    fade = (1.3 - foot * 22).clamp(0.35, 1)
    return _mix(color, spot.c * 0.3, text.float() * fade * 0.8)


def painting(spot: Spot) -> Tensor:
    """Soft shapes of many colours, like a photograph out of focus."""
    p = torch.cat([spot.face / spot.scale, spot.seed[None]])
    p = p + 1.2 * torch.stack([value_noise(p * 1.3 + k * 9) for k in range(3)])
    channels = [fractal_noise(p * 1.5 + 5.2 * k, 3) for k in range(3)]
    tint = ((torch.stack(channels) - 0.5) * 2.4 + 0.5).clamp(0.02, 1)
    tint = _mix(tint.mean(0, keepdim=True), tint, value_noise(p * 0.4 + 70))
    light = value_noise(p * 0.8 + 40)
    return _mix(tint, _mix(spot.a, spot.b, light), 0.3 + 0.4 * light)


def windows(spot: Spot) -> Tensor:
    """A facade's grid of windows: wall, frame, glass of varying darkness, a sill."""
    col, row, x, y, foot = _cells(spot, 0.0)
    width = 0.32 + 0.3 * hash_cells(spot.seed, spot.seed)
    height = 0.42 + 0.25 * hash_cells(spot.seed + 1, spot.seed)
    edge = foot + 0.01
    dx = (width / 2 - (x - 0.5).abs()) * spot.aspect
    dy = height / 2 - (y - 0.5).abs()
    glass = (torch.minimum(dx, dy) / edge + 0.5).clamp(0, 1)
    frame = (torch.minimum(dx, dy) / edge + 0.5 + 0.05 / edge).clamp(0, 1)
    bar = (((x - 0.5).abs() * spot.aspect < 0.018) | ((y - 0.58).abs() < 0.015)).float()
    shade = hash_cells(col, row, spot.seed)
    dirt = fractal_noise(spot.scaled * 1.3, 3, foot)
    wall = _mix(spot.a, spot.b, (dirt - 0.3).clamp(0, 1) * 0.7)
    ledge = ((y < 0.5 - height / 2) & (y > 0.43 - height / 2) & (dx > -0.06)).float()
    wall = _mix(wall, spot.c, ledge * (1 - foot * 4).clamp(0, 1))
    sky = (0.04 + 0.3 * (shade > 0.6) * shade + 0.08 * y) * _column(spot.a, [0.75, 0.9, 1.1])
    curtain = ((shade > 0.25) & (shade < 0.45)).float() * (((x * 3 + shade * 9) % 1.0) > 0.4)
    pane = _mix(sky, torch.full_like(sky, 0.5), curtain * 0.6)
    return _mix(_mix(wall, spot.c, frame), pane, glass * (1 - bar))


def foliage(spot: Spot) -> Tensor:
    """Leaves: dark gaps, lit tips."""
    p = spot.scaled
    coarse = fractal_noise(p, 3, spot.footprint / spot.scale)
    fine = value_noise(p * 6.0)
    fade = (1.2 - 4 * spot.footprint / spot.scale).clamp(0.15, 1)
    color = _mix(spot.a, spot.b, ((coarse - 0.5) * 1.6 + 0.5).clamp(0, 1))
    color = color * (1 - 0.8 * (0.55 - fine).clamp(min=0) * 2 * fade)
    return _mix(color, spot.c, (fine - 0.72).clamp(min=0) * 2.5 * fade)


def books(spot: Spot) -> Tensor:
    """Spines side by side, of all colours, with titles."""
    u, v = spot.face[0] / spot.scale, spot.face[1] / spot.scale
    col = (u + 0.35 * torch.sin(u * 0.7 + spot.seed)).mul(3.0)
    key = hash_cells(col.floor(), spot.seed)
    x = col - col.floor()
    foot = spot.footprint / spot.scale * 3
    tint = torch.stack([(key * k) % 1.0 for k in (71.0, 43.0, 29.0)]) * 0.55 + 0.06
    tone = _mix(tint, _mix(spot.a, spot.b, key), torch.full_like(key, 0.6))
    title = ((x - 0.5).abs() < 0.17) & (((v * 2 + key * 5) % 1.0) > 0.55) & (key > 0.3)
    color = _mix(tone, spot.c, title.float() * (1 - foot).clamp(0, 1) * 0.8)
    gap = (torch.minimum(x, 1 - x) < 0.05).float() * (1 - foot).clamp(0, 1)
    return color * (1 - 0.8 * gap)


def cobbles(spot: Spot) -> Tensor:
    """Rounded stones: distances to jittered points of a grid."""
    u = spot.face / spot.scale
    base = u.floor()
    nearest = torch.full_like(u[0], 9.0)
    second, shade = nearest.clone(), torch.zeros_like(nearest)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            col, row = base[0] + i, base[1] + j
            key = hash_cells(col, row, spot.seed)
            x = col + 0.5 + 0.7 * (key - 0.5) - u[0]
            y = row + 0.5 + 0.7 * ((key * 29) % 1.0 - 0.5) - u[1]
            distance = x * x + y * y
            closer = distance < nearest
            second = torch.minimum(second, torch.maximum(nearest, distance))
            nearest = torch.minimum(nearest, distance)
            shade = torch.where(closer, key, shade)
    foot = spot.footprint / spot.scale
    crack = 1 - ((second.sqrt() - nearest.sqrt()) / (0.16 + foot)).clamp(0, 1)
    grain = fractal_noise(spot.scaled * 4, 2, foot * 4)
    color = _mix(spot.a, spot.b, shade) * (0.75 + 0.5 * grain)
    return _mix(color, spot.c, crack * (1.2 - foot).clamp(0.3, 1))


PATTERNS: tuple[Callable[[Spot], Tensor], ...] = (
    paint,
    plaster,
    marble,
    wood,
    bricks,
    tiling,
    planks,
    checker,
    stripes,
    dots,
    granite,
    carpet,
    poster,
    painting,
    windows,
    foliage,
    books,
    cobbles,
)
NAMES = tuple(pattern.__name__ for pattern in PATTERNS)


def face_coordinates(local: Tensor, normal: Tensor, curved: Tensor, angle: Tensor) -> Tensor:
    """(2, N) coordinates, metres, on the face an object-space normal (3, N) belongs to.

    On flat solids the two axes across the normal's dominant one; on curved ones arc length around
    the object's z axis, and height. ``angle`` (N,) rotates the result.
    """
    nx, ny, nz = normal.abs().unbind(0)
    level = nz >= torch.maximum(nx, ny)
    upright = curved & ~level
    u = torch.where(~level & (nx > ny), local[1], local[0])
    v = torch.where(level, local[1], local[2])
    around = torch.atan2(local[1], local[0]) / math.tau
    radius = torch.hypot(local[0], local[1])
    u = torch.where(upright, around * radius * math.tau, u)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos * u - sin * v, sin * u + cos * v])
