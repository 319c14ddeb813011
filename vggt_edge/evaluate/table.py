"""An evaluation as a table for the terminal, and what its metrics are called."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from .bootstrap import Interval
from .evaluation import Evaluation


class Metric(NamedTuple):
    """How a metric is shown.

    Fields
        title             for people.
        higher_is_better  the direction.
        unit              "" for shares and ratios; lengths are scored in metres or not at all.
    """

    title: str
    higher_is_better: bool
    unit: str = ""


_METRICS = {
    r"auc(\d+)": Metric("AUC@{}°", True),
    r"rra(\d+)": Metric("RRA@{}°", True),
    r"rta(\d+)": Metric("RTA@{}°", True),
    "found": Metric("cameras found", True),
    "focal_error": Metric("focal error", False),
    "ate": Metric("ATE", False, "m"),
    "ate_relative": Metric("ATE / spread", False),
    "are": Metric("ARE", False, "°"),
    "rpe_translation": Metric("RPE translation", False, "m"),
    "rpe_rotation": Metric("RPE rotation", False, "°"),
    "abs_rel": Metric("AbsRel", False),
    "sq_rel": Metric("SqRel", False, "m"),
    "rmse": Metric("RMSE", False, "m"),
    "log_rmse": Metric("log RMSE", False),
    "delta1": Metric("δ < 1.25", True),
    "delta2": Metric("δ < 1.25²", True),
    "delta3": Metric("δ < 1.25³", True),
    "acc_mean": Metric("Acc mean", False, "m"),
    "acc_median": Metric("Acc median", False, "m"),
    "comp_mean": Metric("Comp mean", False, "m"),
    "comp_median": Metric("Comp median", False, "m"),
    "overall": Metric("Overall", False, "m"),
    "chamfer": Metric("Chamfer", False, "m"),
    "nc_mean": Metric("NC mean", True),
    "nc_median": Metric("NC median", True),
    r"precision_([\d.e-]+)": Metric("precision@{}", True),
    r"recall_([\d.e-]+)": Metric("recall@{}", True),
    r"fscore_([\d.e-]+)": Metric("F-score@{}", True),
}


_DETAIL = re.compile(
    r"(\w+_)?(rra|rta)(15|3)|strict_(auc(15|3)|rra\d+|rta\d+)"
    r"|(\w+_)?(sq_rel|rmse|log_rmse|delta[23]|acc_median|comp_median|nc_median)"
    r"|(\w+_)?(precision|recall)_.*"
)


def is_detail(name: str) -> bool:
    """Whether a short table goes without this metric."""
    return _DETAIL.fullmatch(name) is not None


def metric(name: str) -> Metric:
    """How ``name`` is shown; a prefix says the alignment or definition: "legacy_auc30"."""
    for pattern, found in _METRICS.items():
        match = re.fullmatch(f"(.*?)_?{pattern}", name)
        if match and (not match[1] or name.startswith(f"{match[1]}_")):
            numbers = match.groups()[1:]
            prefix = f"{match[1].replace('_', ' ')} " if match[1] else ""
            return found._replace(title=prefix + found.title.format(*numbers))
    return Metric(name.replace("_", " "), False)


def value_text(value: float) -> str:
    """A value in four characters or so."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1e4 else "> 1e4"


def interval_text(interval: Interval | None, recordings: int, signed: bool = False) -> str:
    """Mean and interval: "0.123 [0.101, 0.140]", with "of 5" if it is of fewer recordings."""
    if interval is None:
        return "-"
    mean = value_text(interval.mean)
    mean = f"+{mean}" if signed and interval.mean > 0 else mean
    if math.isfinite(interval.low):
        mean += f" [{value_text(interval.low)}, {value_text(interval.high)}]"
    return f"{mean} of {interval.sequences}" if interval.sequences < recordings else mean


def heading(evaluation: Evaluation) -> str:
    """What was evaluated, in one line."""
    task = evaluation.task
    counts = sorted({len(one) for one in task.recordings})
    views = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    number = len(task.recordings)
    return (
        f"{task.dataset.title}, split {task.split}, protocol {task.protocol.name}: "
        f"{number} recording{'s' * (number != 1)} of {views} views"
    )


def cells(evaluation: Evaluation, metrics: Sequence[str]) -> list[list[str]]:
    """Header and one row a metric: title, a column a method, and of two models the difference."""
    summaries = [evaluation.summary(result) for result in evaluation.results]
    deltas = evaluation.deltas()
    models = evaluation.models
    header = ["", *(result.method.name for result in evaluation.results)]
    if deltas:
        header.append(f"{models[1].method.name} - {models[0].method.name}")
    rows = [header]
    for name in metrics:
        shown = metric(name)
        arrow = "↑" if shown.higher_is_better else "↓"
        title = f"{shown.title}{f' ({shown.unit})' * bool(shown.unit)} {arrow}"
        most = max(summary[name].sequences for summary in summaries if name in summary)
        row = [title, *(interval_text(summary.get(name), most) for summary in summaries)]
        if deltas:
            delta = deltas.get(name)
            mark = " *" if delta and delta.excludes_zero else ""
            row.append(interval_text(delta, most, signed=True) + mark)
        rows.append(row)
    return rows


def lines(evaluation: Evaluation) -> list[str]:
    """The table without details, with its heading and footnotes."""
    shown = [name for name in evaluation.metrics if not is_detail(name)]
    rows = cells(evaluation, shown)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    found = [heading(evaluation), ""]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        found.append("  ".join(padded).rstrip())
    found += ["", *notes(evaluation)]
    if left := len(evaluation.metrics) - len(shown):
        found.append(f"{left} more metrics are in the JSON file and the report")
    return found


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader of the table must know."""
    several = len(evaluation.task.recordings) > 1
    found = ["mean over recordings [95% bootstrap interval over recordings]"] if several else []
    if not several:
        found.append("one recording: no intervals")
    if evaluation.deltas() and several:
        found.append("* the interval of the difference, paired by recording, excludes zero")
    found.append(f"protocol {evaluation.task.protocol.name}: {evaluation.task.protocol.beside}")
    found.append("of N: a mean of N recordings only, where others have more; no fair comparison")
    found += [f"no {name} row: {reason}" for name, reason in evaluation.left_out.items()]
    return found
