"""The dense head as accelerators take it: linears where tokens are, convolutions where maps are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import dense
from .layers import Normalize, linear, numbered
from .shape import Form


def interpolation_matrix(out: int, size: int) -> Tensor:
    """(out, size) float32 weights of linear interpolation along one axis, corners aligned."""
    at = torch.arange(out, dtype=torch.float64) * ((size - 1) / max(out - 1, 1))
    low = at.floor().clamp(max=max(size - 2, 0)).long()
    share = at - low
    matrix = torch.zeros(out, size, dtype=torch.float64)
    matrix.scatter_(1, low[:, None], 1 - share[:, None])
    matrix.scatter_add_(1, (low + 1).clamp(max=size - 1)[:, None], share[:, None])
    return matrix.float()


class Resize(nn.Module):
    """Bilinear interpolation with aligned corners between two fixed sizes."""

    rows: Tensor
    cols: Tensor

    def __init__(self, size: tuple[int, int], out: tuple[int, int], form: Form):
        super().__init__()
        self.out = out
        self.matmul = form.resize == "matmul"
        if self.matmul:
            self.register_buffer("rows", interpolation_matrix(out[0], size[0]))
            self.register_buffer("cols", interpolation_matrix(out[1], size[1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, *out)."""
        if not self.matmul:
            return F.interpolate(x, size=self.out, mode="bilinear", align_corners=True)
        wide = F.linear(x, self.cols)
        return F.linear(wide.transpose(2, 3), self.rows).transpose(2, 3)


class Spread(nn.Module):
    """A transposed convolution whose kernel is its stride: each cell becomes k x k cells.

    Such cells do not overlap, so it is one linear and a regrouping of its outputs, which needs
    neither an operator that mobile GPUs lack nor a tensor of six dimensions.
    """

    def __init__(self, source: nn.ConvTranspose2d):
        super().__init__()
        self.factor = source.kernel_size[0]
        channels_in, channels_out = source.weight.shape[:2]
        # (in, out, k, k) to ((row, column, out), in).
        weight = source.weight.detach().float().permute(2, 3, 1, 0).reshape(-1, channels_in)
        bias = cast(Tensor, source.bias).detach().float()
        self.linear = linear(weight, bias.repeat(self.factor**2))
        self.channels = channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, h, w, C) to (N, k h, k w, C)."""
        count, rows, cols, _ = x.shape
        k, channels = self.factor, self.channels
        x = self.linear(x.flatten(0, 2)).reshape(count * rows, cols, k, k * channels)
        return x.transpose(1, 2).reshape(count, rows * k, cols * k, channels)


class Fusion(nn.Module):
    """Joins a coarse map with the next finer one and enlarges it."""

    def __init__(
        self, source: dense.Fusion, size: tuple[int, int], out: tuple[int, int], form: Form
    ):
        super().__init__()
        self.joins = hasattr(source, "resConfUnit1")
        if self.joins:
            self.unit1 = source.resConfUnit1
        self.unit2 = source.resConfUnit2
        self.out_conv = source.out_conv
        self.resize = Resize(size, out, form)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """(N, C, h, w) to (N, C, *out)."""
        if finer is not None:
            x = x + self.unit1(finer)
        return self.resize(self.out_conv(self.unit2(x)))


def outputs(source: nn.Conv2d, start: int, stop: int) -> nn.Conv2d:
    """The same convolution for its outputs ``start:stop`` alone; shares its memory."""
    made = nn.Conv2d(
        source.in_channels,
        stop - start,
        cast("tuple[int, int]", source.kernel_size),
        padding=cast("tuple[int, int]", source.padding),
        device="meta",
    )
    made.weight = nn.Parameter(source.weight.detach()[start:stop], requires_grad=False)
    made.bias = nn.Parameter(cast(Tensor, source.bias).detach()[start:stop], requires_grad=False)
    return made


class Enlarge(nn.Module):
    """The last enlargement, to the size of the picture, with the position embedding of its pixels.

    Half of the embedding's channels depend on the column alone, half on the row alone. Computed in
    halves, so that the tables stay two lines; a converter folds their sum into a constant as large
    as the map.
    """

    cols: Tensor
    rows: Tensor

    def __init__(
        self,
        source: nn.Conv2d,
        size: tuple[int, int],
        out: tuple[int, int],
        form: Form,
    ):
        super().__init__()
        channels = source.out_channels
        half = channels // 2
        self.left, self.right = outputs(source, 0, half), outputs(source, half, channels)
        self.resize = Resize(size, out, form)
        table = dense.add_position(torch.zeros(1, channels, *out), out[1] / out[0])
        self.register_buffer("cols", table[:, :half, :1].clone())
        self.register_buffer("rows", table[:, half:, :, :1].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', *out)."""
        left, right = self.resize(self.left(x)), self.resize(self.right(x))
        return torch.cat([left + self.cols, right + self.rows], dim=1)


class DenseHead(nn.Module):
    """Four taps of patch tokens to depth, and its confidence if wanted."""

    def __init__(self, source: dense.DenseHead, rows: int, cols: int, confidence: bool, form: Form):
        super().__init__()
        if any(parameter.dtype != torch.float32 for parameter in source.parameters()):
            source = copy.deepcopy(source).float()
        self.grid = (rows, cols)
        self.confidence = confidence
        patch, scratch = source.patch_size, source.scratch
        projects = [cast(nn.Conv2d, conv) for conv in source.projects]
        self.norm = Normalize.of(source.norm, form)
        numbered(
            self,
            "project",
            (linear(conv.weight.flatten(1), conv.bias, source.norm) for conv in projects),
        )
        for level, conv in enumerate(projects):
            table = dense.add_position(torch.zeros(1, conv.out_channels, rows, cols), cols / rows)
            self.register_buffer(f"position{level}", table.flatten(2).transpose(1, 2).contiguous())
        four, two, _, half = source.resize_layers
        self.spread4 = Spread(cast(nn.ConvTranspose2d, four))
        self.spread2 = Spread(cast(nn.ConvTranspose2d, two))
        self.shrink = half
        numbered(self, "adapt", (getattr(scratch, f"layer{level}_rn") for level in range(1, 5)))
        halved = ((rows + 1) // 2, (cols + 1) // 2)
        sizes = [(8 * rows, 8 * cols), (4 * rows, 4 * cols), (2 * rows, 2 * cols), self.grid]
        sizes.append(halved)
        fusions = (
            Fusion(getattr(scratch, f"refinenet{level}"), sizes[level], sizes[level - 1], form)
            for level in range(1, 5)
        )
        numbered(self, "fusion", fusions)
        self.enlarge = Enlarge(scratch.output_conv1, sizes[0], (rows * patch, cols * patch), form)
        self.output_conv = scratch.output_conv2[0]
        last = cast(nn.Conv2d, scratch.output_conv2[2])
        self.depth = outputs(last, 0, 1)
        if confidence:
            self.certainty = outputs(last, 1, 2)

    def maps(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (V, features, h, w), fine to coarse."""
        found = []
        for level, tap in enumerate(taps):
            x = self.get_submodule(f"project{level}")(self.norm(tap.flatten(0, 1))).unflatten(
                0, tap.shape[:2]
            )
            x = (x + getattr(self, f"position{level}")).unflatten(1, self.grid)
            if level < 2:
                x = (self.spread4, self.spread2)[level](x)
            x = x.permute(0, 3, 1, 2)
            found.append(self.get_submodule(f"adapt{level}")(self.shrink(x) if level == 3 else x))
        return found

    def forward(self, *taps: Tensor) -> tuple[Tensor, ...]:
        """Four (V, rows * cols, 2 * width) taps to (V, H, W, 1) depth and confidence."""
        fine = self.maps(taps)
        x = self.get_submodule("fusion3")(fine[3])
        for level in (2, 1, 0):
            x = self.get_submodule(f"fusion{level}")(x, fine[level])
        x = F.relu(self.output_conv(self.enlarge(x)))
        depth = self.depth(x).exp().permute(0, 2, 3, 1)
        if not self.confidence:
            return (depth,)
        return depth, (self.certainty(x).exp() + 1.0).permute(0, 2, 3, 1)
