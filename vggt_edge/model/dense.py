"""Per-pixel prediction: a DPT head (Ranftl et al., "Vision Transformers for Dense Prediction")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aggregator import Tap
from .layers import Norm


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def add_position(x: Tensor, aspect: float) -> Tensor:
    """Add a tenth of a sinusoidal embedding of normalised image coordinates to (N, C, h, w).

    The image spans [-a, a] x [-b, b] with a / b its aspect ratio and a^2 + b^2 = 1. The first half
    of the channels encodes the column, the second the row, which keeps the table small: (C/2, w)
    and (C/2, h) instead of (C, h, w). Without gradients the sum is written into ``x``.
    """
    channels, rows, cols = x.shape[1:]
    diagonal = (aspect * aspect + 1) ** 0.5
    quarter = channels // 4
    omega = torch.arange(quarter, device="cpu", dtype=torch.float64) / quarter
    omega = 1.0 / 100.0**omega

    def table(span: float, count: int) -> Tensor:
        edge = span * (count - 1) / count
        angles = omega[:, None] * torch.linspace(-edge, edge, count, device="cpu")
        return 0.1 * torch.cat([angles.sin(), angles.cos()]).to(x)

    horizontal = table(aspect / diagonal, cols)[:, None, :].expand(-1, rows, -1)
    vertical = table(1 / diagonal, rows)[:, :, None].expand(-1, -1, cols)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x + torch.cat([horizontal, vertical])
    for half, own in zip(x.chunk(2, dim=1), (horizontal, vertical), strict=True):
        half += own
    return x


class Projection(nn.Conv2d):
    """A convolution that takes float32, whatever its weights are."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h, w)."""
        return super().forward(x.to(self.weight.dtype))


class ResidualUnit(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        # VGGT was trained with an in-place activation, so its skip carries relu(x) and not x.
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class Fusion(nn.Module):
    """Joins a coarse map with the next finer one and doubles its size."""

    def __init__(self, features: int, joins: bool = True):
        super().__init__()
        if joins:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(N, C, h, w) to (N, C, *size)."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        # A 1x1 convolution commutes with bilinear interpolation: done first, it costs a quarter.
        return upsample(self.out_conv(self.resConfUnit2(x)), size)


class Scratch(nn.Module):
    """The decoder; the names are the checkpoint's."""

    refinenet1: Fusion
    refinenet2: Fusion
    refinenet3: Fusion
    refinenet4: Fusion

    def __init__(self, channels: Sequence[int], features: int, outputs: int | None):
        super().__init__()
        for level, count in enumerate(channels, start=1):
            setattr(self, f"layer{level}_rn", nn.Conv2d(count, features, 3, padding=1, bias=False))
            setattr(self, f"refinenet{level}", Fusion(features, joins=level < len(channels)))
        if outputs is None:
            self.output_conv1 = nn.Conv2d(features, features, 3, padding=1)
            return
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, outputs, 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, features or features / 2, 2 h, 2 w) of the finest."""
        fine = [getattr(self, f"layer{i}_rn")(m) for i, m in enumerate(maps, start=1)]
        x = self.refinenet4(fine[3], None, fine[2].shape[-2:])
        x = self.refinenet3(x, fine[2], fine[1].shape[-2:])
        x = self.refinenet2(x, fine[1], fine[0].shape[-2:])
        rows, cols = fine[0].shape[-2:]
        return self.output_conv1(self.refinenet1(x, fine[0], (2 * rows, 2 * cols)))


class DenseHead(nn.Module):
    """Four taps to one map per view.

    With ``outputs`` channels the last one becomes a confidence ``1 + exp(c)`` and the others pass
    through ``activation``; with ``outputs=None`` the features are returned at half resolution.
    """

    def __init__(
        self,
        width: int,
        patch_size: int,
        channels: Sequence[int],
        features: int,
        outputs: int | None,
        position: bool = True,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.outputs = outputs
        self.position = position
        self.norm = Norm(width)
        self.projects = nn.ModuleList(Projection(width, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, features, outputs)

    def features(self, tokens: Sequence[Tensor], rows: int, cols: int) -> Tensor:
        """Four (N, rows * cols, width) token maps to features at the output's resolution."""
        aspect = cols / rows
        maps = []
        for level, x in enumerate(tokens):
            x = self.norm(x).transpose(1, 2).unflatten(2, (rows, cols))
            x = self.projects[level](x)
            if self.position:
                x = add_position(x, aspect)
            maps.append(self.resize_layers[level](x))
        step = self.patch_size if self.outputs else self.patch_size // 2
        x = upsample(self.scratch(maps), (rows * step, cols * step))
        return add_position(x, aspect) if self.position else x

    def raw(self, taps: Sequence[Tap], special: int, grid: tuple[int, int], views: slice) -> Tensor:
        """(B, S', C, h, w) of the chosen views before any activation."""
        tokens = [tap.tokens(views, special).flatten(0, 1) for tap in taps]
        x = self.features(tokens, *grid)
        if self.outputs:
            x = self.scratch.output_conv2(x)
        return x.unflatten(0, (taps[0].frame.shape[0], -1))

    def forward(
        self, taps: Sequence[Tap], special: int, grid: tuple[int, int], chunk: int | None = None
    ) -> Tensor:
        """All views, ``chunk`` of them at a time: (B, S, C, h, w) float32, before activation."""
        views = taps[0].frame.shape[1]
        if chunk is None or chunk >= views:
            return self.raw(taps, special, grid, slice(None)).float()
        first = self.raw(taps, special, grid, slice(0, chunk)).float()
        out = first.new_empty(first.shape[0], views, *first.shape[2:])
        out[:, :chunk] = first
        for start in range(chunk, views, chunk):
            out[:, start : start + chunk] = self.raw(
                taps, special, grid, slice(start, start + chunk)
            )
        return out


def activate_depth(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, 2, H, W) to depth (B, S, H, W, 1) and confidence (B, S, H, W)."""
    return raw[:, :, 0, :, :, None].exp(), 1 + raw[:, :, 1].exp()


def activate_points(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(B, S, 4, H, W) to points (B, S, H, W, 3), ``sign(x) (e^|x| - 1)``, and confidence."""
    points = raw[:, :, :3].permute(0, 1, 3, 4, 2)
    return points.sign() * points.abs().expm1(), 1 + raw[:, :, 3].exp()
