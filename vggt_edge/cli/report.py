"""What every verb prints: lines for people, and a last line of JSON when asked."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one machine-readable line of JSON at the end.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bf16 or fp16.")]


def on_terminal() -> bool:
    """Whether a progress bar would be seen."""
    return sys.stderr.isatty()


def finish(lines: list[str], data: dict[str, Any], as_json: bool) -> None:
    """Print the summary, and the same facts as one line of JSON."""
    for line in lines:
        typer.echo(line)
    if as_json:
        typer.echo(json.dumps(data))


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
