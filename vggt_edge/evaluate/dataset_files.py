"""Files of published datasets, read as data only; whatever is wrong with one is one clear line.

Functions that turn numbers into cameras raise ValueError; ``parsing`` puts the file's name to it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import pictures
from ..errors import InputError
from .datasets import Dataset

JSON_LIMIT = 4 << 30
# OSError: a name out of a file may be none that the system knows.
_ODD_CONTENT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError)
SAFE_NAME = re.compile(r"(?!\.)[\w.+-]+")


def check_root(dataset: Dataset, root: str | Path, split: str) -> Path:
    """The root as a path.

    Raises:
        InputError: it is no folder, or the dataset has no such split.
    """
    root = Path(root).expanduser()
    if split not in dataset.splits:
        raise InputError(
            f"{dataset.name} has no split {split!r}; there are {', '.join(dataset.splits)}"
        )
    if not root.is_dir():
        state = "is a file, not a folder" if root.exists() else "does not exist"
        raise wrong_root(dataset, root, state)
    return root


def wrong_root(dataset: Dataset, root: Path, problem: str) -> InputError:
    """The error that ``root`` has ``problem``, with what to fetch and where from."""
    return InputError(_one_line(f"{root} {problem}. {dataset.title}: {dataset.fetch}"))


def malformed(path: Path, problem: str) -> InputError:
    """The error that the file at ``path`` is not what its format says."""
    return InputError(_one_line(f"{path}: {problem}; fetch or export it again"))


def safe_name(text: str) -> str:
    """``text`` as a name of a recording: letters, digits and ``_.+-``, no dot at the front."""
    return re.sub(r"[^\w.+-]", "_", text).lstrip(".") or "scene"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turn what parsing of odd content raises into an InputError: ``path`` is not ``what``."""
    try:
        yield
    except _ODD_CONTENT as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise malformed(path, f"not {what} ({reason[:160]})") from None


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the download") from None


def read_text(path: Path) -> str:
    """A UTF-8 file's content.

    Raises:
        InputError: it cannot be read or is not text.
    """
    with parsing(path, "text"):
        return read_bytes(path).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """A JSON file's content, through gzip when the name ends in .jgz or .gz.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    data = read_bytes(path)
    if path.suffix in (".jgz", ".gz"):
        decompress = zlib.decompressobj(wbits=31)
        try:
            data = decompress.decompress(data, JSON_LIMIT)
        except zlib.error:
            raise malformed(path, "not gzip, or damaged") from None
        if not decompress.eof:
            raise malformed(path, "the gzip stream is cut off or implausibly large")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise malformed(path, f"not JSON ({str(error)[:160]})") from None


def read_gray(path: Path, formats: tuple[str, ...] = ("PNG",)) -> np.ndarray:
    """(H, W) values of a one-channel picture, as stored: 16 bits stay 16 bits.

    Raises:
        InputError: it cannot be read, has more channels or above 100 megapixels.
    """
    pictures.size_of(str(path))
    with parsing(path, "a grey picture"):
        try:
            with Image.open(path, formats=formats) as image:
                if len(image.getbands()) != 1 or image.mode == "P":
                    raise ValueError(f"its mode is {image.mode}")
                return np.array(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(str(error)) from None


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of an upright picture, from its header.

    Raises:
        ImageError: there is none, or it is damaged.
    """
    return pictures.size_of(str(path))


def numbers(values: object, *shape: int) -> np.ndarray:
    """``values`` as finite float64 of exactly this shape.

    Raises:
        ValueError: they are not.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{' x '.join(map(str, shape))} finite numbers are needed")
    return array


def rigid(matrix: object) -> np.ndarray:
    """(3, 4) ``[R|t]`` of a 3x4 or 4x4 matrix whose rotation is one, up to the digits of a text.

    Raises:
        ValueError: it is no such matrix.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    if rows.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"a pose has the shape {rows.shape}, not 3x4 or 4x4")
    pose = numbers(rows[:3], 3, 4)
    rotation = pose[:, :3]
    # The limits keep the products below from overflowing.
    if np.abs(rotation).max() > 2 or np.abs(pose).max() > 1e15:
        raise ValueError("a pose holds implausibly large numbers")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0:
        raise ValueError("the 3x3 part of a pose is not a rotation")
    u, _, vt = np.linalg.svd(rotation)
    return np.concatenate([u @ vt, pose[:, 3:]], axis=1)


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """(3, 3) intrinsics, from a principal point that counts from the picture's corner.

    Raises:
        ValueError: these are no pinhole camera.
    """
    fx, fy, cx, cy = numbers([fx, fy, cx, cy], 4).tolist()
    if not (0 < fx < 1e9 and 0 < fy < 1e9 and max(abs(cx), abs(cy)) < 1e9):
        raise ValueError(f"a camera of focal length {fx:g}, {fy:g} and centre {cx:g}, {cy:g}")
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


def resized(
    intrinsics: np.ndarray, declared: tuple[int, int], stored: tuple[int, int]
) -> np.ndarray:
    """Intrinsics of a picture of (height, width) ``declared``, for its copy of size ``stored``.

    Raises:
        ValueError: the two have not the same shape.
    """
    if declared == stored:
        return intrinsics
    y, x = stored[0] / declared[0], stored[1] / declared[1]
    if abs(y * declared[1] - x * declared[1]) > 2 or abs(y * declared[0] - x * declared[0]) > 2:
        raise ValueError(
            f"its camera is for {declared[1]}x{declared[0]} pixels, "
            f"but the picture has {stored[1]}x{stored[0]}"
        )
    scale = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    scaled: np.ndarray = scale @ intrinsics
    return scaled
