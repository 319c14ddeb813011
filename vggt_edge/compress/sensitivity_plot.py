"""Sensitivities as a picture: blocks with their intervals, layers as a map."""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..files import replacing
from .damage import JUDGED
from .sensitivity import Score, Sensitivity

_NUMBERED = re.compile(r"(.*)\.(\d+)(?:\.(.*))?$")
_FAMILIES = {
    "aggregator.patch_embed.blocks": "encoder",
    "aggregator.frame_blocks": "frame",
    "aggregator.global_blocks": "global",
    "camera_head.trunk": "camera",
}
_TITLES = {
    "pose": "pose: points of AUC@30 lost",
    "depth": "depth: AbsRel, %",
    "points": "points: mean error over distance, %",
}


def check() -> None:
    """Say before a long run that it could not be drawn.

    Raises:
        MissingExtraError: without matplotlib.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train", "plotting sensitivities")


def place_of(unit: str) -> tuple[str, int, str]:
    """Family, number in it and layer of a unit; what is in no numbered block is "other"."""
    found = _NUMBERED.match(unit)
    if found and found[1] in _FAMILIES:
        layer = (found[3] or "").rpartition(".")[2]
        return _FAMILIES[found[1]], int(found[2]), layer
    return "other", 0, unit.partition(".")[2]


def plot(sensitivity: Sensitivity, scheme: str, path: str | Path) -> Path:
    """Draw the sensitivities to one scheme as a PNG.

    Args:
        sensitivity: of a network, with scores of blocks, layers or both.
        scheme: the name of one that was scored.
        path: of the picture.

    Raises:
        MissingExtraError: without matplotlib.
        OutputError: the picture cannot be written.
    """
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks, layers = (sensitivity.of(kind, scheme) for kind in ("block", "layer"))
    shown = [m for m in JUDGED if any(m in d for s in blocks + layers for d in s.drops.values())]
    rows = bool(blocks) + bool(layers)
    figure = Figure(figsize=(5.2 * len(shown), 3.6 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for column, metric in enumerate(shown):
        if blocks:
            _blocks(axes[0, column], sensitivity, blocks, metric)
        if layers:
            _layers(figure, axes[-1, column], layers, metric, named=column == 0)
    scenes = len(sensitivity.cases)
    figure.suptitle(
        f"{scheme}: drop when one unit alone is compressed, against the "
        f"{'float network' if sensitivity.against == 'teacher' else 'truth'}, "
        f"{scenes} scenes of {', '.join(sensitivity.groups)}"
    )
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _blocks(axis: Any, sensitivity: Sensitivity, blocks: list[Score], metric: str) -> None:
    families: dict[str, list[tuple[int, Score]]] = {}
    for one in blocks:
        family, number, _ = place_of(one.unit)
        members = families.setdefault(family, [])
        members.append((len(members) if family == "other" else number, one))
    for shift, (family, members) in enumerate(families.items()):
        found = [(number, sensitivity.interval(one, metric)) for number, one in members]
        points = [(number, i) for number, i in found if i is not None]
        if not points:
            continue
        x = np.array([number for number, _ in points]) + 0.08 * shift
        mean = np.array([i.mean for _, i in points])
        ends = np.array([(i.mean - i.low, i.high - i.mean) for _, i in points]).T
        ends = np.maximum(np.nan_to_num(ends), 0)
        marker = "s" if family == "other" else "o"
        line = "none" if family == "other" else "-"
        axis.errorbar(x, mean, ends, label=family, capsize=2, marker=marker, ms=3.5, ls=line, lw=1)
    axis.set(title=_TITLES[metric], xlabel="block", ylabel="drop")
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _layers(figure: Any, axis: Any, layers: list[Score], metric: str, named: bool) -> None:
    cells: dict[str, dict[int, float]] = {}
    for one in layers:
        family, number, layer = place_of(one.unit)
        row = layer if family == "other" else f"{family} {layer}"
        cells.setdefault(row, {})[number] = one.mean(metric)
    order = [row for f in (*_FAMILIES.values(), "") for row in cells if row.split(" ")[0] == f]
    order += [row for row in cells if row not in order]
    grid = np.full((len(order), 1 + max(max(row) for row in cells.values())), math.nan)
    for index, row in enumerate(order):
        for number, value in cells[row].items():
            grid[index, number] = value
    image = axis.imshow(grid, aspect="auto", cmap="magma_r", interpolation="nearest", vmin=0)
    axis.set_yticks(range(len(order)), order if named else [""] * len(order), fontsize=7)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(title=f"layers, {metric}", xlabel="block")
    figure.colorbar(image, ax=axis, label="drop")
