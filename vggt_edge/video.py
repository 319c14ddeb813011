"""Video files to upright RGB frames, chosen by time, through PyAV (the extra ``video``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ImageError, InputError, MissingExtraError
from .pictures import MAX_PIXELS, unusable
from .preprocess import Size

SUFFIXES = frozenset(
    [".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"]
    + [".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv"]
)
DEFAULT_FPS = 2.0
DEFAULT_MOST = 120

_REENCODE = "check that it plays, or re-encode it: ffmpeg -i OLD -pix_fmt yuv420p NEW.mp4"
# Elsewhere a seek may land after the frame it was asked for.
_SEEKABLE = ("mov,mp4", "matroska,webm")


def is_video(head: bytes) -> bool:
    """Whether a file's first 200 bytes are those of a video container.

    FFmpeg itself is not asked: it takes text for ANSI art, and playlists that open other files.
    """
    if head[4:8] == b"ftyp":
        return head[8:12] not in (b"avif avis heic heix heim heis hevc hevx mif1 msf1".split())
    return (
        head[4:8] in (b"moov", b"mdat", b"wide")
        or head.startswith((b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
        or head.startswith((b"OggS", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"))
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (head[:1] == b"G" and head[188:189] == b"G")
        or (head[4:5] == b"G" and head[196:197] == b"G")
    )


# Compared by identity: the fields are arrays.
@dataclass(frozen=True, eq=False)
class Clip:
    """What a video file holds, without its pixels.

    Fields
        path    the file.
        source  how to call it in names and errors: a path or URL.
        size    (height, width) of its frames, upright, with square pixels.
        turns   quarter turns counterclockwise that make its frames upright.
        times   (F,) float64, seconds from the first frame, ascending.
        stamps  (F,) int64, presentation stamps in the stream's time base; None where the container
                has none.
        keys    indices of the frames that decoding can start at; empty where it cannot seek.
    """

    path: str
    source: str
    size: Size
    turns: int
    times: np.ndarray
    stamps: np.ndarray | None
    keys: np.ndarray

    def label(self, index: int) -> str:
        """Where frame ``index`` came from: "clip.mp4@12.40s"."""
        # Hundredths tell frames apart up to 100 a second.
        crowded = len(self.times) > 1 and float(np.diff(self.times).min()) < 0.0101
        return f"{self.source}@{self.times[index]:.{4 if crowded else 2}f}s"

    def at(self, time: float) -> int:
        """Index of the frame nearest to ``time``, in seconds from the first; the earlier of two."""
        after = int(np.searchsorted(self.times, time))
        near = np.clip([after - 1, after], 0, len(self.times) - 1)
        before_by, after_by = np.abs(self.times[near] - time)
        return int(near[0] if before_by <= after_by + 1e-6 else near[1])

    def choose(self, fps: float | None = None, every: int | None = None) -> list[int]:
        """Indices of the frames to use, ascending.

        Args:
            fps: that many a second (all, if the video has no more).
            every: each ``every``-th frame. With neither, two a second, but at most 120, spread
                evenly over the video.

        Raises:
            InputError: both given, or not positive.
        """
        if fps is not None and every is not None:
            raise InputError("fps and every exclude each other: give one of them")
        if (fps is not None and not fps > 0) or (every is not None and every < 1):
            raise InputError("fps and every must be positive")
        count = len(self.times)
        if every is not None:
            return list(range(0, count, every))
        rate = DEFAULT_FPS if fps is None else fps
        ticks = float(self.times[-1]) * rate
        if ticks >= count - 1:
            chosen = list(range(count))
        else:
            chosen = sorted({self.at(tick / rate) for tick in range(int(ticks + 1e-6) + 1)})
        if fps is None and len(chosen) > DEFAULT_MOST:
            spread = np.linspace(0, len(chosen) - 1, DEFAULT_MOST).round().astype(int)
            chosen = [chosen[i] for i in spread]
        return chosen


def probe(path: str, source: str | None = None) -> Clip:
    """Read a video's index: a pass over its packets that decodes the first frame only.

    Raises:
        ImageError: not a video, damaged, without frames, or of frames above 100 megapixels.
        MissingExtraError: PyAV is not installed.
    """
    source = source or path
    with opened(path, source) as (container, stream):
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        container.seek(0)
        first = next(_decoded(container, stream), None)
        if first is None or not packets:
            raise undecodable(source)
        turns = round(first.rotation / 90) % 4
        height, width = square_pixels(first.height, first.width, stream.sample_aspect_ratio)
        timed = all(pts is not None for pts, _ in packets)
        if timed:
            packets.sort()
            stamps = np.array([pts for pts, _ in packets], dtype=np.int64)
            times = (stamps - stamps[0]) * float(stream.time_base)
        else:
            stamps = None
            times = np.arange(len(packets)) / float(stream.average_rate or 25)
        seekable = timed and container.format.name.startswith(_SEEKABLE)
        keys = [i for i, (_, is_key) in enumerate(packets) if is_key] if seekable else []
    if height * width > MAX_PIXELS:
        raise unusable(source, f"has frames of {width}x{height} pixels", "make them smaller first")
    size = (width, height) if turns % 2 else (height, width)
    return Clip(path, source, size, turns, times, stamps, np.array(keys, dtype=np.int64))


def frames(clip: Clip, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames in one pass: yields (index, (H, W, 3) uint8 upright RGB), ascending.

    A frame that the file announces and the decoder does not produce (VP8 hides some) is replaced
    by the next or next but one; without such a one it is left out.

    Raises:
        ImageError: the file cannot be read any more.
    """
    pending = sorted(set(indices))
    height, width = clip.size if clip.turns % 2 == 0 else clip.size[::-1]
    with opened(clip.path, clip.source) as (container, stream):
        index = -1
        while pending:
            keys = clip.keys[(clip.keys > index) & (clip.keys <= pending[0])]
            if len(keys) and clip.stamps is not None:
                container.seek(int(clip.stamps[keys[-1]]), stream=stream)
            for frame in _decoded(container, stream):
                if clip.stamps is None:
                    index += 1
                elif frame.pts is None:
                    continue
                else:
                    index = int(np.searchsorted(clip.stamps, frame.pts, side="right")) - 1
                due = [i for i in pending if i <= index]
                if not due:
                    continue
                pending = pending[len(due) :]
                if index - due[-1] <= 2:
                    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                    yield due[-1], np.ascontiguousarray(np.rot90(pixels, clip.turns))
                if not pending or np.any((clip.keys > index + 1) & (clip.keys <= pending[0])):
                    break
            else:
                return


def undecodable(source: str) -> ImageError:
    """The error that no frame of a video can be decoded."""
    return unusable(source, "is a video without frames that can be decoded", _REENCODE)


@contextmanager
def opened(
    path: str, source: str, remedy: str = _REENCODE, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its first video stream; whatever goes wrong inside is an ImageError.

    Args:
        path: what FFmpeg is to open.
        source: how to call it in errors.
        remedy: what to do about one that cannot be read.
        options: further ones for ``av.open``.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("PyAV", "video", f"reading {source}") from error
    try:
        with av.open(path, **options) as container:
            if not container.streams.video:
                raise unusable(source, "has no video in it", "leave it out")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.EOFError as error:
        raise undecodable(source) from error
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise unusable(source, f"cannot be read as a video ({reason})", remedy) from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames from here on, in display order, without those that are damaged."""
    import av

    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                if not frame.is_corrupt:
                    yield frame
        except av.error.InvalidDataError:
            continue  # a damaged packet; the decoder recovers at the next keyframe


def square_pixels(height: int, width: int, aspect: Any) -> Size:
    """(height, width) on display, of a frame whose stored pixels have this width to height."""
    ratio = float(aspect or 1)
    if ratio > 1:
        return height, round(width * ratio)
    return round(height / ratio), width
