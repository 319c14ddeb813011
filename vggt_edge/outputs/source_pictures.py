"""The full-size pictures views were made from, as files that every trainer reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..files import replacing
from ..images import load_sources
from ..pictures import quiet
from ..types import Views

_ORIENTATION = 274
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".gif")


def write(views: Views, folder: str | Path, *, link: bool = False) -> tuple[str, ...]:
    """Write the upright source picture of every view into ``folder``; returns the files' names.

    An upright 8-bit JPEG or PNG without transparency is copied byte for byte. What trainers read
    wrongly or not at all is decoded and written anew: pictures stored turned, HEIC, 16 bits,
    transparency, video frames, downloads. A picture that already lies in ``folder`` stays as it is,
    and no source is ever overwritten.

    Args:
        views: their sources must still be there, unless a view is its own source, as from
            ``Views.from_images``.
        folder: made if need be.
        link: make hard links instead of copies where the file system can. They take no space, but
            whoever edits one in place edits the original.

    Raises:
        ImageError: a source has gone or cannot be read any more.
        OutputError: a file cannot be written.
    """
    folder = Path(folder)
    originals = {os.path.realpath(source) for source in views.sources}
    names, decoded = [], []
    for i, (name, source) in enumerate(zip(views.names, views.sources, strict=True)):
        suffix = Path(source).suffix.lower() if os.path.isfile(source) else ""
        stem = name.removesuffix(Path(source).suffix) if suffix else name
        if _readable_by_all(source):
            file = stem + Path(source).suffix
            if os.path.realpath(folder / file) != os.path.realpath(source):
                file = _free(folder, stem, Path(source).suffix, originals)
                _copy(source, folder / file, link)
        elif not os.path.exists(source) and _is_its_own_source(views, i):
            file = _free(folder, name.removesuffix(".png"), ".png", originals)
            _save(views.images[i], folder / file)
        else:
            file = _free(folder, stem, ".png" if suffix in _LOSSLESS else ".jpg", originals)
            decoded.append((source, folder / file))
        names.append(file)
    loaded = load_sources([source for source, _ in decoded])
    for picture, (_, path) in zip(loaded, decoded, strict=True):
        _save(picture, path)
    return tuple(names)


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


def _free(folder: Path, stem: str, suffix: str, originals: set[str]) -> str:
    while os.path.realpath(folder / (stem + suffix)) in originals:
        stem += "_upright"
    return stem + suffix


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
