"""A folder that is still growing, as a source of views without a known end."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .errors import ImageError, InputError
from .images import read_views
from .pictures import SUFFIXES
from .sources import natural_key
from .types import Views

POLL_SECONDS = 0.5


def watch(
    folder: str | Path, *, quiet: float, size: int = 518, mode: str = "keep", patch: int = 14
) -> Iterator[Views]:
    """Views of a folder's pictures, each on its own, and of those that are still to come.

    A picture counts as there once its size has not changed for half a second. Names are the files'
    (``photo.jpg`` is "photo"). A picture that cannot be read, or whose view would have another size
    than the first one's, is left out with a warning; ``mode="pad"`` gives all one size.

    Args:
        folder: it must exist; pictures in it directly.
        quiet: stop when nothing new has come for so many seconds, at least 1.
        size: see ``read_views``, as for the other arguments.

    Raises:
        ImageError: no such folder.
        InputError: so short a ``quiet`` that no picture could be seen twice.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder to watch; make it, or give another")
    if not quiet >= 2 * POLL_SECONDS:
        raise InputError(
            f"quiet must be at least {2 * POLL_SECONDS:g} seconds, got {quiet:g}: a picture counts "
            f"as there once its size has not changed for {POLL_SECONDS:g}"
        )
    sizes: dict[Path, int] = {}
    seen: set[Path] = set()
    names: set[str] = set()
    first: tuple[int, int] | None = None
    last_news = time.monotonic()
    again = True  # what was seen once is looked at once more, however long that took
    while again or time.monotonic() - last_news < quiet:
        again, arrived = False, []
        for path in _pictures(folder):
            if path in seen:
                continue
            try:
                length = path.stat().st_size
            except FileNotFoundError:  # moved away since it was listed
                continue
            if sizes.get(path) == length > 0:
                arrived.append(path)
            elif sizes.get(path) != length:
                sizes[path], last_news, again = length, time.monotonic(), True
        for path in arrived:
            seen.add(path)
            last_news = time.monotonic()
            try:
                views = read_views(path, size=size, mode=mode, patch=patch)
            except ImageError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                continue
            first = first or views.size
            if views.size != first:
                warnings.warn(
                    f"left out: {path} gives views of {views.size[1]}x{views.size[0]}, the first "
                    f"was {first[1]}x{first[0]}; --mode pad gives all one size",
                    stacklevel=2,
                )
                continue
            name = path.stem if path.stem not in names else path.name
            names.add(name)
            yield replace(views, names=(name,))
            last_news = time.monotonic()  # what is done with the view takes its time
        time.sleep(POLL_SECONDS)


def _pictures(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    return sorted(found, key=lambda path: natural_key(path.name))
