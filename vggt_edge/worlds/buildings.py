"""Houses: fronts with painted or modelled windows, doors, balconies, cornices; roofs."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import materials as m
from .builder import Builder


def building(b: Builder, width: float, height: float, depth: float, relief: bool) -> None:
    """A house whose front lies at y = 0, facing -y, body behind it."""
    rng = b.rng
    x = width / 2
    base = c.pale(rng) if rng.random() < 0.7 else c.grey(rng)
    floors = max(int(height / rng.uniform(2.7, 3.4)), 1)
    storey = height / floors
    if not relief:
        look = m.material(
            rng,
            "windows",
            base,
            c.near(rng, base, 0.2),
            c.pale(rng),
            scale=storey,
            aspect=rng.uniform(0.5, 1.2),
        )
        b.box(-x, 0, 0, x, depth, height, look)
    else:
        skin = (
            m.brick_wall(rng)
            if rng.random() < 0.4
            else m.material(
                rng,
                "plaster",
                base,
                c.near(rng, base, 0.15),
                c.near(rng, base),
                scale=0.6,
                bump=0.1,
            )
        )
        b.box(-x, 0, 0, x, depth, height, skin)
        _relief(b, x, storey, floors)
    if rng.random() < 0.5:
        roof = m.material(
            rng, "bricks", c.color(0.03, 0.5, rng.uniform(0.3, 0.6)), scale=0.25, aspect=1.0
        )
        tall = rng.uniform(0.15, 0.35) * depth
        b.hull((0, depth / 2, height), (x + 0.3, depth / 2 + 0.4, tall), roof, _GABLE)
    else:
        b.box(-x - 0.15, -0.15, height - 0.25, x + 0.15, depth, height + 0.1, m.stone(rng))


# Of the twelve cuts of a hull, a gable keeps two: y + z <= 1 and y - z >= -1.
_GABLE = np.array([2.0] * 5 + [1.0] + [2.0] * 4 + [1.0, 2.0])


def _relief(b: Builder, x: float, storey: float, floors: int) -> None:
    """Recessed-looking windows, doors, cornices, pilasters, balconies on a front."""
    rng = b.rng
    trim = m.stone(rng) if rng.random() < 0.6 else m.lacquer(rng)
    glass = m.material(
        rng, "paint", c.color(0.58, 0.25, rng.uniform(0.1, 0.35)), specular=0.9, gloss=120
    )
    step = rng.uniform(1.6, 3.2)
    cols = max(int(2 * x / step), 1)
    w, h = rng.uniform(0.35, 0.6), storey * rng.uniform(0.26, 0.34)
    arch = rng.random() < 0.3
    shutters = m.timber(rng) if rng.random() < 0.3 else None
    balcony = rng.random() < 0.3
    for row in range(min(floors, 4)):
        z = (row + 0.55) * storey
        for col in range(min(cols, 7)):
            cx = -x + (col + 0.5) * 2 * x / cols
            door = row == 0 and rng.random() < 0.35
            low = 0.0 if door else z - h
            b.box(cx - w - 0.1, -0.09, low - 0.1, cx + w + 0.1, 0, z + h + 0.1, trim)
            b.box(cx - w, -0.095, low, cx + w, -0.02, z + h, m.timber(rng) if door else glass)
            if arch:
                b.rod((cx, -0.09, z + h), (cx, 0.0, z + h), w + 0.08, trim)
            if not door:
                b.box(cx - w - 0.15, -0.2, low - 0.16, cx + w + 0.15, 0, low - 0.08, trim)
                b.box(cx - 0.025, -0.11, low, cx + 0.025, 0, z + h, trim)
            if shutters is not None and not door:
                for side in (-1, 1):
                    b.box(
                        cx + side * (w + 0.08),
                        -0.12,
                        low,
                        cx + side * (w * 1.9),
                        -0.06,
                        z + h,
                        shutters,
                    )
            if balcony and row > 0 and rng.random() < 0.5:
                b.box(cx - w - 0.3, -0.8, low - 0.2, cx + w + 0.3, 0, low - 0.08, trim)
                b.box(cx - w - 0.3, -0.8, low + 0.7, cx + w + 0.3, -0.75, low + 0.75, trim)
                for px in np.linspace(cx - w - 0.28, cx + w + 0.28, 6):
                    b.box(px - 0.012, -0.79, low - 0.1, px + 0.012, -0.765, low + 0.7, trim)
        if rng.random() < 0.6:
            b.box(-x, -0.12, (row + 1) * storey - 0.15, x, 0, (row + 1) * storey, trim)
    if rng.random() < 0.4:
        for px in np.linspace(-x + 0.15, x - 0.15, max(cols // 2, 1) + 1):
            b.box(px - 0.15, -0.15, 0, px + 0.15, 0, storey * floors, trim)
