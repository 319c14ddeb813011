"""Point tracks across views, refined by correlation (after CoTracker, Karaev et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aggregator import Tap
from .config import VGGTConfig
from .dense import DenseHead
from .layers import Mlp

BLOCKS = 6
ATTENTION_HEADS = 8
VIRTUAL_TRACKS = 64
STRIDE = 2
ITERATIONS = 4
MAX_SCALE = 518.0  # flows enter the network in units of this many feature pixels


def sample(maps: Tensor, points: Tensor, padding: str = "border") -> Tensor:
    """Bilinear samples of (N, C, h, w) at (N, R, T, 2) pixel positions: (N, C, R, T)."""
    extent = points.new_tensor([max(maps.shape[-1] - 1, 1), max(maps.shape[-2] - 1, 1)])
    return F.grid_sample(maps, points * (2 / extent) - 1, padding_mode=padding, align_corners=True)


def grid_embedding(channels: int, rows: int, cols: int, like: Tensor) -> Tensor:
    """(1, channels, rows, cols) sinusoidal table; first half of the channels columns, then rows."""
    quarter = channels // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)

    def table(count: int) -> Tensor:
        angles = omega[:, None] * torch.arange(count, device="cpu")
        return torch.cat([angles.sin(), angles.cos()]).to(like)

    horizontal = table(cols)[:, None, :].expand(-1, rows, -1)
    vertical = table(rows)[:, :, None].expand(-1, -1, cols)
    return torch.cat([horizontal, vertical])[None]


def flow_embedding(flow: Tensor, channels: int) -> Tensor:
    """(..., 2) displacements to (..., 2 * channels) interleaved sines and cosines."""
    steps = torch.arange(0, channels, 2, device=flow.device, dtype=flow.dtype) * (1000.0 / channels)
    angles = flow[..., None] * steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


class SelfBlock(nn.Module):
    """Attention along one axis; its skip starts after the first norm, as VGGT was trained."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, ATTENTION_HEADS, batch_first=True)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        x = self.norm1(x)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Like ``SelfBlock``, looking at a context."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, ATTENTION_HEADS, batch_first=True)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, T, width) looking at (N, M, width)."""
        x, context = self.norm1(x), self.norm_context(context)
        x = x + self.cross_attn(x, context, context, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class UpdateFormer(nn.Module):
    """Attends along time per track, and across tracks through a few virtual ones."""

    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.input_norm = nn.LayerNorm(width)
        self.input_transform = nn.Linear(width, hidden)
        self.output_norm = nn.LayerNorm(hidden)
        self.flow_head = nn.Linear(hidden, out)
        self.virual_tracks = nn.Parameter(
            torch.normal(0.0, 1.0, (1, VIRTUAL_TRACKS, 1, hidden))
        )  # sic
        self.time_blocks = nn.ModuleList(SelfBlock(hidden) for _ in range(BLOCKS))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(hidden) for _ in range(BLOCKS))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(hidden) for _ in range(BLOCKS))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(hidden) for _ in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, S, width) to (B, N, S, out)."""
        start = self.input_transform(self.input_norm(x))
        batch, count, views, _ = start.shape
        tokens = torch.cat([start, self.virual_tracks.expand(batch, -1, views, -1)], dim=1)
        for along, virtual, to_virtual, to_points in zip(
            self.time_blocks,
            self.space_virtual_blocks,
            self.space_virtual2point_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            tokens = along(tokens.flatten(0, 1)).unflatten(0, (batch, -1))
            across = tokens.transpose(1, 2).flatten(0, 1)  # (B * S, N + virtual, hidden)
            points, shared = across[:, :count], across[:, count:]
            shared = virtual(to_virtual(shared, points))
            points = to_points(points, shared)
            tokens = torch.cat([points, shared], dim=1).unflatten(0, (batch, views)).transpose(1, 2)
        return self.flow_head(self.output_norm(tokens[:, :count] + start))


class Tracker(nn.Module):
    """Iterative refinement of positions from local correlations."""

    def __init__(self, features: int, hidden: int, levels: int, radius: int):
        super().__init__()
        self.levels, self.radius = levels, radius
        width = 3 * features + 4
        self.corr_mlp = Mlp(levels * (2 * radius + 1) ** 2, hidden, features)
        self.query_ref_token = nn.Parameter(torch.normal(0.0, 1.0, (1, 2, width)))
        self.updateformer = UpdateFormer(width, hidden, features + 2)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))

    def correlate(self, pyramid: Sequence[Tensor], feats: Tensor, coords: Tensor) -> Tensor:
        """(B, S, N, levels * (2 radius + 1)^2) correlations around (B, S, N, 2) positions."""
        batch, views, count, channels = feats.shape
        offsets = torch.arange(
            -self.radius, self.radius + 1, device=coords.device, dtype=coords.dtype
        )
        window = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)
        found = []
        for level, maps in enumerate(pyramid):
            volume = torch.einsum("bsnc,bschw->bsnhw", feats, maps) / channels**0.5
            centers = coords.reshape(-1, 1, 1, 2) / 2**level
            near = sample(volume.flatten(0, 2).unsqueeze(1), centers + window, padding="zeros")
            found.append(near.reshape(batch, views, count, -1))
        return torch.cat(found, dim=-1)

    def forward(self, query_points: Tensor, maps: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Follow (B, N, 2) points of the first view through (B, S, C, h, w) feature maps.

        Returns:
            positions (B, S, N, 2) after each iteration; visibility and confidence (B, S, N).
        """
        batch, views, channels, rows, cols = maps.shape
        count = query_points.shape[1]
        maps = self.fmap_norm(maps.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)
        query = query_points / STRIDE
        coords = query[:, None].expand(-1, views, -1, -1)
        feats = sample(maps[:, 0], query[:, :, None]).squeeze(-1).transpose(1, 2)
        feats = feats[:, None].expand(-1, views, -1, -1)

        pyramid = [maps]
        for _ in range(self.levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1].flatten(0, 1), 2).unflatten(0, (batch, views)))

        position = grid_embedding(3 * channels + 4, rows, cols, maps).expand(batch, -1, -1, -1)
        position = sample(position, query[:, :, None]).squeeze(-1).transpose(1, 2)  # (B, N, width)
        reference = torch.cat(
            [self.query_ref_token[:, :1], self.query_ref_token[:, 1:].expand(-1, views - 1, -1)], 1
        )
        tracks = []
        for _ in range(ITERATIONS):
            coords = coords.detach()
            flow = coords - coords[:, :1]
            scaled = flow / MAX_SCALE
            x = torch.cat(
                [
                    flow_embedding(flow, channels // 2),
                    scaled,
                    scaled,
                    self.corr_mlp(self.correlate(pyramid, feats, coords)),
                    feats,
                ],
                dim=-1,
            )  # (B, S, N, width)
            x = x + position[:, None] + reference[:, :, None]
            delta = self.updateformer(x.transpose(1, 2)).transpose(1, 2)
            change = self.ffeat_norm(delta[..., 2:].flatten(0, 2)).unflatten(
                0, (batch, views, count)
            )
            feats = feats + self.ffeat_updater(change)
            # The query itself is given and must not move.
            moved = coords[:, 1:] + delta[:, 1:, :, :2]
            coords = torch.cat([query[:, None], moved], dim=1)
            tracks.append(coords * STRIDE)
        visible = self.vis_predictor(feats).squeeze(-1).sigmoid()
        confidence = self.conf_predictor(feats).squeeze(-1).sigmoid()
        return tracks, visible, confidence


class TrackHead(nn.Module):
    """Feature maps from the taps, then the tracker."""

    def __init__(self, config: VGGTConfig, position: bool = True):
        super().__init__()
        self.feature_extractor = DenseHead(
            2 * config.width,
            config.patch_size,
            config.dense_channels,
            config.track_features,
            outputs=None,
            position=position,
        )
        self.tracker = Tracker(
            config.track_features,
            config.track_hidden,
            config.track_correlation_levels,
            config.track_correlation_radius,
        )

    def forward(
        self,
        taps: Sequence[Tap],
        special: int,
        grid: tuple[int, int],
        query_points: Tensor,
        chunk: int | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Tracks of (B, N, 2) query points; see ``Tracker.forward``."""
        return self.tracker(query_points, self.feature_extractor(taps, special, grid, chunk))
