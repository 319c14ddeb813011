"""Furniture and things, in a local frame: standing on z = 0 about the origin, front towards -y."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import materials as m
from .builder import Builder, random_rotation, turn_x, turn_z


def table(b: Builder, width: float, depth: float, height: float) -> None:
    """A table: a top on four legs, a pedestal or two panels."""
    rng = b.rng
    wood = m.timber(rng) if rng.random() < 0.8 else m.stone(rng)
    legs = wood if rng.random() < 0.6 else m.metal(rng)
    top = rng.uniform(0.02, 0.06)
    x, y = width / 2, depth / 2
    style = rng.random()
    if style < 0.2:
        b.cylinder(0, 0, height - top, height, min(x, y) * 1.15, wood)
        b.cylinder(0, 0, 0.04, height - top, 0.05, legs)
        b.cylinder(0, 0, 0, 0.04, min(x, y) * 0.6, legs)
        return
    b.box(-x, -y, height - top, x, y, height, wood)
    if style < 0.35:
        for side in (-1, 1):
            b.box(side * (x - 0.06), -y * 0.9, 0, side * (x - 0.1), y * 0.9, height - top, legs)
        return
    size = rng.uniform(0.02, 0.045)
    for sx in (-1, 1):
        for sy in (-1, 1):
            cx, cy = sx * (x - 0.05 - size), sy * (y - 0.05 - size)
            if style < 0.6:
                b.cylinder(cx, cy, 0, height - top, size, legs, top=1.3)
            else:
                b.box(cx - size, cy - size, 0, cx + size, cy + size, height - top, legs)
    if rng.random() < 0.5:
        b.box(-x + 0.06, -y + 0.06, height - top - 0.1, x - 0.06, y - 0.06, height - top, wood)


def chair(b: Builder) -> None:
    """A chair."""
    rng = b.rng
    frame = m.timber(rng) if rng.random() < 0.7 else m.metal(rng)
    seat = m.fabric(rng) if rng.random() < 0.5 else frame
    w, h, back = rng.uniform(0.19, 0.26), rng.uniform(0.42, 0.48), rng.uniform(0.8, 1.05)
    b.box(-w, -w, h - 0.05, w, w, h, seat)
    for sx in (-1, 1):
        b.rod((sx * w * 0.9, -w * 0.9, 0), (sx * w * 0.85, -w * 0.85, h - 0.05), 0.018, frame)
        b.rod((sx * w * 0.9, w * 1.0, 0), (sx * w * 0.85, w * 0.95, back), 0.02, frame)
    if rng.random() < 0.5:
        b.box(-w * 0.9, w * 0.88, h + 0.15, w * 0.9, w * 0.98, back, seat)
    else:
        for z in np.linspace(h + 0.15, back - 0.03, rng.integers(2, 5)):
            b.box(-w * 0.85, w * 0.9, z, w * 0.85, w * 0.95, z + 0.05, frame)


def sofa(b: Builder, width: float) -> None:
    """A sofa or armchair with cushions."""
    rng = b.rng
    cloth = m.fabric(rng)
    d, h = 0.45, rng.uniform(0.38, 0.46)
    x = width / 2
    b.hull((0, 0, h / 2 + 0.02), (x, d, h / 2), cloth, 1.9)
    b.hull((0, d - 0.1, h + 0.18), (x, 0.12, 0.28), cloth, 1.8)
    for side in (-1, 1):
        b.hull((side * (x - 0.08), 0, h * 0.75), (0.1, d, h * 0.7), cloth, 1.75)
    for cx in np.linspace(-x + 0.4, x - 0.4, max(int(width / 0.7), 1)):
        b.hull((cx, -0.05, h + 0.06), (0.33, d * 0.8, 0.07), cloth, 1.6)
    for _ in range(rng.integers(0, 4)):
        tilt = turn_z(rng.uniform(-0.5, 0.5)) @ turn_x(rng.uniform(-0.5, 0.1))
        b.hull(
            (rng.uniform(-x + 0.3, x - 0.3), 0.12, h + 0.3),
            (0.2, 0.07, 0.18),
            m.fabric(rng),
            1.45,
            tilt,
        )


def shelf(b: Builder, width: float, height: float, depth: float) -> None:
    """Open shelves with books and things."""
    rng = b.rng
    wood = m.timber(rng)
    x, y = width / 2, depth / 2
    for side in (-1, 1):
        b.box(side * x, -y, 0, side * (x - 0.025), y, height, wood)
    b.box(-x, y - 0.015, 0, x, y, height, wood)
    levels = np.linspace(0.08, height - 0.02, max(int(height / rng.uniform(0.3, 0.45)), 2) + 1)
    for z in levels:
        b.box(-x, -y, z - 0.02, x, y, z, wood)
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        room = high - low - 0.03
        cursor = -x + 0.04
        while cursor < x - 0.12:
            if rng.random() < 0.6:
                wide = min(rng.uniform(0.12, 0.5), x - 0.03 - cursor)
                tall = room * rng.uniform(0.6, 0.95)
                spines = m.material(
                    rng,
                    "books",
                    c.any_color(rng),
                    c.any_color(rng),
                    c.pale(rng),
                    scale=rng.uniform(0.08, 0.14),
                )
                b.box(
                    cursor,
                    -y * rng.uniform(0.5, 0.95),
                    low,
                    cursor + wide,
                    y - 0.03,
                    low + tall,
                    spines,
                )
                cursor += wide + rng.uniform(0, 0.08)
            else:
                size = min(rng.uniform(0.08, 0.2), room * 0.9)
                with b.placed(cursor + size / 2, 0, low, rng.uniform(-0.4, 0.4)):
                    thing(b, size)
                cursor += size + rng.uniform(0.02, 0.15)


def cabinet(b: Builder, width: float, height: float, depth: float, drawers: int) -> None:
    """A cupboard, chest or kitchen unit, with fronts and handles."""
    rng = b.rng
    body = m.timber(rng)
    front = body if rng.random() < 0.5 else m.timber(rng)
    x, y = width / 2, depth / 2
    b.box(-x, -y, 0.06, x, y, height, body)
    if rng.random() < 0.6:
        top = m.stone(rng) if rng.random() < 0.5 else body
        b.box(-x - 0.015, -y - 0.02, height, x + 0.015, y, height + 0.03, top)
    cols = max(int(width / rng.uniform(0.4, 0.65)), 1)
    handle = m.metal(rng)
    for i in range(cols):
        left, right = (-x + width * j / cols for j in (i, i + 1))
        for j in range(drawers):
            low, high = (0.09 + (height - 0.12) * k / drawers for k in (j, j + 1))
            b.box(left + 0.012, -y - 0.02, low + 0.01, right - 0.012, -y, high - 0.01, front)
            middle = (left + right) / 2
            b.box(
                middle - 0.05,
                -y - 0.045,
                high - 0.06,
                middle + 0.05,
                -y - 0.02,
                high - 0.045,
                handle,
            )


def bed(b: Builder) -> None:
    """A bed with a blanket and pillows."""
    rng = b.rng
    w = rng.uniform(0.45, 0.9)
    b.box(-w, -1.0, 0.1, w, 1.0, 0.3, m.timber(rng))
    b.box(-w, 0.97, 0, w, 1.05, rng.uniform(0.7, 1.1), m.timber(rng))
    b.hull((0, 0, 0.42), (w * 0.98, 0.97, 0.13), m.fabric(rng), 1.85)
    b.hull((0, -0.3, 0.5), (w * 1.02, 0.7, 0.08), m.fabric(rng), 1.8)
    pillow = m.fabric(rng)
    for side in (-0.5, 0.5) if w > 0.6 else (0.0,):
        b.ellipsoid((side * w, 0.7, 0.6), (0.32, 0.2, 0.09), pillow)


def lamp(b: Builder, height: float) -> None:
    """A floor or table lamp."""
    rng = b.rng
    stand = m.metal(rng)
    r = rng.uniform(0.12, 0.2) * min(height, 1.2) ** 0.5
    b.cylinder(0, 0, 0, 0.02, r * 0.8, stand)
    b.cylinder(0, 0, 0.02, height - r, 0.012, stand)
    shade = m.material(rng, "paint", c.pale(rng), emission=rng.choice([0.0, 1.5]))
    b.cylinder(0, 0, height - r * 1.5, height, r, shade, top=rng.uniform(0.5, 1.0), hollow=True)


def plant(b: Builder, height: float) -> None:
    """A plant in a pot."""
    rng = b.rng
    pot = height * rng.uniform(0.2, 0.35)
    b.cylinder(0, 0, 0, pot, pot * 0.45, m.anything(rng, 0.2), top=rng.uniform(1.0, 1.4))
    leaf = m.leaves(rng)
    for _ in range(rng.integers(2, 6)):
        lean = rng.normal(0, height * 0.18, 2)
        top = rng.uniform(0.6, 0.9) * height
        b.rod((0, 0, pot), (lean[0], lean[1], top), 0.008, leaf)
        r = height * rng.uniform(0.13, 0.25)
        b.crown(
            (lean[0], lean[1], top),
            (r, r, r * rng.uniform(0.5, 1.1)),
            leaf,
            density=rng.uniform(0.4, 0.6),
            leaf=rng.uniform(0.03, 0.06),
        )


def thing(b: Builder, size: float) -> None:
    """A thing about ``size`` metres across: box, can, bottle, mug, bowl, ball, gem, books."""
    rng = b.rng
    s = size / 2
    look = m.anything(rng, size)
    which = rng.integers(10)
    if which <= 1:
        h = rng.uniform(0.5, 2.2) * s
        b.box(-s, -s * rng.uniform(0.3, 1), 0, s, s * rng.uniform(0.3, 1), h, look)
    elif which == 2:
        b.cylinder(0, 0, 0, size * rng.uniform(0.6, 1.6), s * rng.uniform(0.5, 0.9), look)
    elif which == 3:
        h, r = size * rng.uniform(1.0, 1.6), s * rng.uniform(0.35, 0.6)
        b.cylinder(0, 0, 0, h * 0.6, r, look)
        b.cylinder(0, 0, h * 0.6, h * 0.78, r, look, top=0.35)
        b.cylinder(0, 0, h * 0.78, h, r * 0.35, m.lacquer(rng))
    elif which == 4:
        r, h = s * rng.uniform(0.6, 0.9), size * rng.uniform(0.6, 1.0)
        b.cylinder(0, 0, 0, h, r, look, top=rng.uniform(0.9, 1.4), hollow=True)
        b.cylinder(0, 0, 0, h * 0.1, r, look)
        b.rod((r * 0.9, 0, h * 0.25), (r * 1.5, 0, h * 0.35), s * 0.08, look)
        b.rod((r * 1.5, 0, h * 0.3), (r * 1.5, 0, h * 0.75), s * 0.08, look)
        b.rod((r * 1.0, 0, h * 0.8), (r * 1.5, 0, h * 0.72), s * 0.08, look)
    elif which == 5:
        b.cylinder(0, 0, 0, s * 0.7, s * 0.55, look, top=1.8, hollow=True)
        b.cylinder(0, 0, 0, s * 0.12, s * 0.6, look)
        for _ in range(rng.integers(0, 5)):
            x, y = rng.uniform(-0.4, 0.4, 2) * s
            b.ellipsoid((x, y, s * 0.6), (s * 0.3,) * 3, m.lacquer(rng))
    elif which == 6:
        half = s * rng.uniform(0.5, 1.0, 3)
        b.ellipsoid((0, 0, half[2]), tuple(half), look)
    elif which == 7:
        half = s * rng.uniform(0.5, 1.0, 3)
        b.hull(
            (0, 0, half[2] * 0.9),
            tuple(half),
            look,
            rng.uniform(1.0, 1.8, 12),
            turn_z(rng.uniform(0, 6)),
        )
    elif which == 8:
        z = 0.0
        for _ in range(rng.integers(2, 7)):
            h = rng.uniform(0.08, 0.25) * s
            w = s * rng.uniform(0.6, 1.0)
            with b.placed(0, 0, 0, rng.normal(0, 0.25)):
                b.box(-w, -w * 0.7, z, w, w * 0.7, z + h, m.printed(rng, size))
            z += h
    else:
        figure(b, size * 1.3)


def figure(b: Builder, height: float) -> None:
    """A small statue, toy or animal: a body, a head, limbs."""
    rng = b.rng
    skin = m.anything(rng, height * 0.4)
    other = skin if rng.random() < 0.5 else m.anything(rng, height * 0.3)
    body = (
        np.array([rng.uniform(0.16, 0.3), rng.uniform(0.14, 0.3), rng.uniform(0.2, 0.3)]) * height
    )
    legs = height * rng.uniform(0.1, 0.3)
    round_body = rng.random() < 0.6
    add = b.ellipsoid if round_body else b.hull
    add((0, 0, legs + body[2]), tuple(body), skin)
    r = height * rng.uniform(0.12, 0.2)
    head = np.array([0, -body[1] * rng.uniform(0, 1), legs + body[2] * 1.9 + r * 0.7])
    b.ellipsoid(tuple(head), (r, r * rng.uniform(0.8, 1.2), r), other)
    for side in (-1, 1):
        b.rod(
            (side * body[0] * 0.5, 0, legs + body[2] * 0.5),
            (side * body[0] * 0.6, 0, 0),
            height * 0.06,
            skin,
        )
        b.rod(
            (side * body[0] * 0.8, 0, legs + body[2] * 1.4),
            (
                side * body[0] * rng.uniform(1.1, 1.9),
                -body[1] * 0.6,
                legs + body[2] * rng.uniform(0.6, 2.2),
            ),
            height * 0.05,
            other,
        )
        b.hull(
            (head[0] + side * r * 0.7, head[1], head[2] + r),
            (r * 0.3, r * 0.15, r * 0.5),
            skin,
            1.3,
        )
        b.ellipsoid(
            (head[0] + side * r * 0.4, head[1] - r * 0.85, head[2] + r * 0.2),
            (r * 0.15,) * 3,
            m.material(rng, "paint", c.color(0, 0, 0.1), specular=0.8),
        )
    b.rod(
        (0, head[1], head[2]), (0, head[1] - r * 1.5, head[2] - r * 0.3), r * 0.35, other, top=0.5
    )


def heap(b: Builder, radius: float, count: int, low: float, high: float) -> None:
    """Things ``low`` to ``high`` metres across, strewn over a square, clear of each other."""
    taken: list[tuple[float, float, float]] = []
    for _ in range(count * 6):
        if len(taken) >= count:
            return
        size = float(np.exp(b.rng.uniform(np.log(low), np.log(high))))
        x, y = b.rng.uniform(-radius, radius, 2)
        if any(np.hypot(x - u, y - v) < (size + s) * 0.5 for u, v, s in taken):
            continue
        taken.append((x, y, size))
        with b.placed(x, y, 0, b.rng.uniform(0, 2 * np.pi)):
            thing(b, size)


def rock(b: Builder, center: tuple[float, float, float], size: float) -> None:
    """A boulder."""
    half = size * b.rng.uniform(0.5, 1.0, 3)
    b.hull(center, tuple(half), m.stone(b.rng), b.rng.uniform(1.0, 1.7, 12), random_rotation(b.rng))
