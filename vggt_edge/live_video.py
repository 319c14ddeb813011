"""A video that is still running, as a source of views without a known end: camera, stream, file.

Frames are decoded as they are asked for and no index is read first, so memory does not grow with
their number. What is chosen, and how it is called, is what ``read_views`` chooses of a file of
constant frame rate; only the limit of 120 frames is not there.
"""

from __future__ import annotations

import heapq
import os
import queue
import re
import stat
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from . import sources, video
from .errors import ImageError, InputError, MissingExtraError
from .pictures import MAX_PIXELS, unusable
from .preprocess import Placement, place
from .types import Views

# FFmpeg's devices. lavfi is its own source of test pictures.
DEVICES = ("v4l2", "avfoundation", "dshow", "lavfi")
OPEN_SECONDS = 20.0
_WAIT = 0.2


@dataclass(frozen=True)
class Feed:
    """Where frames come from.

    Fields
        path    what FFmpeg opens.
        source  how to call it in names and errors; without a password.
        stem    its name, for those of its views.
        format  the FFmpeg device, None where the content says what it is.
        kind    "file", whose end is known; "pipe", which waits for its reader; or "stream", which
                does not wait, and devices are streams.
    """

    path: str
    source: str
    stem: str
    format: str | None
    kind: str


def feed_of(source: str | Path) -> Feed:
    """What a path, URL or device stands for; opens no stream and no device.

    Raises:
        ImageError: it does not exist or is no video.
        MissingExtraError: PyAV is not installed.
    """
    text = str(source)
    device, _, rest = text.partition(":")
    if device in DEVICES and rest:
        feed = Feed(rest, text, device, device, "stream")
    elif "://" in text:
        shown = re.sub(r"//[^/]*@", "//", text)
        parts = urllib.parse.urlsplit(shown)
        feed = Feed(text, shown, Path(parts.path).stem or parts.netloc, None, "stream")
    else:
        path = os.path.abspath(os.path.expanduser(text))
        if not os.path.exists(path):
            raise unusable(text, "does not exist", "check the path")
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode):
            feed = Feed(path, path, Path(path).stem, "v4l2", "stream")
        elif stat.S_ISFIFO(mode):
            feed = Feed(path, path, Path(path).stem, None, "pipe")
        else:
            if os.path.isdir(path) or not sources.expand(path, folder="")[0].is_video:
                raise unusable(text, "is no video", "give a video, a stream or a camera")
            feed = Feed(path, path, Path(path).stem, None, "file")
    if find_spec("av") is None:
        raise MissingExtraError("PyAV", "video", f"reading {feed.source}")
    return feed


def watch_video(
    source: str | Path,
    *,
    quiet: float,
    size: int = 518,
    mode: str = "keep",
    patch: int = 14,
    fps: float | None = None,
    every: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Views]:
    """Views of a running video's frames, each on its own, as they come.

    A file and a named pipe wait until their frames are used. A stream and a camera do not: of
    frames that come faster than they are used, the latest is given and the others are left out,
    with a warning at the end. A connection that breaks after the first frame ends the source, with
    a warning. Frames are named as in ``read_views``, ``clip_000012``; those of a source without a
    known length by the time of opening, too, ``video0_20260131T120000_000012``, so that those of
    another run have other names.

    Args:
        source: a video file, a named pipe, a URL (rtsp://, http://, ...), a camera such as
            /dev/video0, or DEVICE:NAME for FFmpeg's devices (avfoundation:0, dshow:video=NAME).
        quiet: stop when a pipe, stream or camera has given no frame for so many seconds.
        size: see ``read_views``, as for the other arguments.
        fps: frames a second to take; two with neither this nor ``every``.
        every: take each ``every``-th frame.
        stop: once set, the source ends with the frame at hand.

    Raises:
        ImageError: it cannot be opened, is no video, or no frame can be decoded.
        InputError: arguments that make no sense.
        MissingExtraError: PyAV is not installed.
    """
    if fps is not None and every is not None:
        raise InputError("fps and every exclude each other: give one of them")
    if (fps is not None and not fps > 0) or (every is not None and every < 1):
        raise InputError("fps and every must be positive")
    place([(size, size)], mode, size, patch)  # bad arguments fail before anything is opened
    feed = feed_of(source)
    stop = stop or threading.Event()
    placement: Placement | None = None
    shots = (
        takewhile(lambda _: not stop.is_set(), _shots(feed, fps, every))
        if feed.kind == "file"
        else _Reader(feed, fps, every, quiet).shots(stop)
    )
    for shot in shots:
        height, width = shot.pixels.shape[:2]
        placement = placement or place([(height, width)], mode, size, patch)[0]
        yield _view(shot, placement)
    if placement is None and not stop.is_set():
        raise video.undecodable(feed.source)


@dataclass(frozen=True, eq=False)
class _Shot:
    """A frame that was chosen; ``live`` if its source does not wait."""

    name: str
    source: str
    pixels: np.ndarray
    live: bool


def _view(shot: _Shot, placement: Placement) -> Views:
    image = np.full((*placement.view, 3), 255, dtype=np.uint8)
    placement.draw(Image.fromarray(shot.pixels), image)
    return Views(
        images=image[None],
        names=(shot.name,),
        sources=(shot.source,),
        source_sizes=np.array([placement.source]),
        source_from_view=placement.source_from_view[None],
        valid=np.array([placement.valid]),
    )


class _Reader:
    """A thread that waits for frames, as waiting inside FFmpeg cannot be interrupted."""

    def __init__(self, feed: Feed, fps: float | None, every: int | None, quiet: float):
        self.feed, self.fps, self.every, self.quiet = feed, fps, every, quiet
        self.ready: queue.Queue[_Shot | ImageError | None] = queue.Queue(1)  # None is the end
        self.closed = threading.Event()
        self.deadline = time.monotonic() + OPEN_SECONDS
        self.left_out = 0

    def shots(self, stop: threading.Event) -> Iterator[_Shot]:
        """The shots until the end, ``stop`` or silence."""
        threading.Thread(target=self._run, name="frames", daemon=True).start()
        try:
            yield from self._taken(stop)
        finally:
            self.closed.set()
        if self.left_out:
            warnings.warn(
                f"{self.feed.source}: {self.left_out} frames came faster than they were used and "
                "were left out; a lower --fps takes fewer",
                stacklevel=3,
            )

    def _taken(self, stop: threading.Event) -> Iterator[_Shot]:
        came = False
        while not stop.is_set():
            try:
                shot = self.ready.get(timeout=_WAIT)
            except queue.Empty:
                if time.monotonic() < self.deadline:
                    continue
                if came:
                    return
                remedy = "check that it runs, or give --watch more seconds"
                raise unusable(self.feed.source, "has given no frame so far", remedy) from None
            if shot is None:
                return
            if isinstance(shot, ImageError):
                if not came:
                    raise shot
                warnings.warn(f"the stream ends here: {shot}", stacklevel=4)
                return
            came = True
            yield shot
            self._hear()  # what is done with the view takes its time

    def _hear(self) -> None:
        self.deadline = max(self.deadline, time.monotonic() + self.quiet)

    def _run(self) -> None:
        try:
            for shot in _shots(self.feed, self.fps, self.every, self.quiet, self._hear):
                self._put(shot)
                if self.closed.is_set():
                    return
            self._put(None)
        except (ImageError, MissingExtraError) as error:
            self._put(ImageError(str(error)))

    def _put(self, item: _Shot | ImageError | None) -> None:
        if isinstance(item, _Shot) and item.live and self.ready.full():
            with suppress(queue.Empty):  # it may have been taken just now
                self.ready.get_nowait()
                self.left_out += 1
        while not self.closed.is_set():
            with suppress(queue.Full):
                self.ready.put(item, timeout=_WAIT)
                return


def _shots(
    feed: Feed,
    fps: float | None,
    every: int | None,
    quiet: float = 0.0,
    hear: Callable[[], None] = lambda: None,
) -> Iterator[_Shot]:
    """The chosen frames, upright; ``hear`` is called for every frame."""
    options: dict[str, Any] = {"format": feed.format}
    if feed.kind == "stream":
        # A little more than the reader has: it says better what happened.
        options["timeout"] = (OPEN_SECONDS + 1, max(quiet, OPEN_SECONDS) + 1)
    remedy = "check the address or device and that it runs"
    given = {} if feed.kind == "file" else {"remedy": remedy}
    with video.opened(feed.path, feed.source, **given, **options) as (container, stream):
        stream.thread_type = "SLICE"  # threads that take a frame each hold that many back
        endless = feed.kind != "file" and not container.duration
        stem = f"{feed.stem}_{time.strftime('%Y%m%dT%H%M%S')}" if endless else feed.stem
        stem = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", stem)
        digits = 4 if float(stream.average_rate or 0) > 99 else 2
        shown: tuple[int, int, int] | None = None
        for frame in _choose(_decoded(container, stream, hear), fps, every):
            picture = frame.picture
            if shown is None:
                aspect = stream.sample_aspect_ratio
                height, width = video.square_pixels(picture.height, picture.width, aspect)
                if height * width > MAX_PIXELS:
                    problem = f"has frames of {width}x{height} pixels"
                    raise unusable(feed.source, problem, "make them smaller first")
                shown = (height, width, round(picture.rotation / 90) % 4)
            height, width, turns = shown
            pixels = picture.to_ndarray(format="rgb24", width=width, height=height)
            yield _Shot(
                f"{stem}_{frame.number:06d}",
                f"{feed.source}@{frame.seconds:.{digits}f}s",
                np.ascontiguousarray(np.rot90(pixels, turns)),
                endless and feed.kind == "stream",
            )


class _Frame(NamedTuple):
    """A decoded frame, its number and its time from the first."""

    number: int
    seconds: float
    picture: Any


def _decoded(container: Any, stream: Any, hear: Callable[[], None]) -> Iterator[_Frame]:
    """All frames that are whole, in display order, numbered as in ``Clip``."""
    from av.error import InvalidDataError

    stamps: list[int] = []  # of packets whose frame has not come; some never do
    index, start, rate = -1, 0, float(stream.average_rate or 25)
    timed, shift, last = True, 0.0, 0.0
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            timed = timed and packet.pts is not None
            if timed:
                heapq.heappush(stamps, packet.pts)
        try:
            pictures = packet.decode()
        except InvalidDataError:
            continue  # a damaged packet; the decoder recovers at the next keyframe
        for picture in pictures:
            hear()
            if not timed:
                index += not picture.is_corrupt
                seconds = index / rate
            elif picture.pts is None:
                continue
            else:
                if index < 0:
                    start = stamps[0] if stamps else picture.pts
                while stamps and stamps[0] <= picture.pts:
                    heapq.heappop(stamps)
                    index += 1
                seconds = (picture.pts - start) * float(stream.time_base) + shift
                if seconds < last:  # a camera's clock that was set back
                    shift += last + 1 / rate - seconds
                    seconds = last + 1 / rate
                last = seconds
            if not picture.is_corrupt:
                yield _Frame(index, seconds, picture)


def _choose(frames: Iterator[_Frame], fps: float | None, every: int | None) -> Iterator[_Frame]:
    """What ``Clip.choose`` chooses, one frame late."""
    if every is not None:
        wanted = 0
        for frame in frames:
            if frame.number >= wanted:
                due = frame.number - frame.number % every
                wanted = due + every
                if frame.number - due <= 2:  # hidden frames, as in ``video.frames``
                    yield frame._replace(number=due)
        return
    rate = video.DEFAULT_FPS if fps is None else fps
    tick, used, before = 0, -1, None
    for frame in frames:
        last = int(frame.seconds * rate + 1e-6)  # of the ticks up to this frame
        if last >= tick and before is not None:
            to_first = tick / rate
            if (
                to_first - before.seconds <= frame.seconds - to_first + 1e-6
                and before.number > used
            ):
                used = before.number
                yield before
        if last >= tick:
            to_last = last / rate
            nearer = before is None or to_last - before.seconds > frame.seconds - to_last + 1e-6
            if nearer and frame.number > used:
                used = frame.number
                yield frame
        tick = max(tick, last + 1)
        before = frame
    # Where all frames are wanted the last one has no tick of its own.
    if before is not None and before.number > used and before.seconds * rate >= before.number:
        yield before
