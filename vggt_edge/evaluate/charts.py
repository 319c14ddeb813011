"""Plots as SVG text for the report: no plotting package, and sharp at any size.

Colours are the classes ``c0``, ``c1``, ... of ``report.css``, one a method, so that a method looks
the same in every plot and in both colour schemes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..geometry import Similarity


class Row(NamedTuple):
    """A value with its interval, in the colour of method ``color``."""

    label: str
    value: float
    low: float
    high: float
    color: int


class Curve(NamedTuple):
    """(N,) ``y`` over (N,) ``x``."""

    label: str
    x: np.ndarray
    y: np.ndarray
    color: int


class _Axis:
    """Data to pixels along one side, with round numbers on the way."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        rough = (self.high - self.low) / count or 1.0
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def _text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        f"{f' class={kind!r}' if kind else ''}>{html.escape(content)}</text>"
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _tick(value: float) -> str:
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def whiskers(title: str, hint: str, rows: Sequence[Row]) -> str:
    """Values as dots, intervals as lines, one row a method; ``hint`` says which way is better."""
    rows = [row for row in rows if math.isfinite(row.value)]
    left, width, pitch, top = 118, 400, 24, 34
    bottom = top + pitch * len(rows)
    ends = [end for row in rows for end in (row.low, row.high, row.value) if math.isfinite(end)]
    # Errors and accuracies alike are read against zero.
    low, high = min(0.0, *ends), max(0.0, *ends)
    axis = _Axis(low, high if high > low else low + 1.0, left, width - 56)
    parts = [_text(8, 17, title, kind="title"), _text(width - 6, 17, hint, "end", "muted")]
    for tick in axis.ticks(4):
        parts.append(_line(axis(tick), top - 4, axis(tick), bottom, "grid"))
        parts.append(_text(axis(tick), bottom + 14, _tick(tick), "middle", "muted"))
    for index, row in enumerate(rows):
        y = top + pitch * (index + 0.5)
        note = f"{row.label}: {row.value:.4g}, 95% interval {row.low:.4g} to {row.high:.4g}"
        parts.append(f'<g class="c{row.color}"><title>{html.escape(note)}</title>')
        parts.append(_text(left - 12, y + 4, _short(row.label), "end"))
        if math.isfinite(row.low) and math.isfinite(row.high):
            parts.append(_line(axis(row.low), y, axis(row.high), y, "whisker"))
        parts.append(f'<circle cx="{axis(row.value):.1f}" cy="{y:.1f}" r="4.5" class="dot"/>')
        parts.append(_text(width - 6, y + 4, f"{row.value:.3g}", "end", "value"))
        parts.append("</g>")
    return _svg(width, bottom + 22, parts, title)


def _short(label: str, most: int = 17) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def curves(title: str, x_label: str, y_label: str, series: Sequence[Curve]) -> str:
    """Lines over a common x axis; y runs from 0 to 1."""
    width, height, left, right, top, bottom = 960, 340, 52, 140, 52, 44
    x_axis = _Axis(0.0, max(float(s.x.max()) for s in series), left, width - right)
    y_axis = _Axis(0.0, 1.0, height - bottom, top)
    parts = [_text(8, 17, title, kind="title")]
    for tick in y_axis.ticks(5):
        parts.append(_line(left, y_axis(tick), width - right, y_axis(tick), "grid"))
        parts.append(_text(left - 8, y_axis(tick) + 4, _tick(tick), "end", "muted"))
    for tick in x_axis.ticks(6):
        parts.append(_text(x_axis(tick), height - bottom + 18, _tick(tick), "middle", "muted"))
    parts.append(_text((left + width - right) / 2, height - 8, x_label, "middle", "muted"))
    parts.append(_text(8, 34, y_label, kind="muted"))
    placed: list[float] = []
    for one in sorted(series, key=lambda s: float(s.y[-1]), reverse=True):
        points = " ".join(
            f"{x_axis(float(x)):.1f},{y_axis(float(y)):.1f}"
            for x, y in zip(one.x, one.y, strict=True)
        )
        parts.append(f'<g class="c{one.color}"><title>{html.escape(one.label)}</title>')
        parts.append(f'<polyline points="{points}" class="curve"/>')
        # Names stand at the ends of their lines and give way downwards.
        y = max([y_axis(float(one.y[-1])) + 4, *(other + 15 for other in placed[-1:])])
        placed.append(y)
        parts.append(_text(width - right + 8, y, _short(one.label), kind="name"))
        parts.append("</g>")
    return _svg(width, height, parts, title)


def trajectories(
    truth: np.ndarray, predicted: np.ndarray, fit: Similarity | None, color: int, label: str
) -> str:
    """(S, 3) true and predicted camera centres from the side that shows most of the true ones.

    Args:
        truth: true centres.
        predicted: predicted centres; rows that are not finite are left out.
        fit: maps the predicted centres onto the true ones; None draws the true ones alone.
        color: of the method.
        label: what a screen reader says.
    """
    middle = truth.mean(axis=0)
    axes = np.linalg.svd(truth - middle, full_matrices=False)[2]
    if len(axes) < 2:
        axes = np.eye(3)[:2]
    side, margin = 300.0, 8.0
    flat = (truth - middle) @ axes[:2].T
    mapped = np.zeros((0, 2))
    known = np.isfinite(predicted).all(axis=1)
    if fit is not None:
        mapped = (fit.apply(predicted[known]) - middle) @ axes[:2].T
    # A wild prediction must not shrink the truth to a dot: it is cut at the frame.
    reach = 1.15 * max(float(np.abs(flat).max(initial=0.0)), 1e-9)
    reach = min(max(reach, 1.05 * float(np.abs(mapped).max(initial=0.0))), 2.5 * reach)
    half = side / 2

    def place(points: np.ndarray) -> list[tuple[float, float]]:
        scaled = np.clip(points / reach, -1, 1)
        return [(margin + half + half * x, margin + half - half * y) for x, y in scaled]

    true_places, places = place(flat), place(mapped)
    parts = [f'<rect x="{margin}" y="{margin}" width="{side}" height="{side}" class="frame"/>']
    parts.append(_path(true_places, "truth-line"))
    parts.append(f'<g class="c{color}">')
    for (x, y), index in zip(places, np.flatnonzero(known), strict=True):
        parts.append(_line(x, y, *true_places[index], "miss"))
    parts.append(_path(places, "curve"))
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot"/>' for x, y in places]
    parts.append("</g>")
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="truth"/>' for x, y in true_places]
    return _svg(side + 2 * margin, side + 2 * margin, parts, label)


def _path(places: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" class="{kind}"/>'
