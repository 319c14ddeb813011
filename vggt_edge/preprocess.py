"""Where a picture lies in its view, to the pixel. Pure arithmetic and one resize; no files.

Three modes turn pictures of any shape into views of one shape.

``crop``, ``pad``
    The two modes of VGGT's reference loader, pixel for pixel. ``crop`` makes every picture ``size``
    wide, rounds its height to the patch and cuts what exceeds ``size`` from top and bottom alike.
    ``pad`` makes the longer side ``size``, rounds the other to the patch and pads to a square.
``keep``
    The whole picture at the multiples of the patch nearest to its aspect ratio: the longer side is
    at most ``size`` and the area at most that of a 4:3 picture with that side, so every picture
    costs about the same (at 518: 4:3 is 518x392, square 448x448, 16:9 518x294, a panorama 518
    wide). A set of several shapes takes the shape most of its pictures have; on a tie, the one
    nearest to the median aspect ratio. The others are fitted inside, keeping their aspect ratio.

Padding is white and splits evenly, the odd row or column going to the bottom or right.
Sizes are (height, width) everywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .errors import InputError

MODES = ("keep", "crop", "pad")

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """A picture of size ``source``, resized to ``resized``, with its corner at ``offset``.

    Fields
        source   (height, width) of the upright source picture.
        resized  (height, width) it is resized to.
        offset   (top, left) of the resized picture in the view; negative where it is cropped.
        view     (height, width) of the view.
    """

    source: Size
    resized: Size
    offset: Size
    view: Size

    @property
    def valid(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right), end-exclusive: the part of the view that shows picture."""
        (top, left), (height, width) = self.offset, self.resized
        return (
            max(top, 0),
            max(left, 0),
            min(top + height, self.view[0]),
            min(left + width, self.view[1]),
        )

    @property
    def source_from_view(self) -> np.ndarray:
        """(3, 3) float64: view pixels to source pixels, integers at pixel centres.

        Pixel *edges* map to pixel edges under a resize, hence the halves.
        """
        scale_v, scale_u = (s / r for s, r in zip(self.source, self.resized, strict=True))
        top, left = self.offset
        return np.array(
            [
                [scale_u, 0.0, (0.5 - left) * scale_u - 0.5],
                [0.0, scale_v, (0.5 - top) * scale_v - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )

    def draw(self, picture: Image.Image, view: np.ndarray, box: Box | None = None) -> None:
        """Resize an RGB picture (bicubic, antialiased) into a white (H, W, 3) uint8 ``view``.

        Args:
            picture: the upright picture, at any resolution.
            view: written in place.
            box: (left, top, right, bottom) of the picture's extent in its own pixels, for a JPEG
                decoded at a fraction of its size whose last row or column is not whole.
        """
        height, width = self.resized
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))
        top, left, bottom, right = self.valid
        dy, dx = self.offset
        view[top:bottom, left:right] = pixels[top - dy : bottom - dy, left - dx : right - dx]


def place(sizes: Sequence[Size], mode: str, size: int, patch: int) -> list[Placement]:
    """One placement a picture, all with the same view size.

    Args:
        sizes: (height, width) of each upright source picture; at least one.
        mode: "keep", "crop" or "pad"; see the module.
        size: the longer side of a view (the width, in mode "crop"); a multiple of ``patch``.
        patch: the network's patch size.

    Raises:
        InputError: an unknown mode, or a size that is not a multiple of the patch.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    if patch < 1 or size < patch or size % patch:
        below = max(size // max(patch, 1), 1) * patch
        raise InputError(
            f"size={size} is not a multiple of the patch size {patch}: "
            f"try {below} or {below + patch}"
        )
    if mode == "keep":
        return _place_keep(sizes, size, patch)
    one = _crop if mode == "crop" else _pad
    return _pad_to_largest([one(source, size, patch) for source in sizes])


def _crop(source: Size, size: int, patch: int) -> Placement:
    height, width = source
    # The order of operations decides ties of the rounding, so it is the reference's; the maximum
    # is ours: the reference fails on a picture more than 2 * size / patch times as wide as high.
    new_height = max(round(height * (size / width) / patch) * patch, patch)
    cut = max(new_height - size, 0)
    return Placement(source, (new_height, size), (-(cut // 2), 0), (new_height - cut, size))


def _pad(source: Size, size: int, patch: int) -> Placement:
    height, width = source
    if width >= height:
        resized = (max(round(height * (size / width) / patch) * patch, patch), size)
    else:
        resized = (size, max(round(width * (size / height) / patch) * patch, patch))
    return _centred(source, resized, (size, size))


def _pad_to_largest(placements: list[Placement]) -> list[Placement]:
    height = max(p.view[0] for p in placements)
    width = max(p.view[1] for p in placements)
    return [
        replace(
            p,
            offset=(
                p.offset[0] + (height - p.view[0]) // 2,
                p.offset[1] + (width - p.view[1]) // 2,
            ),
            view=(height, width),
        )
        for p in placements
    ]


def _place_keep(sizes: Sequence[Size], size: int, patch: int) -> list[Placement]:
    targets = [keep_size(source, size, patch) for source in sizes]
    counts = Counter(targets)
    most = max(counts.values())
    median = float(np.median([math.log(width / height) for height, width in sizes]))
    common = min(
        (target for target, count in counts.items() if count == most),
        key=lambda target: abs(math.log(target[1] / target[0]) - median),
    )
    placements = []
    for source, target in zip(sizes, targets, strict=True):
        resized = common if target == common else _fit_inside(source, common)
        placements.append(_centred(source, resized, common))
    return placements


def keep_size(source: Size, size: int = 518, patch: int = 14) -> Size:
    """The (height, width) of the view of a single picture of size ``source`` in mode "keep"."""
    longest = size // patch
    budget = longest * max(1, round(longest * 3 / 4))
    aspect = max(source) / min(source)
    long = min(longest, math.floor(math.sqrt(budget * aspect)))
    while long * round(long / aspect) > budget:
        long -= 1
    short = max(1, round(long / aspect))
    rows, cols = (long, short) if source[0] > source[1] else (short, long)
    return rows * patch, cols * patch


def _fit_inside(source: Size, view: Size) -> Size:
    scale = min(view[0] / source[0], view[1] / source[1])
    return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))


def _centred(source: Size, resized: Size, view: Size) -> Placement:
    offset = ((view[0] - resized[0]) // 2, (view[1] - resized[1]) // 2)
    return Placement(source, resized, offset, view)
