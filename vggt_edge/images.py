"""Pictures and video to ``Views``, and back from a view to its picture at full resolution."""

from __future__ import annotations

import itertools
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import pictures, sources, video
from .errors import InputError, TooLargeError
from .hardware import CPU, available_memory
from .pictures import unusable
from .preprocess import Placement, Size, place
from .types import Views


@dataclass(frozen=True)
class _Shot:
    """One view to be: a still picture, or frame ``index`` of ``clip``."""

    origin: sources.Source
    size: Size
    clip: video.Clip | None = None
    index: int = 0

    @property
    def source(self) -> str:
        return self.clip.label(self.index) if self.clip else self.origin.source

    @property
    def name(self) -> str:
        stem = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", self.origin.stem)
        return f"{stem}_{self.index:06d}" if self.clip else stem


def read_views(
    inputs: str | Path | Sequence[str | Path],
    *,
    size: int = 518,
    mode: str = "keep",
    patch: int = 14,
    fps: float | None = None,
    every: int | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Views:
    """Read pictures and videos as the network sees them.

    Pictures are decoded one at a time a thread, straight to the size of their view.

    Args:
        inputs: one or many of: a folder, a glob, an image, a video, an http(s) URL of either.
            A folder stands for its images in natural order, else for those in its ``images``
            sub-folder, else for its videos.
        size: the longer side of a view in pixels (the width, in mode "crop"); a multiple of
            ``patch``.
        mode: "keep" keeps the aspect ratio, to the nearest multiples of the patch, at about the
            same area for every shape; "crop" and "pad" are those of VGGT's reference loader, pixel
            for pixel. See ``preprocess``.
        patch: the network's patch size.
        fps: frames a second to take from videos. By default two, but at most 120 a video.
        every: take each ``every``-th frame of videos, instead of ``fps``.
        limit: at most so many views, spread evenly over all inputs.
        progress: show a bar for work over two seconds, if standard error is a terminal.

    Returns:
        Views in the order of the inputs. Frames of a video are named ``clip_000012`` by their
        number, their source is "clip.mp4@0.40s".

    Raises:
        ImageError: an input that cannot be used; the message names it and the way out.
        InputError: arguments that make no sense.
        MissingExtraError: a video without PyAV, or HEIC without pillow-heif.
        TooLargeError: the views do not fit in memory.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no views: give 1 or more")
    progress = progress and sys.stderr.isatty()
    place([(size, size)], mode, size, patch)  # bad arguments fail before any file is touched
    with pictures.quiet(), tempfile.TemporaryDirectory(prefix="vggt-edge-") as folder:
        shots = _shots(sources.expand(inputs, folder, progress), fps, every)
        if limit is not None and len(shots) > limit:
            shots = [shots[i] for i in np.linspace(0, len(shots) - 1, limit).round().astype(int)]
        placements = place([shot.size for shot in shots], mode, size, patch)
        for shot, placement in zip(shots, placements, strict=True):
            if placement.resized[0] > pictures.MAX_PIXELS // placement.resized[1]:
                raise unusable(
                    shot.source, f"is too tall and narrow for mode {mode!r}", "use mode='keep'"
                )
        images = _white(len(shots), placements[0].view)
        read = []
        with tqdm(
            total=len(shots),
            desc="read",
            unit="view",
            delay=2,
            leave=False,
            disable=not progress,
        ) as bar:
            for position in _read_all(shots, placements, images, exact=mode != "keep"):
                read.append(position)
                bar.update()
    return _views(shots, placements, images, sorted(read))


def check_inputs(inputs: str | Path | Sequence[str | Path]) -> None:
    """Say what is wrong with paths, folders and globs, before time is spent on anything else.

    Downloads nothing and opens no picture.

    Raises:
        ImageError: an input that does not exist, matches nothing or holds no images.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    local = [one for one in given if not sources.is_url(str(one))]
    if local or not given:
        sources.expand(local, folder="")


def load_source(source: str) -> np.ndarray:
    """(H, W, 3) uint8: the upright RGB picture, at full resolution, that a view came from.

    Args:
        source: one of ``Views.sources``: a path, a URL, or "clip.mp4@12.40s".

    Raises:
        ImageError: it is gone or cannot be read.
    """
    with closing(load_sources([source])) as loaded:
        return next(loaded)


def load_sources(wanted: Iterable[str]) -> Generator[np.ndarray, None, None]:
    """``load_source`` of each in turn, decoding or fetching a video once for a run of its frames.

    Raises:
        ImageError: one is gone or cannot be read.
    """
    for (origin, timed), group in itertools.groupby(wanted, key=_origin):
        with tempfile.TemporaryDirectory(prefix="vggt-edge-") as folder:
            path = sources.download(origin, folder).path if sources.is_url(origin) else origin
            if timed:
                yield from _load_frames(path, origin, [_time(source) for source in group])
                continue
            with pictures.quiet():
                picture = pictures.read(path, origin)[0]
            for _ in group:
                yield np.array(picture)


_TIMED = re.compile(r"(.+)@(\d+(?:\.\d+)?)s", re.DOTALL)


def _origin(source: str) -> tuple[str, bool]:
    """The file or URL of a source, and whether the source is a frame of it."""
    match = _TIMED.fullmatch(source)
    return (match[1], True) if match and not os.path.exists(source) else (source, False)


def _time(source: str) -> float:
    match = _TIMED.fullmatch(source)
    return float(match[2]) if match else 0.0


def _load_frames(path: str, origin: str, times: list[float]) -> Iterator[np.ndarray]:
    clip = video.probe(path, origin)
    indices = [clip.at(time) for time in times]
    # Runs of ascending frames are decoded in one pass each.
    starts = [0, *(i for i in range(1, len(indices)) if indices[i] <= indices[i - 1])]
    for start, end in itertools.zip_longest(starts, starts[1:]):
        run = indices[start:end]
        decoded = video.frames(clip, run)
        for index in run:
            found, picture = next(decoded, (-1, np.empty(0)))
            if found != index:
                raise unusable(clip.label(index), "cannot be decoded", "leave that frame out")
            yield picture


def _shots(files: list[sources.Source], fps: float | None, every: int | None) -> list[_Shot]:
    shots = []
    for file in files:
        if file.is_video:
            clip = video.probe(file.path, file.source)
            shots += [_Shot(file, clip.size, clip, i) for i in clip.choose(fps, every)]
        else:
            shots.append(_Shot(file, pictures.size_of(file.path, file.source)))
    return shots


def _white(count: int, size: Size) -> np.ndarray:
    """(count, H, W, 3) uint8 views, white all over."""
    needed, free = count * size[0] * size[1] * 3, available_memory(CPU)
    if needed > 0.8 * free:
        raise TooLargeError(
            f"{count} views of {size[1]}x{size[0]} need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB "
            "are free: use fewer (limit=, fps=, every=) or a smaller size"
        )
    return np.full((count, *size, 3), 255, dtype=np.uint8)


def _read_all(
    shots: list[_Shot], placements: list[Placement], images: np.ndarray, exact: bool
) -> Iterator[int]:
    """Draw every shot into its view; yields the positions of those that could be decoded.

    ``exact`` forbids decoding JPEGs at a fraction of their size.
    """

    def draw_still(position: int) -> int:
        file, placement = shots[position].origin, placements[position]
        # Twice the target leaves the final resize enough to be a good low-pass filter.
        at_least = None if exact else (2 * placement.resized[0], 2 * placement.resized[1])
        picture, box = pictures.read(file.path, file.source, at_least)
        placement.draw(picture, images[position], box)
        return position

    stills = [position for position, shot in enumerate(shots) if shot.clip is None]
    if stills:
        # Together the threads hold no more than one picture of the largest permitted size.
        largest = max(shots[position].size[0] * shots[position].size[1] for position in stills)
        workers = max(1, min(4, os.cpu_count() or 1, pictures.MAX_PIXELS // largest))
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(draw_still, stills)

    clips: dict[video.Clip, dict[int, int]] = {}
    for position, shot in enumerate(shots):
        if shot.clip is not None:
            clips.setdefault(shot.clip, {})[shot.index] = position
    for clip, positions in clips.items():
        found = 0
        for index, pixels in video.frames(clip, list(positions)):
            position = positions[index]
            placements[position].draw(Image.fromarray(pixels), images[position])
            found += 1
            yield position
        if found == 0:
            raise video.undecodable(clip.source)
        if found < len(positions):
            warnings.warn(
                f"{clip.source}: {len(positions) - found} of {len(positions)} frames are damaged "
                "and were left out",
                stacklevel=3,
            )


def _views(
    shots: list[_Shot], placements: list[Placement], images: np.ndarray, read: list[int]
) -> Views:
    if len(read) < len(shots):
        images = images[read]
    kept = [(shots[position], placements[position]) for position in read]
    return Views(
        images=images,
        names=_unique([shot.name for shot, _ in kept]),
        sources=tuple(shot.source for shot, _ in kept),
        source_sizes=np.array([placement.source for _, placement in kept]),
        source_from_view=np.stack([placement.source_from_view for _, placement in kept]),
        valid=np.array([placement.valid for _, placement in kept]),
    )


def _unique(names: list[str]) -> tuple[str, ...]:
    """The names, later ones with a suffix where they repeat an earlier one, ignoring case."""
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    unique = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in (seen if count == 1 else taken):
            count += 1
            candidate = f"{name}_{count}"
        seen.add(candidate.casefold())
        taken.add(candidate.casefold())
        unique.append(candidate)
    return tuple(unique)
