"""One object, seen from around it: on the ground, on a plinth, or before a plain background."""

from __future__ import annotations

import numpy as np

from . import colors as c
from . import furniture as f
from . import materials as m
from .builder import Builder, Interest, Light, turn_x, turn_z
from .outdoor import backdrop


def _machine(b: Builder, size: float) -> None:
    """A construction of boxes, rods and wheels in a few bright colours: toys, models, machines."""
    rng = b.rng
    palette = [m.lacquer(rng) for _ in range(3)] + [m.metal(rng)]
    s = size / 2
    wheels = rng.random() < 0.6
    base = s * 0.3 if wheels else 0.0
    b.box(-s, -s * 0.55, base, s, s * 0.55, base + s * 0.35, palette[0])
    if wheels:
        for cx in (-0.65, 0.0, 0.65)[:: rng.integers(1, 3)]:
            for cy in (-0.6, 0.6):
                b.rod(
                    (cx * s, cy * s, s * 0.3), (cx * s, cy * s * 1.25, s * 0.3), s * 0.3, palette[3]
                )
    for _ in range(rng.integers(10, 44)):
        x, y = rng.uniform(-0.85, 0.85) * s, rng.uniform(-0.45, 0.45) * s
        w, d = rng.uniform(0.06, 0.4, 2) * s
        low = base + s * rng.choice([0.35, 0.35, 0.6, 0.8])
        look = palette[rng.integers(4)]
        which = rng.random()
        if which < 0.55:
            b.box(
                x - w, y - d, base + s * 0.3, x + w, y + d, low + s * rng.uniform(0.05, 0.4), look
            )
        elif which < 0.8:
            b.cylinder(x, y, base + s * 0.3, low + s * rng.uniform(0.1, 0.5), min(w, d), look)
        else:
            b.rod(
                (x, y, low),
                (x + rng.uniform(-1, 1) * s, y, low + rng.uniform(0, 0.8) * s),
                s * 0.06,
                look,
            )
    if rng.random() < 0.6:
        b.hull((s * 0.3, 0, base + s * 0.9), (s * 0.35, s * 0.4, s * 0.35), palette[1], 1.5)
        b.rod((-s, -s * 0.3, base + s * 0.3), (-s * 1.6, -s * 0.3, base), s * 0.06, palette[3])
        b.rod((-s, s * 0.3, base + s * 0.3), (-s * 1.6, s * 0.3, base), s * 0.06, palette[3])
        b.add(
            3,
            (-s * 1.7, 0, base + s * 0.1),
            (s * 0.08, s * 0.7, s * 0.3),
            palette[2],
            turn_z(0) @ turn_x(0.0),
            np.array([-1.8] * 6 + [1.8] * 6),
        )


def _animal_head(b: Builder, size: float) -> None:
    """A head with a snout, ears and eyes on a neck: fur in two tones."""
    rng = b.rng
    base = c.any_color(rng, 0.2) if rng.random() < 0.4 else c.brown(rng)
    fur = m.material(
        rng,
        "plaster",
        base,
        c.near(rng, base, 0.5),
        c.near(rng, base, 0.5),
        scale=size * 0.15,
        bump=1.2,
        bump_scale=size * 0.02,
    )
    pale = m.material(
        rng,
        "plaster",
        c.pale(rng),
        c.near(rng, base),
        scale=size * 0.15,
        bump=1.2,
        bump_scale=size * 0.02,
    )
    dark = m.material(rng, "paint", c.color(0, 0, 0.12), specular=1.0, gloss=80)
    r = size * 0.35
    z = size * 0.75
    b.cylinder(0, r * 0.3, 0, z, r * rng.uniform(0.7, 1.1), fur, top=0.7)
    b.ellipsoid((0, r * 0.9, size * 0.25), (r * 1.1, r * 1.3, size * 0.35), fur)
    b.ellipsoid((0, 0, z), (r, r * 1.05, r * 0.9), fur)
    b.rod(
        (0, -r * 0.3, z - r * 0.15),
        (0, -r * rng.uniform(1.4, 2.0), z - r * 0.35),
        r * 0.6,
        pale,
        top=0.4,
    )
    b.ellipsoid((0, -r * 1.5, z - r * 0.25), (r * 0.2, r * 0.25, r * 0.18), dark)
    for side in (-1, 1):
        b.ellipsoid((side * r * 0.42, -r * 0.8, z + r * 0.2), (r * 0.13,) * 3, dark)
        b.ellipsoid((side * r * 0.6, -r * 0.4, z - r * 0.3), (r * 0.5, r * 0.6, r * 0.45), pale)
        tip = (side * r * rng.uniform(0.6, 1.1), r * 0.1, z + r * rng.uniform(1.2, 2.2))
        b.rod((side * r * 0.55, 0, z + r * 0.4), tip, r * 0.4, fur, top=0.15)


def single(b: Builder) -> None:
    """One object with cameras around it; the background may be plain, hence without depth."""
    rng = b.rng
    size = rng.uniform(0.4, 1.6)
    which = rng.choice(
        ["machine", "figure", "head", "chair", "plant", "heap", "rock", "thing"],
        p=[0.3, 0.12, 0.12, 0.1, 0.08, 0.12, 0.08, 0.08],
    )
    plain = rng.random() < 0.45
    lift = 0.0
    if not plain:
        ground = m.ground(rng) if rng.random() < 0.4 else m.floor(rng)
        b.box(-12, -12, -0.2, 12, 12, 0, ground)
        if rng.random() < 0.4:
            lift = rng.uniform(0.2, 0.8)
            b.box(-size * 0.8, -size * 0.8, 0, size * 0.8, size * 0.8, lift, m.stone(rng))
    with b.placed(0, 0, lift, rng.uniform(0, 2 * np.pi)):
        if which == "machine":
            _machine(b, size)
        elif which == "figure":
            f.figure(b, size)
        elif which == "head":
            _animal_head(b, size)
        elif which == "chair":
            f.chair(b)
            size = 1.0
        elif which == "plant":
            f.plant(b, size)
        elif which == "heap":
            f.heap(b, size * 0.5, 12, size * 0.15, size * 0.5)
        elif which == "rock":
            for _ in range(rng.integers(1, 6)):
                x, y = rng.normal(0, size * 0.3, 2)
                f.rock(b, (x, y, size * 0.2), size * rng.uniform(0.3, 0.6))
        else:
            f.thing(b, size)
    if not plain and rng.random() < 0.5:
        backdrop(b, 6, 11, int(rng.integers(4, 10)))
    elif not plain:
        for _ in range(rng.integers(2, 9)):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(3.2, 7) * max(size, 0.8)
            with b.placed(np.cos(angle) * reach, np.sin(angle) * reach, 0, angle):
                f.thing(b, rng.uniform(0.3, 1.5))
    day = c.color(0.58, rng.uniform(0, 0.35), 1.0)
    behind = c.color(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.05, 1.0)) if plain else day
    if plain and rng.random() < 0.5:
        behind = c.color(0, 0, rng.choice([0.02, 0.5, 1.0])) * 1.3
    key = rng.normal(size=3)
    key[2] = abs(key[2]) + 0.5
    b.light = Light(
        key=key / np.linalg.norm(key),
        sun=True,
        key_color=c.color(0.11, rng.uniform(0, 0.25), 1.0) * rng.uniform(0.4, 2.0),
        above=day * rng.uniform(0.3, 1.0),
        below=np.full(3, rng.uniform(0.1, 0.5)),
        horizon=behind,
        zenith=behind if plain else day * 0.8,
        clouds=0.0 if plain else rng.random(),
        reach=size * 0.4,
        seed=rng.uniform(0, 30),
    )
    z = lift + size * 0.35
    b.interest = Interest(
        low=np.array([-9.0, -9.0, 0.15 if not plain else -1.0]),
        high=np.array([9.0, 9.0, 5.0]),
        targets=[np.array([0, 0, z]), np.array([0, 0, z * 0.8])],
        distance=(size * 1.2 + 0.2, size * 3.2 + 0.3),
        orbit=True,
    )
