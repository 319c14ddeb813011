"""What is fixed when a network is exported: views, resolution, outputs, form of the mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from ..model.config import VGGTConfig
from ..types import TokenLayout

OUTPUTS = ("depth", "confidence", "pose")
HEAD_OF = {"depth": "depth", "confidence": "depth", "pose": "camera"}


@dataclass(frozen=True)
class Shape:
    """The one input an exported network takes: ``views`` pictures of ``height`` x ``width``."""

    views: int
    height: int
    width: int

    @staticmethod
    def parse(views: int, size: str) -> Shape:
        """From a number of views and a size such as "224x224", HEIGHTxWIDTH.

        Raises:
            InputError: when the size is not two whole numbers.
        """
        parts = size.lower().split("x")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise InputError(f"size {size!r}: give HEIGHTxWIDTH in pixels, such as 224x224")
        return Shape(views, int(parts[0]), int(parts[1]))

    def check(self, config: VGGTConfig) -> None:
        """Refuse what this network cannot take.

        Raises:
            InputError: fewer than one view, or sides that are no multiple of the patch size.
        """
        patch = config.patch_size
        if self.views < 1:
            raise InputError(f"{self.views} views: an exported network takes at least one")
        if self.height % patch or self.width % patch or min(self.height, self.width) < 2 * patch:
            nearest = "x".join(
                str(max(2, round(side / patch)) * patch) for side in (self.height, self.width)
            )
            raise InputError(
                f"size {self.height}x{self.width}: both sides must be multiples of the patch size "
                f"{patch}, from {2 * patch}; the nearest is {nearest}"
            )

    def layout(self, config: VGGTConfig) -> TokenLayout:
        """Arrangement of this input's tokens."""
        patch = config.patch_size
        return TokenLayout(
            self.views, config.special_tokens, self.height // patch, self.width // patch
        )

    def images(self, channels_last: bool) -> tuple[int, int, int, int]:
        """Shape of the input tensor."""
        if channels_last:
            return self.views, self.height, self.width, 3
        return self.views, 3, self.height, self.width

    def __str__(self) -> str:
        return f"{self.views}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Form:
    """Which of several equal ways to write the same network a target takes best.

    Fields
        channels_last  images come as (V, H, W, 3), as cameras and LiteRT have them, not (V, 3, H,
                       W) as torch has them.
        resize         "bilinear" is the operator with aligned corners; "matmul" two constant
                       matrices, for what refuses aligned corners (OpenCL on Mali).
        mean           "reduce" is the operator; "matmul" a product with a constant, for what does
                       not run means over channels (ExecuTorch's XNNPACK: every normalisation would
                       cut its graph in two).
        norm_gain      what normalisation multiplies its input by before squaring it; a power of two
                       such as 1 / 64 where squares and sums are fp16.
    """

    channels_last: bool = False
    resize: Literal["bilinear", "matmul"] = "bilinear"
    mean: Literal["reduce", "matmul"] = "reduce"
    norm_gain: float = 1.0


def check_outputs(outputs: Sequence[str], config: VGGTConfig) -> tuple[str, ...]:
    """The wanted outputs in their fixed order.

    Raises:
        InputError: none, an unknown one, or one whose head the network lacks.
    """
    if unknown := [name for name in outputs if name not in OUTPUTS]:
        raise InputError(f"unknown output {', '.join(unknown)}; known: {', '.join(OUTPUTS)}")
    if not outputs:
        raise InputError(f"no output to export; choose of {', '.join(OUTPUTS)}")
    if absent := [name for name in outputs if HEAD_OF[name] not in config.heads]:
        raise InputError(
            f"the model has no head for {', '.join(absent)}; it has {', '.join(config.heads)}"
        )
    return tuple(name for name in OUTPUTS if name in outputs)
