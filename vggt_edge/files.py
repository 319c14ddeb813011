"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor


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


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file by ``replacing``, with the rights of any other new file.

    Args:
        path: of the file.
        tensors: contiguous, and no two of one memory.
        metadata: for the file's head.

    Raises:
        OutputError: as ``replacing``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            # safetensors makes files that only their owner may read.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(dict(tensors), temporary, metadata=dict(metadata) if metadata else None)
            temporary.chmod(mode)
    except SafetensorError as error:  # what safetensors makes of a full disk; no OSError
        reason = " ".join(str(error).split())
        raise OutputError(
            f"cannot write {path}: {reason}; choose another folder or free some space"
        ) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: str | Path) -> None:
    """Refuse, before the work, a folder that ``replacing`` could not write into. Makes nothing.

    Raises:
        OutputError: something on the way to it is a file, or it cannot be written.
    """
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise OutputError(f"cannot write {folder}: {place} is no folder; choose another one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {folder}: {place} is read-only; choose another folder")
