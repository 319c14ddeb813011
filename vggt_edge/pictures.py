"""Still pictures of any common format to upright 8-bit RGB, or one clear error.

Every format comes out the same way: EXIF orientation applied, transparency composited on white,
16 bits scaled to 8, palettes, grey and CMYK converted, the first frame of an animation.
"""

from __future__ import annotations

import functools
import importlib
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .errors import ImageError, MissingExtraError
from .preprocess import Box, Size

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp"]
    + [".gif", ".ppm", ".pgm", ".avif", ".heic", ".heif"]
)
MAX_PIXELS = 100_000_000

# Only these: Pillow would otherwise also try formats that start other programs (EPS, Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF")
_PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Tiff", "Bmp", "Gif", "Ppm", "Avif")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow and its plugins raise on damaged data.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    EOFError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def unusable(source: str, problem: str, remedy: str) -> ImageError:
    """The error that ``source`` has ``problem``, in one line whatever the name or message holds."""
    return ImageError(re.sub(r"[\x00-\x1f\x7f]+", " ", f"{source}: {problem}; {remedy}"))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings (large pictures, odd EXIF, unidentified files).

    Filters are global, so this belongs around all of the reading, not inside its threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def size_of(path: str, source: str | None = None) -> Size:
    """(height, width) of the upright picture, from the file's header alone.

    Args:
        path: the file.
        source: how to call it in an error; ``path`` when None.

    Raises:
        ImageError: not a picture, damaged, or above 100 megapixels.
        MissingExtraError: HEIC without pillow-heif.
    """
    with _opened(path, source or path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def gps_of(path: str, source: str | None = None) -> dict[int, Any]:
    """The EXIF GPS tags of a picture by their number, undecoded; empty when it has none.

    Args:
        path: the file.
        source: how to call it in an error; ``path`` when None.

    Raises:
        ImageError: not a picture, damaged, or above 100 megapixels.
        MissingExtraError: HEIC without pillow-heif.
    """
    with _opened(path, source or path) as image:
        try:
            return dict(Image.Image.getexif(image).get_ifd(ExifTags.IFD.GPSInfo))
        except _DECODE_ERRORS:
            return {}  # damaged metadata beside a picture that may be whole


def read(
    path: str, source: str | None = None, at_least: Size | None = None
) -> tuple[Image.Image, Box]:
    """The upright RGB picture, and its extent (left, top, right, bottom) in its own pixels.

    Args:
        path: the file.
        source: how to call it in an error; ``path`` when None.
        at_least: (height, width) that will do: a JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size, several times faster, if the result is no smaller. Its last row and column may
            reach beyond the picture, which is why the extent is fractional.

    Raises:
        ImageError: not a picture, damaged, of unusable values, or above 100 megapixels.
        MissingExtraError: HEIC without pillow-heif.
    """
    source = source or path
    with _opened(path, source) as image:
        orientation = _orientation(image)
        drafted = None
        # HEIC's draft would be an embedded thumbnail.
        if at_least is not None and image.format in ("JPEG", "MPO"):
            rows, cols = at_least if orientation < 5 else at_least[::-1]
            drafted = image.draft(None, (cols, rows))
        image.load()
        extent = drafted[1][2:] if drafted is not None else image.size
        rgb = _to_rgb(image, source)
        box = _turned_extent(extent, rgb.size, orientation)
        return (rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb), box


@contextmanager
def _opened(path: str, source: str) -> Iterator[Image.Image]:
    """The picture, its header read; whatever goes wrong inside is an ImageError."""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
            if not head:
                raise unusable(source, "is empty (0 bytes)", "copy it again or leave it out")
            if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
                _register_heif(source)
            with Image.open(file, formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(source, f"{image.width}x{image.height} pixels")
                if image.width < 1 or image.height < 1:
                    raise unusable(source, "has no pixels", "leave it out")
                yield image
    except UnidentifiedImageError as error:
        kind = " (it is text)" if _is_text(head) else ""
        raise unusable(
            source,
            f"is not an image{kind}",
            "leave it out, or save it as JPEG, PNG, WebP, TIFF, BMP or HEIC",
        ) from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(
            source, f"{int(pixels[0]) // 10**6} megapixels" if pixels else "too many pixels"
        ) from error
    except _DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unusable(
                source, f"cannot be read ({error.strerror})", "check the file"
            ) from error
        raise unusable(
            source,
            f"is truncated or damaged ({str(error)[:120] or type(error).__name__})",
            "copy it again or leave it out",
        ) from error


def _too_large(source: str, extent: str) -> ImageError:
    return unusable(
        source,
        f"has {extent}, above the limit of {MAX_PIXELS // 10**6} megapixels",
        "make it smaller first (the network sees a few hundred pixels across) or cut it in pieces",
    )


def _formats() -> tuple[str, ...]:
    _load_plugins()
    # AVIF is not in every Pillow; HEIF is there once it is registered.
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.lru_cache(maxsize=1)
def _load_plugins() -> None:
    for name in _PLUGINS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{name}ImagePlugin")


def _register_heif(source: str) -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtraError("pillow-heif", "heif", f"reading {source}") from error
    pillow_heif.register_heif_opener()


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of a picture that Pillow does not turn by itself."""
    try:
        # A PNG's own getexif would decode the whole picture.
        orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DECODE_ERRORS:
        return 1  # damaged metadata beside a picture that may be whole
    if image.format == "TIFF":
        return 1  # Pillow reports and loads it upright
    return orientation if orientation in _TURNS else 1


def _turned_extent(extent: tuple[float, float], stored: Size, orientation: int) -> Box:
    """The extent of a stored picture's (width, height), after it is turned upright.

    The rows and columns beyond the extent are at the right and bottom of the stored picture.
    """
    width, height = extent
    beyond_x, beyond_y = stored[0] - width, stored[1] - height
    left = beyond_x if orientation in (2, 3) else beyond_y if orientation in (6, 7) else 0.0
    top = beyond_y if orientation in (3, 4) else beyond_x if orientation in (7, 8) else 0.0
    if orientation >= 5:
        width, height = height, width
    return left, top, left + width, top + height


def _to_rgb(image: Image.Image, source: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(image, source)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image, source: str) -> np.ndarray:
    """(H, W) uint8 of a grey picture of 16 bits or of floats in [0, 1]."""
    values = np.asarray(image)
    remedy = "convert it to 8 or 16 bits first"
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):  # also refuses NaN
            raise unusable(source, f"holds floats from {low:g} to {high:g}, not 0 to 1", remedy)
        return np.round(values * 255.0).astype(np.uint8)
    # Pillow widens the 16 bits of PNG and PPM to mode "I"; in a TIFF it means 32 bits or signed.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise unusable(source, "holds 32-bit or signed integers", remedy)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
