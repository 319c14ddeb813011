"""The command line: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import VGGTEdgeError
from . import (
    calibrate,
    check,
    compress,
    convert,
    device,
    evaluate,
    export,
    reconstruct,
    sensitivity,
    train,
    weights,
)
from .report import plain_warnings


class _Interrupted(VGGTEdgeError):
    """Ctrl-C."""


class _Commands(TyperGroup):
    """The verbs; turns Ctrl-C into an error like others, which typer's versions do not agree on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted("interrupted; files that were complete stay") from None


app = typer.Typer(
    name="vggt-edge",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("reconstruct")(reconstruct.command)
app.command("info")(weights.info)
app.command("fetch")(weights.fetch)
app.command("convert")(convert.command)
app.command("evaluate")(evaluate.command)
app.command("calibrate")(calibrate.command)
app.command("compress")(compress.command)
app.command("export")(export.command)
app.command("check")(check.command)
app.command("device")(device.command)
app.command("sensitivity")(sensitivity.command)
app.command("train")(train.command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vggt-edge {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Photographs in; cameras, depth and points out."""


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _ends_tidily() -> Iterator[None]:
    """What ``kill``, systemd or a time limit sends (SIGTERM) ends as Ctrl-C does: files that are
    half written go.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run; exit 0, 1 (failed) or 2 (bad usage); one line for what the user can mend."""
    # The hub's library reports every attempt of a download that then fails for one reason.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        with _ends_tidily(), plain_warnings():
            app(prog_name="vggt-edge")
    except VGGTEdgeError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:  # such as a full disk behind standard output
        _fail(str(error), 1)
    except MemoryError:
        _fail("out of memory; use fewer views (--limit) or a smaller --size", 1)


def _fail(message: str, exit_code: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(exit_code)
