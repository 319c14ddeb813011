"""The full-size pictures views were made from, as files that every trainer reads."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..files import replacing
from ..images import load_sources
from ..pictures import quiet
from ..types import Views

_ORIENTATION = 274
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".gif")


def write(
    views: Views, folder: str | Path, *, link: bool = False, spaces: bool = True
) -> tuple[str, ...]:
    """Write the upright source picture of every view into ``folder``; returns the files' names.

    An upright 8-bit JPEG or PNG without transparency is copied byte for byte. What trainers read
    wrongly or not at all is decoded and written anew: pictures stored turned, HEIC, 16 bits,
    transparency, video frames, downloads. A picture that already lies in ``folder`` stays as it is,
    and no source is ever overwritten. No two files have the same name, capitals aside.

    Args:
        views: their sources must still be there, unless a view is its own source, as from
            ``Views.from_images``.
        folder: made if need be.
        link: make hard links instead of copies where the file system can. They take no space, but
            whoever edits one in place edits the original.
        spaces: leave white space in names; False makes it underscores.

    Raises:
        ImageError: a source has gone or cannot be read any more.
        OutputError: a file cannot be written.
    """
    folder = Path(folder)
    names = _Names(folder, views.sources)
    files, decoded = [], []
    for i, (name, source) in enumerate(zip(views.names, views.sources, strict=True)):
        own = Path(source).suffix if os.path.isfile(source) else ""
        stem = name.removesuffix(own)
        if not spaces:
            stem = re.sub(r"\s", "_", stem)
        if _readable_by_all(source):
            file = names.take_place(stem + own, source)
            if file is None:
                file = names.free(stem, own)
                _copy(source, folder / file, link)
        elif not os.path.exists(source) and _is_its_own_source(views, i):
            file = names.free(stem.removesuffix(".png"), ".png")
            _save(views.images[i], folder / file)
        else:
            file = names.free(stem, ".png" if own.lower() in _LOSSLESS else ".jpg")
            decoded.append((source, folder / file))
        files.append(file)
    loaded = load_sources([source for source, _ in decoded])
    for picture, (_, path) in zip(loaded, decoded, strict=True):
        _save(picture, path)
    return tuple(files)


class _Names:
    """File names in a folder that are neither a source's nor given twice, on any file system."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.folder = folder
        self.originals = {self._place(source) for source in sources}
        self.given: set[str] = set()

    def take_place(self, name: str, source: str) -> str | None:
        """The name, if it is where the source already lies; None if it is not or is given."""
        same = os.path.realpath(self.folder / name) == os.path.realpath(source)
        if not same or name.casefold() in self.given:
            return None
        self.given.add(name.casefold())
        return name

    def free(self, stem: str, suffix: str) -> str:
        """A name as like ``stem + suffix`` as can be."""
        if self._place(self.folder / (stem + suffix)) in self.originals:
            stem += "_upright"
        name, number = stem + suffix, 1
        while name.casefold() in self.given or self._place(self.folder / name) in self.originals:
            number += 1
            name = f"{stem}_{number}{suffix}"
        self.given.add(name.casefold())
        return name

    @staticmethod
    def _place(path: str | Path) -> str:
        return os.path.realpath(path).casefold()


def _readable_by_all(source: str) -> bool:
    """Whether a file, as it is, looks the same to every reader."""
    try:
        with quiet(), Image.open(source, formats=("JPEG", "PNG")) as image:
            return (
                image.mode in ("RGB", "L")
                and "transparency" not in image.info
                and image.getexif().get(_ORIENTATION, 1) == 1
            )
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return False  # load_sources reads it, or says what is wrong


def _is_its_own_source(views: Views, index: int) -> bool:
    same_pixels = np.array_equal(views.source_from_view[index], np.eye(3))
    return same_pixels and tuple(views.source_sizes[index]) == views.size


def _copy(source: str, path: Path, link: bool) -> None:
    with replacing(path) as temporary:
        if link:
            try:
                os.link(os.path.realpath(source), temporary)
                return
            except OSError:
                pass  # another disk, or a file system without links
        shutil.copyfile(source, temporary)


def _save(picture: np.ndarray, path: Path) -> None:
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, quality=95, subsampling=0)
