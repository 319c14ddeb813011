"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys

import typer

from ..errors import VGGTEdgeError
from . import reconstruct, train, weights

app = typer.Typer(
    name="vggt-edge",
    help="Photographs in; cameras, depth and points out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("reconstruct")(reconstruct.command)
app.command("info")(weights.info)
app.command("fetch")(weights.fetch)
app.command("train")(train.command)


def main() -> None:
    """Run; exit 0, 1 (failed) or 2 (bad usage); one line for what the user can mend."""
    try:
        app(standalone_mode=True)
    except VGGTEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; files that were complete stay\n")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone; Python must not complain while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
