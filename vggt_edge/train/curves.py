"""The course of a training run as a picture."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingExtraError
from ..files import replacing

PANELS = (
    ("loss", ("depth", "camera", "point")),
    ("AbsRel", ("abs_rel", "baseline_abs_rel")),
    ("AUC@30", ("auc30", "baseline_auc30")),
)


def check() -> None:
    """Say before a run of hours that its curves could not be drawn.

    Raises:
        MissingExtraError: without matplotlib.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train", "plotting training curves")


def plot(log: Path, path: Path) -> Path:
    """Draw losses and validation scores of a ``log.jsonl`` against steps.

    Raises:
        MissingExtraError: without matplotlib.
        OutputError: the picture cannot be written.
    """
    check()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, keys) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for key in keys:
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                style = "--" if key.startswith("baseline") else "-"
                axes.plot(*zip(*points, strict=True), style, label=key)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
