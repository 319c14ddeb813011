"""Materials: a texture, three colours and how they shine, as one row of numbers.

Colours are linear reflectances; see ``colors``.
"""

from __future__ import annotations

import numpy as np

from .colors import Color, any_color, brown, color, green, grey, near, pale
from .textures import NAMES

WIDTH = 24
"""Numbers in a row. The columns:"""

PATTERN, COLOR_A, COLOR_B, COLOR_C = 0, slice(1, 4), slice(4, 7), slice(7, 10)
SCALE, ASPECT, ANGLE, OFFSET, SEED = 10, 11, 12, slice(13, 16), 16
SPECULAR, GLOSS, BUMP, BUMP_SCALE, EMISSION, DIRT = 17, 18, 19, 20, 21, 22

Material = np.ndarray


def material(
    rng: np.random.Generator,
    pattern: str,
    a: Color,
    b: Color | None = None,
    c: Color | None = None,
    *,
    scale: float = 0.3,
    aspect: float = 1.0,
    angle: float = 0.0,
    specular: float = 0.0,
    gloss: float = 30.0,
    bump: float = 0.0,
    bump_scale: float = 0.05,
    emission: float = 0.0,
    dirt: float = 0.15,
) -> Material:
    """A row of a material; missing colours are drawn near the first."""
    row = np.zeros(WIDTH, dtype=np.float32)
    row[PATTERN] = NAMES.index(pattern)
    row[COLOR_A] = a
    row[COLOR_B] = near(rng, a) if b is None else b
    row[COLOR_C] = near(rng, a, 0.5) if c is None else c
    row[[SCALE, ASPECT, ANGLE]] = scale, aspect, angle
    row[OFFSET] = rng.uniform(0, 20, 3)
    row[SEED] = rng.integers(0, 4096)
    row[[SPECULAR, GLOSS, BUMP, BUMP_SCALE]] = specular, gloss, bump, bump_scale
    row[[EMISSION, DIRT]] = emission, dirt
    return row


def wall(rng: np.random.Generator) -> Material:
    """An indoor wall: paint, wallpaper, plaster, seldom bricks or tiles."""
    base = pale(rng)
    which = rng.choice(
        ["paint", "plaster", "stripes", "dots", "carpet", "bricks", "tiling", "planks"],
        p=[0.42, 0.2, 0.07, 0.04, 0.05, 0.08, 0.08, 0.06],
    )
    if which == "bricks":
        return brick_wall(rng)
    if which == "tiling":
        return tiles(rng)
    if which == "planks":
        return boards(rng)
    scale = {"paint": 0.8, "plaster": rng.uniform(0.1, 0.6)}.get(which, rng.uniform(0.08, 0.4))
    angle = np.pi / 2 if which == "stripes" else 0.0
    return material(
        rng,
        which,
        base,
        near(rng, base, 0.15),
        near(rng, base, 0.2),
        scale=scale,
        angle=angle,
        bump=rng.choice([0.0, 0.1]),
        bump_scale=0.02,
    )


def brick_wall(rng: np.random.Generator) -> Material:
    """Bricks or blocks with mortar."""
    base = color(rng.normal(0.04, 0.02), rng.uniform(0.25, 0.7), rng.uniform(0.35, 0.8))
    if rng.random() < 0.4:
        base = grey(rng)
    scale = rng.choice([0.075, 0.075, 0.2, 0.35])
    return material(
        rng,
        "bricks",
        base,
        near(rng, base, 0.4),
        grey(rng),
        scale=scale,
        aspect=rng.uniform(1.8, 3.2),
        bump=0.15,
        bump_scale=0.03,
    )


def tiles(rng: np.random.Generator) -> Material:
    """Ceramic or stone tiles."""
    base = pale(rng) if rng.random() < 0.6 else grey(rng)
    return material(
        rng,
        "tiling",
        base,
        near(rng, base, 0.25),
        near(rng, base, 0.7),
        scale=rng.choice([0.1, 0.2, 0.33, 0.6]),
        aspect=rng.choice([1.0, 1.0, 2.0]),
        specular=rng.uniform(0.05, 0.4),
        gloss=rng.uniform(20, 120),
    )


def boards(rng: np.random.Generator) -> Material:
    """Floor boards, parquet, panelling."""
    base = brown(rng)
    return material(
        rng,
        "planks",
        base,
        near(rng, base, 0.3),
        base * 0.3,
        scale=rng.uniform(0.07, 0.2),
        aspect=rng.uniform(4, 12),
        angle=rng.choice([0.0, np.pi / 2]),
        specular=rng.uniform(0, 0.3),
        gloss=rng.uniform(10, 60),
    )


def floor(rng: np.random.Generator) -> Material:
    """An indoor floor."""
    which = rng.random()
    if which < 0.4:
        return boards(rng)
    if which < 0.6:
        return tiles(rng)
    if which < 0.7:
        base = grey(rng)
        return material(
            rng,
            "checker",
            base,
            near(rng, base, 0.9),
            scale=rng.choice([0.2, 0.3, 0.5]),
            specular=0.2,
        )
    if which < 0.8:
        return material(
            rng,
            "granite",
            grey(rng),
            grey(rng),
            grey(rng),
            scale=rng.uniform(0.03, 0.2),
            specular=0.15,
        )
    return fabric(rng)


def fabric(rng: np.random.Generator) -> Material:
    """Carpets, upholstery, blankets."""
    base = any_color(rng)
    which = rng.choice(
        ["plaster", "carpet", "stripes", "dots", "checker", "granite"],
        p=[0.4, 0.2, 0.12, 0.1, 0.08, 0.1],
    )
    return material(
        rng,
        which,
        base,
        near(rng, base, 0.4),
        near(rng, any_color(rng), 0.2),
        scale=rng.uniform(0.04, 0.3),
        angle=rng.choice([0.0, np.pi / 2]),
        bump=0.25,
        bump_scale=0.01,
    )


def timber(rng: np.random.Generator) -> Material:
    """Furniture: wood, or lacquer of one colour."""
    if rng.random() < 0.3:
        return lacquer(rng)
    base = brown(rng)
    return material(
        rng,
        "wood",
        base,
        near(rng, base, 0.45),
        scale=rng.uniform(0.03, 0.12),
        specular=rng.uniform(0, 0.2),
        gloss=rng.uniform(10, 80),
        angle=rng.choice([0.0, np.pi / 2]),
    )


def lacquer(rng: np.random.Generator) -> Material:
    """Smooth plastic, lacquer, glazed ceramic."""
    return material(
        rng,
        "paint",
        any_color(rng),
        scale=rng.uniform(0.05, 0.5),
        specular=rng.uniform(0.1, 0.8),
        gloss=rng.uniform(20, 200),
        dirt=0.1,
    )


def metal(rng: np.random.Generator) -> Material:
    """Painted or bare metal."""
    return material(
        rng,
        "paint",
        grey(rng),
        scale=0.2,
        specular=rng.uniform(0.3, 1.0),
        gloss=rng.uniform(20, 120),
    )


def printed(rng: np.random.Generator, height: float) -> Material:
    """Packages, posters, screens, book covers: something with print on it."""
    which = rng.choice(["poster", "painting", "stripes", "books"], p=[0.55, 0.25, 0.1, 0.1])
    return material(
        rng,
        which,
        any_color(rng, 0.5),
        any_color(rng, 0.6),
        any_color(rng, 0.5),
        scale=height * rng.uniform(0.5, 1.2),
        specular=rng.uniform(0, 0.4),
        gloss=rng.uniform(10, 100),
        dirt=0.05,
    )


def stone(rng: np.random.Generator) -> Material:
    """Marble, granite, sandstone, concrete."""
    base = grey(rng) if rng.random() < 0.7 else pale(rng)
    which = rng.choice(["marble", "granite", "plaster", "cobbles"], p=[0.2, 0.25, 0.4, 0.15])
    return material(
        rng,
        which,
        base,
        near(rng, base, 0.5),
        near(rng, base, 0.5),
        scale=rng.uniform(0.08, 0.5),
        bump=rng.uniform(0, 0.5),
        bump_scale=rng.uniform(0.02, 0.1),
    )


def ground(rng: np.random.Generator) -> Material:
    """Outdoor ground: asphalt, paving, cobbles, grass, soil."""
    which = rng.random()
    if which < 0.25:
        base = color(0.1, 0.05, rng.uniform(0.3, 0.6))
        return material(
            rng,
            "granite",
            base,
            base * 0.6,
            base * 1.5,
            scale=rng.uniform(0.05, 0.15),
            bump=0.2,
            bump_scale=0.03,
        )
    if which < 0.5:
        return material(
            rng,
            rng.choice(["tiling", "bricks"]),
            grey(rng),
            grey(rng),
            grey(rng) * 0.4,
            scale=rng.choice([0.1, 0.3, 0.5]),
            aspect=rng.choice([1.0, 2.0]),
            bump=0.15,
        )
    if which < 0.65:
        base = grey(rng)
        return material(
            rng,
            "cobbles",
            base,
            near(rng, base),
            base * 0.25,
            scale=rng.uniform(0.1, 0.25),
            bump=0.3,
        )
    base = green(rng) if which < 0.85 else brown(rng)
    return material(
        rng,
        rng.choice(["plaster", "foliage"]),
        base,
        near(rng, base, 0.4),
        near(rng, brown(rng), 0.3),
        scale=rng.uniform(0.1, 0.8),
        bump=0.4,
    )


def leaves(rng: np.random.Generator) -> Material:
    """Crowns of trees, hedges, house plants."""
    base = green(rng)
    return material(
        rng,
        "foliage",
        base,
        near(rng, base, 0.5),
        near(rng, base, 0.6) * 1.5,
        scale=rng.uniform(0.1, 0.35),
        bump=0.8,
        bump_scale=0.06,
    )


def anything(rng: np.random.Generator, size: float = 0.3) -> Material:
    """Any material, its pattern in proportion to an object of ``size`` metres."""
    which = rng.random()
    if which < 0.3:
        return printed(rng, size)
    if which < 0.45:
        return lacquer(rng)
    if which < 0.55:
        return metal(rng)
    if which < 0.7:
        return timber(rng)
    pattern = rng.choice(
        [
            "plaster",
            "marble",
            "bricks",
            "tiling",
            "checker",
            "stripes",
            "dots",
            "granite",
            "carpet",
            "foliage",
            "cobbles",
            "painting",
        ]
    )
    return material(
        rng,
        pattern,
        any_color(rng),
        any_color(rng),
        any_color(rng),
        scale=size * rng.uniform(0.12, 0.6),
        aspect=rng.choice([1.0, 2.0]),
        angle=rng.uniform(0, np.pi),
        specular=rng.choice([0.0, 0.3]),
        bump=rng.choice([0.0, 0.3]),
        bump_scale=size * 0.1,
    )
