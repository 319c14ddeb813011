"""The dense head as accelerators take it: linears where tokens are, convolutions where maps are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import dense
from .layers import Norm, linear
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
        bias = torch.zeros(channels_out) if source.bias is None else source.bias.detach().float()
        self.linear = linear(weight, bias.repeat(self.factor**2))
        self.channels = channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, h, w, C) to (N, k h, k w, C)."""
        count, rows, cols, _ = x.shape
        k, channels = self.factor, self.channels
        x = self.linear(x).reshape(count * rows, cols, k, k * channels)
        return x.transpose(1, 2).reshape(count, rows * k, cols * k, channels)


def position_tables(channels: int, size: tuple[int, int], aspect: float) -> tuple[Tensor, Tensor]:
    """The dense head's embedding as (1, C, 1, w) and (1, C, h, 1) tables whose sum it is."""
    rows, cols = size
    table = dense.add_position(torch.zeros(1, channels, rows, cols), aspect)
    half = channels // 2
    horizontal, vertical = table[:, :, :1].clone(), table[:, :, :, :1].clone()
    horizontal[:, half:], vertical[:, :half] = 0, 0
    return horizontal, vertical


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


def channel(source: nn.Conv2d, index: int) -> nn.Conv2d:
    """The 1x1 convolution of one output channel alone."""
    made = nn.Conv2d(source.in_channels, 1, 1, bias=source.bias is not None, device="meta")
    for name in ("weight", "bias"):
        tensor = getattr(source, name)
        if tensor is not None:
            one = tensor.detach()[index : index + 1]
            setattr(made, name, nn.Parameter(one, requires_grad=False))
    return made


class DenseHead(nn.Module):
    """Four taps of patch tokens to depth, and its confidence if wanted."""

    def __init__(self, source: dense.DenseHead, rows: int, cols: int, confidence: bool, form: Form):
        super().__init__()
        self.grid = (rows, cols)
        self.confidence = confidence
        aspect = cols / rows
        patch, scratch = source.patch_size, source.scratch
        self.norm = Norm(source.norm)
        self.projects = nn.ModuleList(
            linear(conv.weight.flatten(1), conv.bias) for conv in source.projects
        )
        for level, conv in enumerate(source.projects):
            horizontal, vertical = position_tables(conv.out_channels, self.grid, aspect)
            table = (horizontal + vertical).flatten(2).transpose(1, 2).contiguous()
            self.register_buffer(f"position{level}", table)
        self.spread4 = Spread(source.resize_layers[0])
        self.spread2 = Spread(source.resize_layers[1])
        self.shrink = source.resize_layers[3]
        self.adapt = nn.ModuleList(getattr(scratch, f"layer{level}_rn") for level in range(1, 5))
        sizes = [(rows * 4, cols * 4), (rows * 2, cols * 2), self.grid]
        sizes.append(((rows + 1) // 2, (cols + 1) // 2))
        finest = (rows * 8, cols * 8)
        outs = [finest, *sizes[:3]]
        self.fusions = nn.ModuleList(
            Fusion(getattr(scratch, f"refinenet{level + 1}"), sizes[level], outs[level], form)
            for level in range(4)
        )
        self.output_conv1 = scratch.output_conv1
        full = (rows * patch, cols * patch)
        self.resize = Resize(finest, full, form)
        # Two small tables and not their sum, which would be as large as the map itself.
        horizontal, vertical = position_tables(scratch.output_conv1.out_channels, full, aspect)
        self.register_buffer("position_cols", horizontal)
        self.register_buffer("position_rows", vertical)
        self.output_conv2 = scratch.output_conv2[0]
        last = scratch.output_conv2[2]
        self.depth = channel(last, 0)
        if confidence:
            self.certainty = channel(last, last.out_channels - 1)

    def maps(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (V, features, h, w), fine to coarse."""
        found = []
        for level, tap in enumerate(taps):
            x = self.projects[level](self.norm(tap)) + getattr(self, f"position{level}")
            x = x.reshape(x.shape[0], *self.grid, x.shape[2])
            if level < 2:
                x = (self.spread4, self.spread2)[level](x)
            x = x.permute(0, 3, 1, 2)
            found.append(self.adapt[level](self.shrink(x) if level == 3 else x))
        return found

    def forward(self, *taps: Tensor) -> tuple[Tensor, ...]:
        """Four (V, rows * cols, 2 * width) taps to (V, H, W, 1) depth and confidence."""
        fine = self.maps(taps)
        x = self.fusions[3](fine[3])
        for level in (2, 1, 0):
            x = self.fusions[level](x, fine[level])
        x = self.resize(self.output_conv1(x)) + self.position_cols + self.position_rows
        x = F.relu(self.output_conv2(x))
        depth = self.depth(x).exp().permute(0, 2, 3, 1)
        if not self.confidence:
            return (depth,)
        return depth, (self.certainty(x).exp() + 1).permute(0, 2, 3, 1)
