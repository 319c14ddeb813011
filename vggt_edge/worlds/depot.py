"""A depot: a hall of racks, crates and barrels. Never trained on, to be scored as unseen."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import furniture as f
from . import materials as m
from .builder import Builder, Interest, Light


def _crate(b: Builder, width: float, depth: float, height: float) -> None:
    """A carton or a slatted crate on the ground of the current frame."""
    rng = b.rng
    if rng.random() < 0.6:
        look = m.printed(rng, height) if rng.random() < 0.4 else m.timber(rng)
        b.box(-width / 2, -depth / 2, 0, width / 2, depth / 2, height, look)
        b.box(-width / 2, -0.03, height, width / 2, 0.03, height + 0.004, m.lacquer(rng))
        return
    look = m.timber(rng)
    for k in range(4):
        low = height * k / 4
        b.box(-width / 2, -depth / 2, low, width / 2, depth / 2, low + height * 0.19, look)
    for side in (-1, 1):
        b.box(
            side * width * 0.42 - 0.04,
            -depth * 0.51,
            0,
            side * width * 0.42 + 0.04,
            depth * 0.51,
            height,
            look,
        )


def _pallet(b: Builder, stack: int) -> None:
    """A pallet with ``stack`` layers of crates."""
    rng = b.rng
    look = m.timber(rng)
    for k in range(3):
        y = -0.36 + 0.36 * k
        b.box(-0.6, y - 0.06, 0, 0.6, y + 0.06, 0.1, look)
    b.box(-0.6, -0.42, 0.1, 0.6, 0.42, 0.14, look)
    height = 0.14
    for _ in range(stack):
        layer = rng.uniform(0.25, 0.55)
        count = int(rng.integers(1, 4))
        for k in range(count):
            x = (k + 0.5) * 1.1 / count - 0.55
            with b.placed(x, rng.normal(0, 0.03), height, rng.normal(0, 0.05)):
                _crate(b, 1.0 / count, rng.uniform(0.55, 0.8), layer)
        height += layer


def _rack(b: Builder, length: float, height: float) -> None:
    """A rack along x at y = 0, open to both sides, its boards laden with crates and barrels."""
    rng = b.rng
    post, beam = m.lacquer(rng), m.lacquer(rng)
    depth, levels = 0.8, int(rng.integers(2, 5))
    bays = max(1, round(length / 2.2))
    for k in range(bays + 1):
        x = (k / bays - 0.5) * length
        for y in (-depth / 2, depth / 2):
            b.box(x - 0.05, y - 0.05, 0, x + 0.05, y + 0.05, height, post)
        b.rod((x, -depth / 2, 0.2), (x, depth / 2, height * 0.6), 0.02, post)
    for level in range(levels):
        z = 0.15 + level * (height - 0.3) / levels
        b.box(-length / 2, -depth / 2, z - 0.08, length / 2, depth / 2, z, beam)
        x = -length / 2 + 0.3
        while x < length / 2 - 0.3 and len(b.rows) < 210:
            width = rng.uniform(0.35, 1.0)
            room = (height - 0.3) / levels - 0.15
            with b.placed(x + width / 2, rng.normal(0, 0.05), z, rng.normal(0, 0.06)):
                which = rng.random()
                if which < 0.65:
                    _crate(b, width * 0.9, rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.95) * room)
                elif which < 0.85:
                    b.cylinder(0, 0, 0, room * rng.uniform(0.5, 0.9), width * 0.35, m.lacquer(rng))
            x += width + rng.uniform(0.02, 0.5)


def _barrels(b: Builder) -> None:
    rng = b.rng
    look, rim = m.lacquer(rng), m.metal(rng)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.normal(0, 0.5, 2)
        b.cylinder(x, y, 0, 0.88, 0.29, look)
        for z in (0.0, 0.29, 0.58, 0.85):
            b.cylinder(x, y, z, z + 0.03, 0.305, rim)


def _truck(b: Builder) -> None:
    """A forklift, facing -y."""
    rng = b.rng
    paint, dark = m.lacquer(rng), m.material(rng, "paint", c.color(0, 0, 0.12))
    b.hull((0, 0.3, 0.6), (0.5, 0.8, 0.4), paint, 1.7)
    b.hull((0, 0.9, 0.9), (0.5, 0.3, 0.35), paint, 1.5)
    for x in (-0.45, 0.45):
        b.box(x - 0.04, -0.5, 0.9, x + 0.04, -0.42, 2.1, dark)
        b.box(x - 0.04, 0.85, 0.9, x + 0.04, 0.93, 2.1, dark)
        b.box(x * 0.8 - 0.06, -0.72, 0.05, x * 0.8 + 0.06, -0.64, 2.6, m.metal(rng))
        b.box(x * 0.7 - 0.06, -1.7, 0.05, x * 0.7 + 0.06, -0.7, 0.1, m.metal(rng))
        for y in (-0.3, 0.8):
            b.rod((x * 1.1, y, 0.25), (x * 1.35, y, 0.25), 0.25, dark)
    b.box(-0.5, -0.5, 2.1, 0.5, 0.95, 2.16, dark)


def depot(b: Builder) -> None:
    """A hall: columns, girders, racks, pallets, barrels, a forklift; light from above."""
    rng = b.rng
    x, y, height = rng.uniform(5, 11), rng.uniform(5, 11), rng.uniform(4, 7.5)
    b.box(-x - 1, -y - 1, -0.2, x + 1, y + 1, 0, m.stone(rng))
    b.box(-x - 1, -y - 1, height, x + 1, y + 1, height + 0.2, m.wall(rng), shadow=False)
    look = m.brick_wall(rng) if rng.random() < 0.5 else m.boards(rng)
    for x0, y0, x1, y1 in (
        (-x - 0.3, -y, -x, y),
        (x, -y, x + 0.3, y),
        (-x, -y - 0.3, x, -y),
        (-x, y, x, y + 0.3),
    ):
        b.box(x0, y0, 0, x1, y1, height, look)
    steel = m.lacquer(rng)
    bays = int(rng.integers(2, 5))
    for k in range(bays):
        at = ((k + 0.5) / bays * 2 - 1) * y
        b.box(-x, at - 0.12, height - 0.45, x, at + 0.12, height - 0.05, steel)
        for side in (-1, 1):
            b.box(side * x - 0.2, at - 0.12, 0, side * x + 0.2, at + 0.12, height, steel)
            lamp = m.material(rng, "paint", c.pale(rng), emission=rng.uniform(0.5, 3))
            b.cylinder(side * x / 2, at, height - 0.9, height - 0.6, 0.3, lamp, top=0.4)
    targets = []
    aisle = rng.uniform(2.2, 3.4)
    tall = min(rng.uniform(2.2, 5.0), height - 0.6)
    for side in (-1, 1):
        for row in range(int(rng.integers(1, 3))):
            place = side * (aisle / 2 + 0.5 + row * (aisle + 0.9))
            if abs(place) > x - 0.6:
                continue
            with b.placed(place, rng.uniform(-0.2, 0.2) * y, 0, np.pi / 2):
                _rack(b, rng.uniform(0.7, 1.4) * y, tall)
            targets += [np.array([place, rng.uniform(-0.5, 0.5) * y, 1.2]) for _ in range(3)]
    for _ in range(rng.integers(3, 9)):
        at_x, at_y = rng.uniform(-0.8, 0.8) * x, rng.uniform(-0.85, 0.85) * y
        with b.placed(at_x, at_y, 0, rng.uniform(0, 2 * np.pi)):
            which = rng.random()
            if which < 0.45:
                _pallet(b, int(rng.integers(1, 4)))
            elif which < 0.7:
                _barrels(b)
            elif which < 0.82:
                _truck(b)
            else:
                f.heap(b, 0.6, 6, 0.2, 0.6)
        targets.append(np.array([at_x, at_y, 0.7]))
    key = np.array([rng.normal(0, 0.3) * x, rng.normal(0, 0.3) * y, height - 1.0])
    warm = c.color(0.12, rng.uniform(0, 0.3), 1.0)
    b.light = Light(
        key=key,
        sun=False,
        key_color=warm * rng.uniform(2, 9),
        above=warm * rng.uniform(0.3, 0.8),
        below=np.full(3, rng.uniform(0.15, 0.4)),
        horizon=np.full(3, 0.5),
        zenith=np.full(3, 0.5),
        fill=np.array([-0.5 * x, 0.5 * y, height - 1.0]),
        fill_color=c.pale(rng) * rng.uniform(1, 5),
        reach=rng.uniform(0.4, 1.0),
        seed=rng.uniform(0, 30),
    )
    b.interest = Interest(
        low=np.array([-x + 0.5, -y + 0.5, 0.8]),
        high=np.array([x - 0.5, y - 0.5, 2.4]),
        targets=targets,
        distance=(1.2, 7.0),
    )
