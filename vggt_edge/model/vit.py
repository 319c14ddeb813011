"""The image encoder: DINOv2 with registers (Oquab et al. 2023; Darcet et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import VGGTConfig
from .layers import Block, Norm

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def resize_matrix(out: int, size: int) -> Tensor:
    """(out, size) float32 weights of antialiased bicubic resampling along one axis.

    Keys' cubic kernel with a = -0.5, widened by the scale when shrinking and renormalised at the
    borders; what ``interpolate(mode="bicubic", antialias=True)`` does, as a constant matrix.
    """
    scale = size / out
    stretch = max(scale, 1.0)
    centers = (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    taps = torch.arange(size, dtype=torch.float64) + 0.5
    t = ((taps[None] - centers[:, None]) / stretch).abs()
    a = -0.5
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    weights = torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
    return (weights / weights.sum(dim=1, keepdim=True)).float()


class PatchEmbedding(nn.Module):
    """Images to one token per patch."""

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, rows * cols, width) float32."""
        x = self.proj(images.to(self.proj.weight.dtype))
        return x.float().flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2 ViT with registers; patch tokens out."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        width, grid = config.width, config.image_size // config.patch_size
        self.patch_size = config.patch_size
        self.grid = grid
        self.patch_embed = PatchEmbedding(config.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        # Unused here, but part of every DINOv2 checkpoint.
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(width, config.attention_heads, scale=1.0, eps=1e-6)
            for _ in range(config.encoder_depth)
        )
        self.norm = Norm(width, eps=1e-6)

    def position_embedding(self, rows: int, cols: int) -> Tensor:
        """(1, rows * cols, width) learned embeddings resampled to the grid of the input."""
        patches = self.pos_embed[:, 1:].float()
        if (rows, cols) == (self.grid, self.grid):
            return patches
        square = patches.view(self.grid, self.grid, -1)
        vertical = resize_matrix(rows, self.grid).to(square.device)
        horizontal = resize_matrix(cols, self.grid).to(square.device)
        resized = torch.einsum("rg,ghc->rhc", vertical, square)
        resized = torch.einsum("kh,rhc->rkc", horizontal, resized)
        return resized.reshape(1, rows * cols, -1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], or uint8, to (N, rows * cols, width) patch tokens, float32."""
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        mean = images.new_tensor(IMAGE_MEAN).view(3, 1, 1)
        std = images.new_tensor(IMAGE_STD).view(3, 1, 1)
        x = self.patch_embed((images - mean) / std)
        rows, cols = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        x = x + self.position_embedding(rows, cols)
        cls = (self.cls_token.float() + self.pos_embed[:, :1].float()).expand(len(x), -1, -1)
        registers = self.register_tokens.float().expand(len(x), -1, -1)
        x = torch.cat([cls, registers, x], dim=1).unsqueeze(1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x.squeeze(1)[:, 1 + registers.shape[1] :])
