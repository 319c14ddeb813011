"""What every verb prints: lines for people, and a last line of JSON when asked."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one line of JSON, the last one.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", metavar="DEVICE")]
DtypeOption = Annotated[
    str, typer.Option(help="Precision: auto, float32, bf16 or fp16.", metavar="DTYPE")
]


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


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.levelname.lower(), record.getMessage())


def _say(level: str, message: str) -> None:
    # Imported already if there is a progress bar, which must not be written into.
    from tqdm import tqdm

    tqdm.write(f"{level}: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings, raised and logged, as one line each on standard error, without code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        _say("warning", str(message))

    handler = _Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
