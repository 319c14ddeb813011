"""Every number that distinguishes one VGGT from another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

HEADS = ("camera", "depth", "point", "track")


@dataclass(frozen=True)
class VGGTConfig:
    """Sizes of a VGGT (Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025).

    The defaults are VGGT-1B's. What every VGGT shares (patch normalisation, LayerNorm epsilons,
    activations, MLP ratio 4, first frame apart) is in the code and not a dial.
    """

    image_size: int = 518  # the grid of learned position embeddings is (image_size / patch_size)^2
    patch_size: int = 14
    width: int = 1024  # of encoder and aggregator; the heads read 2 x width
    attention_heads: int = 16  # of encoder and aggregator blocks
    encoder_depth: int = 24
    depth: int = 24  # alternating pairs of a frame and a global block
    registers: int = 4
    taps: tuple[int, ...] = (4, 11, 17, 23)  # pairs whose outputs the dense heads read
    camera_depth: int = 4
    camera_attention_heads: int = 16
    camera_iterations: int = 4
    compensation_tokens: int = 0  # beside the views' camera tokens; see compress/token_filter.py
    dense_features: int = 256
    dense_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    track_features: int = 128
    track_hidden: int = 384
    track_correlation_levels: int = 7
    track_correlation_radius: int = 4
    heads: tuple[str, ...] = HEADS  # the heads this file or model has

    def __post_init__(self) -> None:
        for name in ("taps", "dense_channels", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            if field.name == "heads":
                continue
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("taps", "registers", "compensation_tokens") else 1
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is not int or number < lowest:
                    raise ValueError(
                        f"{field.name} must be whole numbers from {lowest}, got {value!r}"
                    )
        if unknown := set(self.heads) - set(HEADS):
            raise ValueError(f"unknown heads {sorted(unknown)}; known: {', '.join(HEADS)}")
        if len(self.taps) != 4 or len(self.dense_channels) != 4:
            raise ValueError("taps and dense_channels need four entries each")
        if list(self.taps) != sorted(set(self.taps)):
            raise ValueError(f"taps must be increasing block indices, got {self.taps}")
        if self.taps[-1] != self.depth - 1:
            raise ValueError(
                f"the last tap must be the last pair ({self.depth - 1}), got {self.taps[-1]}"
            )
        if self.width % self.attention_heads or (self.width // self.attention_heads) % 4:
            raise ValueError(
                f"width {self.width} must split into {self.attention_heads} heads, "
                "each a multiple of 4 wide"
            )
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of {self.patch_size}")

    @property
    def special_tokens(self) -> int:
        """Camera and register tokens per view."""
        return 1 + self.registers

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> VGGTConfig:
        """Inverse of ``to_dict``; TypeError or ValueError on unknown or impossible fields."""
        return VGGTConfig(**data)


PRESETS = {
    "vggt-1b": VGGTConfig(),
    "pocket": VGGTConfig(
        image_size=224,
        width=256,
        attention_heads=4,
        encoder_depth=2,
        depth=5,
        taps=(1, 2, 3, 4),
        camera_depth=1,
        camera_attention_heads=8,
        dense_features=48,
        dense_channels=(48, 64, 96, 128),
        heads=("camera", "depth"),
    ),
}
