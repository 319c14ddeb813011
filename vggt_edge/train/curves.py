"""The course of a training run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import MissingExtraError

PANELS = (
    ("loss", ("depth", "camera", "point")),
    ("AbsRel", ("abs_rel", "baseline_abs_rel")),
    ("AUC@30", ("auc30", "baseline_auc30")),
)


def plot(log: Path, path: Path) -> Path:
    """Draw losses and validation scores of a ``log.jsonl`` against steps.

    Raises:
        MissingExtraError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train", "plotting training curves") from error
    rows = [json.loads(line) for line in log.read_text().splitlines()]
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
    figure.savefig(path, dpi=110)
    return path
