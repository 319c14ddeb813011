"""An evaluation as one HTML page that needs nothing else: tables, plots, the worst cases."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

import numpy as np

from .. import __version__, pixels
from ..files import replacing
from ..recording import Recording
from . import charts, poses, table, trajectories, worst
from .evaluation import Evaluation
from .run import Result, read_prediction

HEADLINES = (
    *("auc30", "auc5", "rra5", "rta5", "ate_relative", "ate", "rpe_rotation", "focal_error"),
    *("abs_rel", "delta1", "acc_mean", "comp_mean", "nc_mean", "fscore_0.05", "found"),
)
"""Metrics that get a plot, where there are values."""

WORST = 4
"""Recordings shown of each kind and model; of fewer recordings, more views each."""

MODEL_COLORS = 6
"""Colours of models in the style sheet; those of the baselines follow."""


def write(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the page.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(page(evaluation), encoding="utf-8")
    return path


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    task = evaluation.task
    models = " and ".join(result.method.name for result in evaluation.models)
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8")
    title = html.escape(f"{models} on {task.dataset.title}")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    sections = [
        f"<header><h1>{title}</h1><p>{html.escape(table.heading(evaluation))}</p>"
        f'<p class="muted">vggt-edge {__version__}, {date}, {html.escape(str(task.root))}</p>'
        "</header>",
        _section("Scores", _tables(evaluation)),
        _section("At a glance", _glance(evaluation)),
        _section("Share of pairs within a pose error", _pose_curves(evaluation)),
        *(
            part
            for result in evaluation.models
            for part in (_worst_depth(evaluation, result), _worst_poses(evaluation, result))
        ),
        _section("Every recording", _recordings(evaluation)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{style}</style></head><body><main>{''.join(sections)}"
        "</main></body></html>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>" if content else ""


def _color(evaluation: Evaluation, result: Result) -> int:
    if result in evaluation.models:
        return evaluation.models.index(result) % MODEL_COLORS
    return MODEL_COLORS + [r for r in evaluation.results if r.method.baseline].index(result)


def _tables(evaluation: Evaluation) -> str:
    """The metrics most look at, and the others behind a click."""
    short = [name for name in evaluation.metrics if not table.is_detail(name)]
    rest = [name for name in evaluation.metrics if table.is_detail(name)]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes(evaluation))
    found = f'{_table(evaluation, short)}<ul class="notes">{notes}</ul>'
    if rest:
        summary = f"<summary>{len(rest)} more metrics</summary>"
        found += f"<details>{summary}{_table(evaluation, rest)}</details>"
    return found


def _table(evaluation: Evaluation, names: Sequence[str]) -> str:
    header, *rows = table.cells(evaluation, names)
    baseline = [result.method.baseline for result in evaluation.results]
    found = ['<div class="scroll"><table><thead><tr>']
    found += [f"<th>{html.escape(cell)}</th>" for cell in header]
    found.append("</tr></thead><tbody>")
    for name, row in zip(names, rows, strict=True):
        best = _best(evaluation, name)
        found.append(f"<tr><th>{html.escape(row[0])}</th>")
        for column, cell in enumerate(row[1:]):
            kinds = ["number"]
            if column < len(baseline) and baseline[column]:
                kinds.append("baseline")
            if column in best:
                kinds.append("best")
            mean, _, ends = html.escape(cell).partition(" ")
            found.append(f'<td class="{" ".join(kinds)}">{mean} <small>{ends}</small></td>')
        found.append("</tr>")
    found.append("</tbody></table></div>")
    return "".join(found)


def _best(evaluation: Evaluation, name: str) -> set[int]:
    """Columns whose mean is the best of those over as many recordings, unless all are equal."""
    means = [evaluation.summary(result).get(name) for result in evaluation.results]
    most = max((one.sequences for one in means if one), default=0)
    known = {index: one.mean for index, one in enumerate(means) if one and one.sequences == most}
    if len(set(known.values())) < 2 or name == "found":
        return set()
    top = (max if table.metric(name).higher_is_better else min)(known.values())
    return {index for index, mean in known.items() if mean == top}


def _glance(evaluation: Evaluation) -> str:
    plots = []
    for name in (name for name in HEADLINES if name in evaluation.metrics):
        shown = table.metric(name)
        rows = []
        for result in evaluation.results:
            one = evaluation.summary(result).get(name)
            if one:
                color = _color(evaluation, result)
                rows.append(charts.Row(result.method.name, one.mean, one.low, one.high, color))
        hint = "higher is better" if shown.higher_is_better else "lower is better"
        title = f"{shown.title}{f' ({shown.unit})' * bool(shown.unit)}"
        plots.append(f"<figure>{charts.whiskers(title, hint, rows)}</figure>")
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _pose_curves(evaluation: Evaluation) -> str:
    thresholds = np.linspace(0, 30, 121)
    series = []
    for result in evaluation.results:
        shares = []
        for recording in evaluation.task.recordings:
            prediction = read_prediction(result.files[recording.name])
            if recording.cameras is None or prediction.cameras is None or len(recording) < 2:
                continue
            errors = poses.pair_errors(
                prediction.cameras.camera_from_world, recording.cameras.camera_from_world
            )
            worse = np.sort(np.maximum(*errors))
            shares.append(np.searchsorted(worse, thresholds) / len(worse))
        if shares:
            mean = np.mean(shares, axis=0)
            color = _color(evaluation, result)
            series.append(charts.Curve(result.method.name, thresholds, mean, color))
    if not series:
        return ""
    plot = charts.curves(
        "Rotation and translation direction both within the error",
        "error, degrees",
        "share of pairs, mean over recordings",
        series,
    )
    return f"<figure>{plot}</figure>"


def _recording(evaluation: Evaluation, name: str) -> Recording:
    return next(one for one in evaluation.task.recordings if one.name == name)


def _worst_depth(evaluation: Evaluation, result: Result) -> str:
    cases = list(_depth_cases(evaluation, result))
    if not cases:
        return ""
    rows = []
    for case in cases:
        unit = " m" * (_recording(evaluation, case.recording).units == "metres")
        error = f"error, AbsRel {case.abs_rel:.3f} in this view"
        captions = ("input", "predicted depth", "true depth", error)
        pictures = (case.image, case.predicted, case.true, case.error)
        cells = "".join(
            f'<figure><img alt="{html.escape(caption, quote=True)}" '
            f'src="{worst.data_url(picture, photograph=index == 0)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for index, (caption, picture) in enumerate(zip(captions, pictures, strict=True))
        )
        rows.append(
            f"<h3>{html.escape(case.recording)}, {html.escape(case.name)} "
            f'<span class="muted">AbsRel {case.score:.3f} over the recording; colours from '
            f"{case.near:.3g} to {case.far:.3g}{unit}</span></h3>"
            f'<div class="case">{cells}</div>'
        )
    legend = (
        f'<p class="legend">depth: far <i style="background:{worst.ramp("depth")}"></i> near, grey '
        f'where unknown; error: 0 <i style="background:{worst.ramp("error")}"></i> '
        f"{worst.MOST_ERROR:.0%} of the true depth or more</p>"
    )
    title = f"{result.method.name}: worst depth"
    return _section(title, legend + "".join(rows))


def _depth_cases(evaluation: Evaluation, result: Result) -> Iterator[worst.DepthCase]:
    order = worst.worst_recordings(result.values("abs_rel"), WORST, higher_is_better=False)
    for name, score in order:
        recording = _recording(evaluation, name)
        if recording.depth is None:
            continue
        prediction = read_prediction(result.files[name])
        truths = [
            pixels.truth_in_view(prediction.views, index, recording.depth(index))
            for index in range(len(recording))
        ]
        yield from worst.depth_cases(
            name, score, prediction, np.stack(truths), max(1, WORST // len(order))
        )


def _worst_poses(evaluation: Evaluation, result: Result) -> str:
    order = worst.worst_recordings(result.values("auc30"), WORST, higher_is_better=True)
    cards = []
    for name, score in order:
        recording = _recording(evaluation, name)
        prediction = read_prediction(result.files[name])
        if recording.cameras is None or prediction.cameras is None:
            continue
        truth, centers = recording.cameras.centers, prediction.cameras.centers
        known = np.isfinite(centers).all(axis=1)
        fit = trajectories.align(centers[known], truth[known]) if known.sum() >= 3 else None
        label = f"true and predicted camera centres of {name}"
        plot = charts.trajectories(truth, centers, fit, _color(evaluation, result), label)
        strip = "".join(
            f'<img alt="" src="{worst.data_url(image, photograph=True, longest=96)}">'
            for image in _spread(prediction.views.images, 4)
        )
        cards.append(
            f"<figure>{plot}<div class='strip'>{strip}</div><figcaption>{html.escape(name)} "
            f'<span class="muted">AUC@30° {score:.3f}</span></figcaption></figure>'
        )
    if not cards:
        return ""
    color = _color(evaluation, result)
    legend = (
        '<p class="legend">camera centres: <b class="truth-key"></b> true, '
        f'<b class="key c{color}"></b> predicted after the best similarity, dashed lines from one '
        "to the other; seen from the side that shows most of the true path</p>"
    )
    title = f"{result.method.name}: worst poses"
    return _section(title, f'{legend}<div class="plots">{"".join(cards)}</div>')


def _spread(images: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)):
        yield images[index]


def _recordings(evaluation: Evaluation) -> str:
    wanted = ("auc30", "auc5", "abs_rel", "delta1", "ate_relative", "acc_mean", "comp_mean")
    columns = [
        (name, [result for result in evaluation.results if result.values(name)])
        for name in wanted
        if name in evaluation.metrics
    ]
    head = "".join(
        f'<th class="first" colspan="{len(results)}">{html.escape(table.metric(name).title)}</th>'
        for name, results in columns
    )
    methods = "".join(
        f'<th class="number{" first" * (index == 0)}">{html.escape(result.method.name)}</th>'
        for _, results in columns
        for index, result in enumerate(results)
    )
    rows = []
    for recording in evaluation.task.recordings:
        cells = []
        for name, results in columns:
            for index, result in enumerate(results):
                value = result.scores.get(recording.name, {}).get(name, float("nan"))
                kind = "number" + " baseline" * result.method.baseline + " first" * (index == 0)
                cells.append(f'<td class="{kind}">{table.value_text(value)}</td>')
        label = f"{recording.name} ({len(recording)})"
        rows.append(f"<tr><th>{html.escape(label)}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll tall"><table><thead><tr><th rowspan="2">recording (views)</th>{head}'
        f"</tr><tr>{methods}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
