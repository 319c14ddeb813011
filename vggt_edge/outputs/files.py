"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; it becomes ``path``, or is removed on failure.

    The folder is made if need be, and the temporary name keeps the suffix of ``path``, since some
    libraries choose the format by it. ``os.replace`` within one folder is atomic: a reader sees the
    old file or the new one. Ctrl-C removes the temporary file too.

    Raises:
        OutputError: the folder cannot be made or written, the disk is full or ``path`` is a folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}; choose another folder or free some space"
        ) from error
