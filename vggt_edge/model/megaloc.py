"""MegaLoc: one descriptor per picture, for finding pictures of the same place.

Berton and Masone, "MegaLoc: One Retrieval to Place Them All", CVPR workshops 2025: a DINOv2 encoder
(Oquab et al. 2023, without registers), the optimal-transport aggregation of SALAD (Izquierdo and
Civera, CVPR 2024) and one large linear map. Attribute names are the checkpoint's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Block, Linear, Norm
from .vit import IMAGE_MEAN, IMAGE_STD, PatchEmbedding

EVALUATED_SIZE = 322  # pixels a side, of the squares MegaLoc's authors evaluate on
SINKHORN_ITERATIONS = 3


@dataclass(frozen=True)
class MegaLocConfig:
    """Every number that distinguishes one MegaLoc from another; the defaults are the published."""

    image_size: int = 518  # the grid of learned position embeddings is (image_size / patch_size)^2
    patch_size: int = 14
    width: int = 768
    attention_heads: int = 12
    depth: int = 12
    clusters: int = 64
    cluster_features: int = 256
    token_features: int = 256
    hidden: int = 512
    descriptor: int = 8448


def resample_matrix(out: int, size: int) -> Tensor:
    """(out, size) float32 weights of the resampling DINOv2 trained its position embeddings with.

    Bicubic with a = -0.75 and clamped borders, without antialiasing, at the scale
    (out + 0.1) / size: the 0.1 once guarded against rounding and is part of the weights since.
    """
    step = size / (out + 0.1)
    centers = (torch.arange(out, dtype=torch.float64) + 0.5) * step - 0.5
    a = -0.75
    first = centers.floor().long() - 1
    weights = torch.zeros(out, size, dtype=torch.float64)
    for tap in range(4):
        index = first + tap
        t = (centers - index).abs()
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        weight = torch.where(t <= 1, near, far)
        weights.scatter_add_(1, index.clamp(0, size - 1)[:, None], weight[:, None])
    return weights.float()


class Backbone(nn.Module):
    """DINOv2 ViT without registers; class token and patch tokens out."""

    def __init__(self, config: MegaLocConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.grid = config.image_size // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + 1, config.width))
        self.patch_embed = PatchEmbedding(config.patch_size, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.attention_heads, scale=1.0, eps=1e-6)
            for _ in range(config.depth)
        )
        self.norm = Norm(config.width, eps=1e-6)

    def position_embedding(self, rows: int, cols: int) -> Tensor:
        """(1, rows * cols, width) learned embeddings resampled to the grid of the input."""
        patches = self.pos_embed[:, 1:].float()
        if (rows, cols) == (self.grid, self.grid):
            return patches
        square = patches.view(self.grid, self.grid, -1)
        vertical = resample_matrix(rows, self.grid).to(square.device)
        horizontal = resample_matrix(cols, self.grid).to(square.device)
        resized = torch.einsum("rg,ghc->rhc", vertical, square)
        resized = torch.einsum("kh,rhc->rkc", horizontal, resized)
        return resized.reshape(1, rows * cols, -1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) normalised to (N, width) class tokens and (N, patches, width), float32."""
        rows, cols = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        x = self.patch_embed(images) + self.position_embedding(rows, cols)
        cls = (self.cls_token.float() + self.pos_embed[:, :1].float()).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1).unsqueeze(1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x.squeeze(1))
        return x[:, 0], x[:, 1:]


def _per_patch(width: int, hidden: int, out: int) -> nn.Sequential:
    """A two-layer network on every patch; the place of the training's dropout is kept."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1), nn.Identity(), nn.ReLU(), nn.Conv2d(hidden, out, 1)
    )


class Salad(nn.Module):
    """Patches to soft clusters by optimal transport, with a bin for what is in no cluster."""

    def __init__(self, config: MegaLocConfig):
        super().__init__()
        width, hidden = config.width, config.hidden
        self.clusters = config.clusters
        self.token_features = nn.Sequential(
            Linear(width, hidden), nn.ReLU(), Linear(hidden, config.token_features)
        )
        self.cluster_features = _per_patch(width, hidden, config.cluster_features)
        self.score = _per_patch(width, hidden, config.clusters)
        self.dust_bin = nn.Parameter(torch.ones(()))

    def assign(self, scores: Tensor) -> Tensor:
        """(N, clusters, patches) scores to the share of each patch that goes to each cluster.

        Sinkhorn's iteration in the log domain. Every cluster takes one patch's worth and the dust
        bin all the rest.
        """
        count, clusters, patches = scores.shape
        dust = self.dust_bin.float().expand(count, 1, patches)
        scores = torch.cat([scores.float(), dust], dim=1)
        total = math.log(clusters + patches)
        rows = scores.new_full((clusters + 1, 1), -total)
        rows[-1] += math.log(patches - clusters)
        v = torch.zeros_like(scores[:, :1])
        u = torch.zeros_like(scores[:, :, :1])
        for _ in range(SINKHORN_ITERATIONS):
            u = rows - torch.logsumexp(scores + v, dim=2, keepdim=True)
            v = -total - torch.logsumexp(scores + u, dim=1, keepdim=True)
        return (scores + u + v + total)[:, :-1].exp()

    def forward(self, token: Tensor, patches: Tensor) -> Tensor:
        """(N, width) and (N, patches, width) to (N, token + features * clusters), unit, float32."""
        # The checkpoint's layers are 1x1 convolutions: patches as a picture one column wide.
        dtype = next(self.score.parameters()).dtype
        grid = patches.to(dtype).transpose(1, 2).unsqueeze(-1)
        features = self.cluster_features(grid).squeeze(-1).float()
        shares = self.assign(self.score(grid).squeeze(-1))
        clusters = F.normalize(features @ shares.transpose(1, 2), dim=1).flatten(1)
        token = F.normalize(self.token_features(token).float(), dim=-1)
        return F.normalize(torch.cat([token, clusters], dim=-1), dim=-1)


class Aggregator(nn.Module):
    """Tokens of a picture to its descriptor."""

    def __init__(self, config: MegaLocConfig):
        super().__init__()
        self.agg = Salad(config)
        pooled = config.token_features + config.cluster_features * config.clusters
        self.linear = Linear(pooled, config.descriptor)

    def forward(self, token: Tensor, patches: Tensor) -> Tensor:
        """(N, width) and (N, patches, width) to (N, descriptor), unit, float32."""
        return F.normalize(self.linear(self.agg(token, patches)).float(), dim=-1)


class MegaLoc(nn.Module):
    """Pictures to unit descriptors whose cosine says how likely they show one place."""

    license = ""  # of the weights

    def __init__(self, config: MegaLocConfig | None = None):
        super().__init__()
        self.config = config or MegaLocConfig()
        self.backbone = Backbone(self.config)
        self.aggregator = Aggregator(self.config)

    def describe(self, normalised: Tensor) -> Tensor:
        """(N, 3, H, W) normalised pictures, H and W multiples of the patch size, to descriptors.

        Raises:
            ValueError: on other sizes, or fewer patches than the clusters need.
        """
        height, width = normalised.shape[-2:]
        patch, clusters = self.config.patch_size, self.config.clusters
        if height % patch or width % patch:
            raise ValueError(f"{height}x{width} is no multiple of the patch size {patch}")
        if (height // patch) * (width // patch) <= clusters:
            raise ValueError(
                f"{height}x{width} has {(height // patch) * (width // patch)} patches, and MegaLoc "
                f"needs more than its {clusters} clusters"
            )
        return self.aggregator(*self.backbone(normalised))

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, 3, H, W) pictures in [0, 1], or uint8, to (N, descriptor) unit float32.

        Args:
            images: of any height and width.
            size: (height, width) to resize to first; the nearest multiples of the patch size when
                None. The authors evaluate at (322, 322), whatever the aspect ratio.
        """
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        patch = self.config.patch_size
        height, width = size or (round(n / patch) * patch for n in images.shape[-2:])
        if (height, width) != tuple(images.shape[-2:]):
            images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
        mean = images.new_tensor(IMAGE_MEAN).view(3, 1, 1)
        std = images.new_tensor(IMAGE_STD).view(3, 1, 1)
        return self.describe((images - mean) / std)
