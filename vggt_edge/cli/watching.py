"""The part of ``vggt-edge reconstruct --watch`` that knows folders from videos, and Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..live import watch
from ..live_video import feed_of, watch_video
from ..types import Views

logger = logging.getLogger(__name__)


def check(place: str) -> None:
    """Say what is wrong with a place to watch, before time is spent on anything else.

    Raises:
        ImageError: it does not exist, or is neither a folder nor a video.
        MissingExtraError: it is a video and PyAV is not installed.
    """
    if not Path(place).expanduser().is_dir():
        feed_of(place)


@contextmanager
def views_of(
    place: str,
    *,
    quiet: float,
    size: int,
    mode: str,
    patch: int,
    fps: float | None,
    every: int | None,
) -> Iterator[Iterator[Views]]:
    """Views of a growing folder, or of a running video, which the first Ctrl-C ends."""
    if Path(place).expanduser().is_dir():
        yield watch(place, quiet=quiet, size=size, mode=mode, patch=patch)
        return
    stop = threading.Event()
    with _first_interrupt_sets(stop):
        yield watch_video(
            place, quiet=quiet, size=size, mode=mode, patch=patch, fps=fps, every=every, stop=stop
        )


@contextmanager
def _first_interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Within, the first Ctrl-C sets ``stop``; what was there before hears the second."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only there can signals be handled
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        logger.warning("ending with the frame at hand; Ctrl-C again stops at once")

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
