"""Streets, terraces and facades under a sky."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import furniture as f
from . import materials as m
from .builder import Builder, Interest, Light, turn_z
from .buildings import building


def _daylight(b: Builder, haze: float = 0.0) -> None:
    rng = b.rng
    cloudy = rng.random() < 0.35
    blue = c.color(
        rng.uniform(0.55, 0.62), rng.uniform(0.1, 0.25) if cloudy else rng.uniform(0.3, 0.6), 1.0
    )
    horizon = c.color(rng.uniform(0.5, 0.62), rng.uniform(0, 0.15), 1.0) * rng.uniform(0.8, 1.4)
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(18, 75))
    key = np.array(
        [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
    )
    warm = c.color(0.1, rng.uniform(0.05, 0.4), 1.0)
    strength = rng.uniform(0.1, 0.6) if cloudy else rng.uniform(1.5, 3.5)
    b.light = Light(
        key=key,
        sun=True,
        key_color=warm * strength,
        above=(blue + horizon) / 2 * rng.uniform(0.5, 0.9),
        below=warm * rng.uniform(0.1, 0.4),
        horizon=horizon,
        zenith=blue * rng.uniform(0.5, 0.9),
        clouds=rng.uniform(0.6, 1.0) if cloudy else rng.uniform(0, 0.7),
        haze=haze,
        reach=rng.uniform(0.4, 1.2),
        seed=rng.uniform(0, 30),
    )


def tree(b: Builder, height: float) -> None:
    """A broad-leaved tree: trunk, branches, clumps of leaves."""
    rng = b.rng
    bark = m.material(rng, "plaster", c.brown(rng) * 0.6, scale=0.15, bump=0.6)
    leaf = m.leaves(rng)
    r = height * rng.uniform(0.02, 0.035)
    fork = height * rng.uniform(0.3, 0.5)
    b.cylinder(0, 0, 0, fork, r, bark, top=0.75)
    for _ in range(rng.integers(3, 7)):
        lean = rng.normal(0, height * 0.16, 2)
        top = height * rng.uniform(0.55, 0.9)
        b.rod((0, 0, fork * 0.95), (lean[0], lean[1], top), r * 0.6, bark, top=0.4)
        size = height * rng.uniform(0.14, 0.24)
        b.crown(
            (lean[0], lean[1], top),
            (size, size, size * rng.uniform(0.6, 1.0)),
            leaf,
            density=rng.uniform(0.45, 0.65),
            leaf=rng.uniform(0.12, 0.25),
        )


def conifer(b: Builder, height: float) -> None:
    """A conifer: stacked cones."""
    rng = b.rng
    leaf = m.leaves(rng)
    b.cylinder(0, 0, 0, height * 0.3, height * 0.025, m.timber(rng))
    for k in range(4):
        low = height * (0.12 + 0.2 * k)
        b.cylinder(0, 0, low, low + height * 0.35, height * (0.2 - 0.04 * k), leaf, top=0.05)


def car(b: Builder) -> None:
    """A car or van along x."""
    rng = b.rng
    paint = m.lacquer(rng)
    glass = m.material(rng, "paint", c.color(0.6, 0.2, 0.15), specular=1.0, gloss=150)
    rubber = m.material(rng, "paint", c.color(0, 0, 0.15))
    length, width = rng.uniform(1.8, 2.4), rng.uniform(0.8, 0.95)
    van = rng.random() < 0.25
    b.hull((0, 0, 0.6), (length, width, 0.35), paint, 1.8)
    top = 1.2 if van else 0.75
    b.hull(
        (0.1, 0, 0.95 + top / 2 - 0.1),
        (length * (0.85 if van else 0.6), width * 0.9, top / 2),
        glass,
        1.5,
    )
    b.hull(
        (0.1, 0, 0.95 + top - 0.12),
        (length * (0.8 if van else 0.5), width * 0.82, 0.06),
        paint,
        1.8,
    )
    for cx in (-0.62, 0.62):
        for side in (-1, 1):
            b.rod(
                (cx * length, side * width * 0.75, 0.33),
                (cx * length, side * width * 1.02, 0.33),
                0.33,
                rubber,
            )
            b.rod(
                (cx * length, side * width * 0.9, 0.33),
                (cx * length, side * width * 1.03, 0.33),
                0.18,
                m.metal(rng),
            )


def pole(b: Builder) -> None:
    """A street lamp, sign, bollard or traffic light."""
    rng = b.rng
    steel = m.metal(rng)
    which = rng.random()
    if which < 0.4:
        h = rng.uniform(3.5, 7)
        b.cylinder(0, 0, 0, h, 0.07, steel, top=0.6)
        b.rod((0, 0, h), (0, -1.0, h + 0.15), 0.035, steel)
        b.box(-0.12, -1.3, h + 0.1, 0.12, -0.8, h + 0.2, steel)
    elif which < 0.75:
        h = rng.uniform(2.0, 3.0)
        b.cylinder(0, 0, 0, h, 0.035, steel)
        b.box(-0.3, -0.05, h - 0.6, 0.3, -0.03, h, m.printed(rng, 0.5))
    else:
        b.cylinder(0, 0, 0, rng.uniform(0.6, 1.1), 0.08, m.anything(rng, 0.3))


def backdrop(b: Builder, low: float, high: float, count: int) -> None:
    """What stands around a place, ``low`` to ``high`` metres away: houses, hedges, trees, hills."""
    rng = b.rng
    for k in range(count):
        angle = (k + rng.uniform(-0.4, 0.4)) * 2 * np.pi / count
        reach = rng.uniform(low, high)
        with b.placed(
            np.cos(angle) * reach, np.sin(angle) * reach, 0, angle - np.pi / 2 + rng.normal(0, 0.2)
        ):
            which = rng.random()
            width = rng.uniform(0.4, 1.0) * 2 * np.pi * reach / count
            if which < 0.3:
                building(b, width, rng.uniform(3, 10), 6, relief=False)
            elif which < 0.5:
                tall = rng.uniform(1, 3.5)
                half = np.array([width / 2, rng.uniform(0.4, 1.0), tall / 2])
                b.crown((0, 0.5, tall / 2), half, m.leaves(rng), 0.7, 0.2)
                b.hull((0, 0.6, tall * 0.45), (width * 0.48, 0.4, tall * 0.45), m.leaves(rng), 1.7)
            elif which < 0.6:
                b.box(-width / 2, 0, 0, width / 2, 0.3, rng.uniform(0.8, 2.5), m.brick_wall(rng))
            elif which < 0.8:
                for _ in range(rng.integers(1, 4)):
                    tall = rng.uniform(3, 8)
                    x = rng.uniform(-0.5, 0.5) * width
                    b.cylinder(x, 1, 0, tall * 0.5, 0.12, m.timber(rng))
                    half = rng.uniform(0.2, 0.35, 3) * tall
                    b.crown((x, 1, tall * 0.65), half, m.leaves(rng), 0.65, 0.3)
                    b.ellipsoid((x, 1, tall * 0.65), tuple(half * 0.8), m.leaves(rng))
            elif which < 0.92:
                grass = m.material(rng, "foliage", c.green(rng), scale=rng.uniform(0.5, 3))
                b.ellipsoid((0, 8, -2), (width * 0.9, 8, rng.uniform(3, 9)), grass)


def street(b: Builder) -> None:
    """A street between houses: pavement, cars, trees, poles."""
    rng = b.rng
    half = rng.uniform(3.5, 8)
    b.box(-60, -60, -0.5, 60, 60, 0, m.ground(rng))
    kerb = m.ground(rng)
    walk = rng.uniform(1.2, 2.5)
    targets = []
    for side in (-1, 1):
        with b.placed(0, side * half, 0, 0 if side > 0 else np.pi):
            b.box(-40, -walk, 0, 40, 0, 0.12, kerb)
            cursor = -28.0
            while cursor < 28:
                w = rng.uniform(5, 14)
                if rng.random() < 0.85:
                    with b.placed(cursor + w / 2, rng.uniform(0, 0.8)):
                        building(
                            b,
                            w * rng.uniform(0.85, 1.0),
                            rng.uniform(3.5, 14),
                            rng.uniform(6, 10),
                            relief=abs(cursor + w / 2) < 9 and len(b.rows) < 150,
                        )
                    targets.append(b.world(cursor + w / 2, 0, rng.uniform(1, 3)))
                else:
                    with b.placed(cursor + w / 2, 3):
                        tree(b, rng.uniform(4, 9))
                cursor += w
            for _ in range(rng.integers(0, 4)):
                with b.placed(rng.uniform(-14, 14), -walk * 0.8):
                    pole(b)
            for _ in range(rng.integers(0, 3)):
                with b.placed(rng.uniform(-14, 14), -walk * 0.6):
                    tree(b, rng.uniform(3, 7))
            for _ in range(rng.integers(0, 4)):
                with b.placed(rng.uniform(-14, 14), -walk - 1.1, 0, rng.normal(0, 0.03)):
                    car(b)
    backdrop(b, 30, 42, int(rng.integers(4, 9)))
    for _ in range(rng.integers(1, 4)):
        targets.append(np.array([rng.uniform(-12, 12), rng.uniform(-0.7, 0.7) * half, 1.3]))
    _daylight(b, rng.choice([0.0, 0.0, 0.004, 0.015]))
    b.interest = Interest(
        low=np.array([-14.0, 1.3 - half, 1.2]),
        high=np.array([14.0, half - 1.3, 2.2]),
        targets=targets,
        distance=(3.0, 14.0),
    )


def terrace(b: Builder) -> None:
    """A garden, square or terrace: paving, walls, trees, pots, benches, rocks, a house behind."""
    rng = b.rng
    b.box(-50, -50, -0.5, 50, 50, 0, m.ground(rng))
    if rng.random() < 0.6:
        w = rng.uniform(2, 6)
        b.box(
            -w,
            -w,
            0,
            w,
            w,
            rng.uniform(0.02, 0.3),
            m.tiles(rng) if rng.random() < 0.5 else m.ground(rng),
        )
    targets = []
    for _ in range(rng.integers(1, 4)):
        yaw = rng.uniform(0, 2 * np.pi)
        at = turn_z(yaw) @ np.array([0, rng.uniform(6, 14), 0])
        with b.placed(float(at[0]), float(at[1]), 0, yaw):
            if rng.random() < 0.55:
                building(b, rng.uniform(5, 14), rng.uniform(3, 9), 6, relief=rng.random() < 0.6)
            else:
                b.box(
                    -rng.uniform(3, 9),
                    0,
                    0,
                    rng.uniform(3, 9),
                    0.3,
                    rng.uniform(0.6, 2.5),
                    m.brick_wall(rng),
                )
            targets.append(b.world(0, 0, 1.2))
    backdrop(b, 9, 18, int(rng.integers(5, 13)))
    for _ in range(rng.integers(10, 26)):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 8)
        x, y = np.cos(angle) * reach, np.sin(angle) * reach
        with b.placed(x, y, 0, rng.uniform(0, 2 * np.pi)):
            which = rng.random()
            if which < 0.18:
                tree(b, rng.uniform(2.5, 6))
            elif which < 0.24:
                conifer(b, rng.uniform(1.5, 6))
            elif which < 0.42:
                f.plant(b, rng.uniform(0.4, 1.3))
            elif which < 0.52:
                f.table(b, rng.uniform(0.8, 1.6), 0.8, 0.74)
                with b.placed(0, 0, 0.74):
                    f.heap(b, 0.3, 4, 0.08, 0.3)
            elif which < 0.64:
                f.chair(b)
            elif which < 0.76:
                f.rock(b, (0, 0, 0.15), rng.uniform(0.2, 0.8))
            elif which < 0.82:
                f.figure(b, rng.uniform(0.6, 1.8))
            elif which < 0.88:
                b.crown((0, 0, 0.4), (rng.uniform(0.4, 1.2), 0.5, 0.6), m.leaves(rng), 0.65, 0.1)
            else:
                f.thing(b, rng.uniform(0.3, 0.9))
        targets.append(np.array([x, y, rng.uniform(0.2, 1.2)]))
    _daylight(b)
    b.interest = Interest(
        low=np.array([-6.0, -6.0, 0.5]),
        high=np.array([6.0, 6.0, 2.4]),
        targets=targets,
        distance=(1.0, 6.0),
    )


def facade(b: Builder) -> None:
    """A front with relief, a fountain or statues before it."""
    rng = b.rng
    b.box(-40, -40, -0.5, 40, 40, 0, m.ground(rng))
    width, height = rng.uniform(6, 14), rng.uniform(4, 11)
    building(b, width, height, 6, relief=True)
    for side in (-1, 1):
        if rng.random() < 0.6:
            w = rng.uniform(4, 9)
            with b.placed(side * (width + w) / 2, rng.uniform(-0.5, 1.5)):
                building(b, w, rng.uniform(3, 9), 6, relief=False)
    for _ in range(rng.integers(0, 9)):
        with b.placed(
            rng.uniform(-0.5, 0.5) * width, -rng.uniform(0.3, 2.0), 0, rng.uniform(-0.6, 0.6)
        ):
            which = rng.random()
            if which < 0.35:
                pedestal = rng.uniform(0.4, 1.6)
                b.box(-0.35, -0.35, 0, 0.35, 0.35, pedestal, m.stone(rng))
                with b.placed(0, 0, pedestal):
                    f.figure(b, rng.uniform(0.7, 1.6))
            elif which < 0.5:
                b.cylinder(0, 0, 0, 0.6, rng.uniform(0.5, 1.3), m.stone(rng), hollow=True)
                b.cylinder(0, 0, 0, 0.4, 0.5, m.stone(rng))
            elif which < 0.7:
                f.plant(b, rng.uniform(0.5, 1.5))
            elif which < 0.85:
                b.cylinder(
                    0, 0, 0, rng.uniform(1.5, 4), rng.uniform(0.12, 0.3), m.stone(rng), top=0.85
                )
            else:
                f.rock(b, (0, 0, 0.2), 0.5)
    backdrop(b, 16, 26, int(rng.integers(4, 10)))
    _daylight(b)
    targets = [
        np.array([rng.uniform(-0.4, 0.4) * width, -0.1, rng.uniform(0.8, height * 0.6)])
        for _ in range(5)
    ]
    b.interest = Interest(
        low=np.array([-width * 0.7, -14.0, 0.6]),
        high=np.array([width * 0.7, -1.8, 2.5]),
        targets=targets,
        distance=(2.0, 10.0),
    )
