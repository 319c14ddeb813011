"""What the gates found: a table, JSON, and a page with depth maps side by side."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ... import __version__
from ...files import replacing
from ..bundle import Bundle
from ..golden import Golden
from .gate import Result

# Far to near, and none to much: lightness rises or falls steadily, so both read in grey as well.
_DEPTH = [
    (20, 24, 66),
    (38, 72, 126),
    (32, 122, 140),
    (64, 168, 122),
    (168, 206, 92),
    (250, 240, 150),
]
_ERROR = [(250, 250, 248), (252, 214, 160), (240, 140, 80), (196, 54, 60), (96, 16, 60)]
MOST_ERROR = 0.2
"""Relative deviation from which on its picture is darkest."""


def summary(results: Sequence[Result], bundle: Bundle) -> dict[str, Any]:
    """The report as plain data."""
    manifest = bundle.manifest
    return {
        "bundle": manifest["name"],
        "identity": bundle.identity,
        "target": manifest["target"],
        "recipe": manifest["recipe"],
        "vggt-edge": __version__,
        "passed": sum(one.status == "passed" for one in results),
        "failed": sum(one.status == "failed" for one in results),
        "skipped": sum(one.status == "skipped" for one in results),
        "gates": [one.to_dict() for one in results],
    }


def _cells(result: Result) -> list[str]:
    """Gate, status, AbsRel and delta1 of the worst image, its camera, loss against the truth."""
    cells = [result.gate, result.status]
    if result.measured is None:
        return [*cells, "", "", "", "", ""]
    worst = result.measured.worst

    def text(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    truth = result.measured.truth
    arrow = "\N{RIGHTWARDS ARROW}"
    losses = [f"{n} {before:.3f} {arrow} {after:.3f}" for n, (before, after) in truth.items()]
    return [
        *cells,
        text(worst.abs_rel, ".2e"),
        text(worst.delta1, ".4f"),
        "" if worst.rotation is None else f"{worst.rotation:.3f}",
        f"{worst.set}, view {worst.view}",
        ", ".join(losses),
    ]


HEADINGS = ("gate", "result", "AbsRel", "delta1", "rotation", "worst image", "against the truth")


def table(results: Sequence[Result]) -> list[str]:
    """Lines for a terminal: one a gate, and below why it failed or was skipped."""
    rows = [list(HEADINGS), *(_cells(one) for one in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = []
    for row, result in zip(rows, [None, *results], strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        lines += [f"    {reason}" for reason in (result.reasons if result else ())]
    return lines


def write(
    folder: Path, results: Sequence[Result], bundle: Bundle, golden: Golden
) -> dict[str, Path]:
    """``check.json`` and ``check.html`` into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    data, page = folder / "check.json", folder / "check.html"
    with replacing(data) as temporary:
        text = json.dumps(summary(results, bundle), indent=1, allow_nan=False, default=str)
        temporary.write_text(text + "\n", encoding="utf-8")
    with replacing(page) as temporary:
        temporary.write_text(render(results, bundle, golden), encoding="utf-8")
    return {"json": data, "page": page}


def render(results: Sequence[Result], bundle: Bundle, golden: Golden) -> str:
    """The page."""
    manifest = bundle.manifest
    title = html.escape(str(manifest["name"]))
    counts = ", ".join(
        f"{sum(one.status == status for one in results)} {status}"
        for status in ("passed", "failed", "skipped")
    )
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8")
    views, height, width = bundle.shape
    shown = [one for one in results if "depth" in one.outputs]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{style}</style></head><body><main>"
        f"<h1>{title}</h1><p>{counts}. {html.escape(str(manifest['target']))}, "
        f"{html.escape(str(manifest['recipe']))}, {views} views of {height}x{width}, "
        f"{_bytes(manifest)}.</p>"
        f'<p class="soft">bundle {bundle.identity[:16]}, vggt-edge {__version__}. AbsRel, delta1 '
        "and rotation (degrees) are to the network in float32, of the worst image; against the "
        "truth: of the procedural worlds, the network's value and the exported one's.</p>"
        f"{_table(results)}{_facts(results)}{_pictures(shown, golden)}</main></body></html>"
    )


def _bytes(manifest: Mapping[str, Any]) -> str:
    files = {name for stage in manifest["stages"] for name in (stage["file"], stage.get("data"))}
    total = sum(manifest["files"][name]["bytes"] for name in files if name)
    return f"{total / 1e6:.1f} MB"


def _table(results: Sequence[Result]) -> str:
    rows = []
    for one in results:
        name, status, *rest = (html.escape(cell) for cell in _cells(one))
        why = "".join(f"<br><small>{html.escape(reason)}</small>" for reason in one.reasons)
        proves = f"<small>{html.escape(one.proves)}</small>"
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        label = f'<span class="{status}">{status}</span>'
        rows.append(f"<tr><th>{name}<br>{proves}</th><td>{label}</td>{cells}</tr>")
        if why:
            wide = f'<td colspan="{len(HEADINGS)}">{why.removeprefix("<br>")}</td>'
            rows.append(f'<tr class="why">{wide}</tr>')
    head = "".join(f"<th>{name}</th>" for name in HEADINGS)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _facts(results: Sequence[Result]) -> str:
    lines = [
        f"<li><b>{html.escape(one.gate)}</b> {html.escape(_fact_text(one.facts))}</li>"
        for one in results
        if one.facts
    ]
    return f'<ul class="soft">{"".join(lines)}</ul>' if lines else ""


def _fact_text(facts: Mapping[str, Any]) -> str:
    parts = []
    for name, value in facts.items():
        if name == "milliseconds" or value in (None, [], {}):
            continue
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{name.replace('_', ' ')}: {text}")
    return ", ".join(parts)


def _pictures(results: Sequence[Result], golden: Golden) -> str:
    if not results:
        return ""
    sections = []
    for index, name in enumerate(golden.names):
        for view in range(golden.images.shape[1]):
            wanted = golden.reference["depth"][index, view, ..., 0]
            near, far = np.quantile(wanted, (0.01, 0.99))
            figures = [
                _figure(golden.images[index, view], "picture"),
                _figure(_depth_picture(wanted, near, far), "network, float32"),
            ]
            for one in results:
                found = one.outputs["depth"][index, view, ..., 0]
                off = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-12)
                figures += [
                    _figure(_depth_picture(found, near, far), one.gate),
                    _figure(
                        _colored(off / MOST_ERROR, _ERROR),
                        f"off by {100 * off.mean():.2g} %, at most {100 * off.max():.2g} %",
                    ),
                ]
            sections.append(
                f"<h3>{html.escape(name)}, view {view}</h3>"
                f'<div class="row">{"".join(figures)}</div>'
            )
    return (
        f"<h2>Depth</h2><p class='soft'>Near is light. Deviations are darkest from "
        f"{100 * MOST_ERROR:.0f} % on.</p>{''.join(sections)}"
    )


def _depth_picture(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """(H, W) depth to (H, W, 3) uint8, near is light, by inverse depth."""
    ends = 1 / max(near, 1e-9), 1 / max(far, 1e-9)
    share = (1 / np.maximum(depth, 1e-9) - ends[1]) / max(ends[0] - ends[1], 1e-12)
    return _colored(share, _DEPTH)


def _colored(share: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    place = np.clip(np.nan_to_num(share, nan=1.0), 0, 1) * (len(colors) - 1)
    stops = np.arange(len(colors))
    channels = [np.interp(place, stops, channel) for channel in zip(*colors, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _figure(picture: np.ndarray, caption: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
