"""How much each layer and each block costs when it alone is compressed.

Which units are fragile differs from model to model, and may differ from scene to scene: every
number has an interval over scenes, and ``agreement`` says whether the ranking of one set of scenes
holds on another. ``scan`` measures it.

Block-wise sensitivity for selective mixed precision is QVGGT's (Pan et al., 2026).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bootstrap import Interval, interval
from ..errors import InputError
from ..files import replacing
from .damage import JUDGED, METRICS

FORMAT = 1
KINDS = ("block", "layer")


@dataclass(frozen=True)
class Score:
    """What one unit costs in one scheme.

    Fields
        unit    path of a layer, or of a block.
        kind    "layer" or "block".
        scheme  its precision.
        layers  paths of the layers that were quantized.
        drops   case to metric to drop, in percent points; see ``damage``.
    """

    unit: str
    kind: str
    scheme: str
    layers: tuple[str, ...]
    drops: dict[str, dict[str, float]]

    def mean(self, metric: str) -> float:
        """Mean drop over the scenes, NaN where none has the metric."""
        values = [row[metric] for row in self.drops.values() if metric in row]
        return float(np.mean(values)) if values else math.nan

    @property
    def worst(self) -> float:
        """The greatest mean drop of the metrics that are judged."""
        means = [self.mean(metric) for metric in JUDGED]
        return max((mean for mean in means if math.isfinite(mean)), default=0.0)


@dataclass(frozen=True)
class Sensitivity:
    """Scores of all units, and what they are of.

    Fields
        model    identity of the float network.
        against  "teacher" or "truth".
        cases    case name to the set it belongs to.
        views    of each case.
        pixels   checksum of the views of each case.
        scores   one a unit and scheme.
    """

    model: str
    against: str
    cases: dict[str, str]
    views: dict[str, int]
    pixels: dict[str, int]
    scores: tuple[Score, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The sets the cases belong to."""
        return tuple(dict.fromkeys(self.cases.values()))

    def of(self, kind: str, scheme: str) -> list[Score]:
        """Scores of one kind of unit in one scheme, in the network's order."""
        return [one for one in self.scores if (one.kind, one.scheme) == (kind, scheme)]

    def ranked(self, kind: str, scheme: str, metric: str | None = None) -> list[Score]:
        """The same, most fragile first, by one metric or by the worst of all that are judged."""
        scores = self.of(kind, scheme)
        if metric is None:
            return sorted(scores, key=lambda one: -one.worst)
        return sorted(scores, key=lambda one: -np.nan_to_num(one.mean(metric), nan=-np.inf))

    def interval(self, score: Score, metric: str, group: str | None = None) -> Interval | None:
        """Mean drop with a 95% bootstrap interval over scenes; None without the metric.

        Args:
            score: of a unit.
            metric: one of ``damage.METRICS``.
            group: over the scenes of one set only; else over all, each set counting the same.
        """
        names = [
            name
            for name, row in score.drops.items()
            if metric in row and group in (None, self.cases[name])
        ]
        if not names:
            return None
        values = [score.drops[name][metric] for name in names]
        return interval(values, [self.cases[name] for name in names])

    def agreement(self, kind: str, scheme: str, metric: str) -> dict[tuple[str, str], float]:
        """Pair of sets to Spearman's rank correlation of their units, from -1 to 1.

        Near 1 the list of fragile units carries over from one set to the other; near 0 it does not.
        """
        scores = [one for one in self.of(kind, scheme) if math.isfinite(one.mean(metric))]
        if len(scores) < 3:
            return {}
        columns = {}
        for group in self.groups:
            found = [self.interval(one, metric, group) for one in scores]
            if all(one is not None for one in found):
                columns[group] = np.array([one.mean for one in found if one is not None])
        names = list(columns)
        return {
            (a, b): _spearman(columns[a], columns[b])
            for index, a in enumerate(names)
            for b in names[index + 1 :]
        }

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON, intervals included for whoever reads it."""
        rows = []
        for one in self.scores:
            found = {metric: self.interval(one, metric) for metric in METRICS}
            summary = {
                metric: {"mean": i.mean, "low": _finite(i.low), "high": _finite(i.high)}
                for metric, i in found.items()
                if i is not None
            }
            rows.append({**asdict(one), "summary": summary})
        return {
            "format": FORMAT,
            "model": self.model,
            "against": self.against,
            "cases": self.cases,
            "views": self.views,
            "pixels": self.pixels,
            "scores": rows,
        }

    @staticmethod
    def from_data(data: Any) -> Sensitivity:
        """Inverse of ``to_data``.

        Raises:
            InputError: it is nothing of the kind.
        """
        try:
            if data["format"] != FORMAT:
                raise InputError(f"sensitivities of format {data['format']}; this reads {FORMAT}")
            scores = tuple(
                Score(
                    str(row["unit"]),
                    str(row["kind"]),
                    str(row["scheme"]),
                    tuple(map(str, row["layers"])),
                    {
                        str(case): {str(k): float(v) for k, v in drops.items()}
                        for case, drops in row["drops"].items()
                    },
                )
                for row in data["scores"]
            )
            return Sensitivity(
                str(data["model"]), str(data["against"]), dict(data["cases"]),
                dict(data["views"]), dict(data["pixels"]), scores,
            )  # fmt: skip
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"no sensitivities ({type(error).__name__}: {error})") from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; ties share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        rank: np.ndarray = ((ends - counts + ends - 1) / 2)[inverse.reshape(-1)]
        return rank - rank.mean()

    x, y = ranks(a), ranks(b)
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else math.nan


def read(path: str | Path) -> Sensitivity:
    """Sensitivities from a file of ``scan``.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable file of sensitivities ({error})") from error
    try:
        return Sensitivity.from_data(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(sensitivity: Sensitivity, path: str | Path) -> Path:
    """Write sensitivities as JSON, whole or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(sensitivity.to_data(), indent=1) + "\n")
    return path


def lines(sensitivity: Sensitivity, kind: str, scheme: str, most: int = 10) -> list[str]:
    """The most fragile units as a table for people.

    Args:
        sensitivity: of a network.
        kind: "layer" or "block".
        scheme: that was scored.
        most: rows.
    """
    ranked = sensitivity.ranked(kind, scheme)
    shown = [metric for metric in METRICS if any(math.isfinite(s.mean(metric)) for s in ranked)]
    titles = {"pose": "pose", "pose_fine": "pose @3", "depth": "depth", "points": "points"}
    head = "".join(f"{titles[metric]:>26}" for metric in shown)
    found = [
        f"{scheme}, {kind}s, most fragile first" + f" ({min(most, len(ranked))} of {len(ranked)})"
    ]
    found.append(f"  {'':<44}{head}")
    for one in ranked[:most]:
        row = f"  {one.unit:<44}"
        for metric in shown:
            value = sensitivity.interval(one, metric)
            text = "" if value is None else f"{value.mean:.3f}"
            if value is not None and math.isfinite(value.low):
                text += f" [{value.low:.3f}, {value.high:.3f}]"
            row += f"{text:>26}"
        found.append(row)
    for (a, b), correlation in sensitivity.agreement(kind, scheme, "depth").items():
        found.append(f"  rank correlation of {a} and {b} (depth): {correlation:.2f}")
    return found
