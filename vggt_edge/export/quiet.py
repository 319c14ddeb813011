"""Other people's converters: what they print is kept back, what they fail with becomes one line."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What converters fail with.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def first_line(error: BaseException) -> str:
    """Kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


@contextmanager
def hushed() -> Iterator[None]:
    """Send what libraries print, from C++ too, to a file that is shown when they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(1), os.dup(2)
        try:
            for stream in (1, 2):
                os.dup2(sink.fileno(), stream)
            yield
        except Exception as error:
            sink.seek(0)
            lines = sink.read().decode(errors="replace").splitlines()
            said = [line for line in lines if "error" in line.lower()][-1:]
            error.add_note("\n".join(said)) if said and sys.version_info >= (3, 11) else None
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C until the end: extension modules may abort when it comes during their import.

    So too SIGTERM, where it is an interrupt as well.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    kept = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        kept = {}
    came = list[int]()
    for number in kept:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
