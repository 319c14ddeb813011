"""What tables of results are made of. Means are followed by their 95 % intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HOME / "results" / f"{name}.json").read_text())
    return found


def source(name: str) -> list[str]:
    """Where a table is from, as its last line."""
    data = read(name)
    of = f", weights {data['weights']}" if "weights" in data else ""
    return ["", f"[results/{name}.json](../results/{name}.json), `{data['command']}`{of}."]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def spread(value: dict[str, float], digits: int) -> str:
    """Median (least to greatest)."""
    low, high = value["min"], value["max"]
    return f"{value['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def interval(value: dict[str, float] | list[float] | None, form: str = ".3f") -> str:
    """Mean (low to high)."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = [value["mean"], value["low"], value["high"]]
    mean, low, high = value
    if low is None:  # a single scene
        return f"{mean:{form}}"
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def bold_if_clear(value: dict[str, float], form: str) -> str:
    """Bold where the interval leaves zero out."""
    text = interval(value, form)
    return f"**{text}**" if value["low"] > 0 or value["high"] < 0 else text
