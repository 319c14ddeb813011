"""Colours as linear reflectances, from families: most of the world is grey or brown."""

from __future__ import annotations

import colorsys

import numpy as np

Color = np.ndarray


def color(hue: float, saturation: float, value: float) -> Color:
    """A linear reflectance from hue, saturation and value as a person picks them (gamma 2.2)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 2.2


def any_color(rng: np.random.Generator, vivid: float = 0.25) -> Color:
    """A colour: mostly muted, ``vivid`` of the time saturated."""
    saturation = rng.uniform(0.45, 0.85) if rng.random() < vivid else rng.uniform(0.0, 0.3)
    warm = rng.random() < 0.6
    hue = rng.normal(0.08, 0.05) if warm else rng.random()
    return color(hue, saturation, rng.uniform(0.15, 0.95))


def pale(rng: np.random.Generator, vivid: float = 0.12) -> Color:
    """The colour of painted walls; ``vivid`` of the time a real colour."""
    if rng.random() >= vivid:
        return color(rng.normal(0.11, 0.06), rng.uniform(0, 0.2), rng.uniform(0.68, 0.96))
    return color(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.9))


def brown(rng: np.random.Generator) -> Color:
    """The colour of wood or leather."""
    return color(rng.normal(0.07, 0.02), rng.uniform(0.3, 0.75), rng.uniform(0.2, 0.85))


def grey(rng: np.random.Generator) -> Color:
    """Stone, metal, concrete."""
    return color(rng.normal(0.1, 0.1), rng.uniform(0, 0.15), rng.uniform(0.15, 0.85))


def green(rng: np.random.Generator) -> Color:
    """Leaves and grass."""
    return color(rng.normal(0.24, 0.045), rng.uniform(0.35, 0.8), rng.uniform(0.2, 0.65))


def near(rng: np.random.Generator, base: Color, amount: float = 0.3) -> Color:
    """A colour a little lighter or darker, and slightly off in hue."""
    shade = np.exp(rng.normal(0, amount))
    return np.clip(base * shade * np.exp(rng.normal(0, amount * 0.25, 3)), 0.005, 0.95)
