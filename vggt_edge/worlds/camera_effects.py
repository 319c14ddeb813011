"""What cameras do to pictures: exposure, colour, vignette, blur, noise, JPEG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Example quantisation table of ITU-T T.81, annex K."""


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    basis = torch.cos((2 * n + 1) * k * math.pi / 16) * 0.5
    basis[0] *= math.sqrt(0.5)
    return basis.to(device)


def quantise(images: Tensor, strength: Tensor) -> Tensor:
    """JPEG's loss on (V, 3, H, W) pictures: 8 x 8 DCT coefficients rounded to steps.

    ``strength`` (V,) multiplies the standard table's steps; 0 leaves a picture as it is. All three
    channels use the luminance table, which is close enough for an augmentation.
    """
    count, _, height, width = images.shape
    rows, cols = -(-height // 8), -(-width // 8)
    padded = F.pad(images, (0, cols * 8 - width, 0, rows * 8 - height), mode="replicate")
    blocks = padded.view(count, 3, rows, 8, cols, 8).transpose(3, 4)
    basis = _cosines(images.device)
    coefficients = basis @ (blocks * 255 - 128) @ basis.T
    table = images.new_tensor(_LUMINANCE) * strength.clamp_min(1e-6).view(-1, 1, 1, 1, 1, 1)
    restored = basis.T @ ((coefficients / table).round() * table) @ basis
    result = ((restored + 128) / 255).transpose(3, 4).reshape(padded.shape)
    return result[:, :, :height, :width].clamp(0, 1)


def photograph(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Pictures (V, 3, H, W) in [0, 1] as cameras of different quality would have taken them.

    ``seeds`` holds one number a view; the same number gives the same camera and the same noise.
    """
    count, _, height, width = images.shape
    device = images.device
    draws = [np.random.default_rng(seed) for seed in seeds]

    def per_view(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device).view(-1, 1, 1, 1)

    x = _blur(images, draws)
    gain = (
        torch.from_numpy(np.exp([r.normal(0, [0.05, 0.02, 0.06]) for r in draws]))
        .float()
        .to(device)
    )
    x = x * gain[:, :, None, None] * per_view([np.exp(r.normal(0, 0.16)) for r in draws])
    x = x.clamp(1e-4, 1) ** per_view([np.exp(r.normal(0, 0.12)) for r in draws])
    x = (x - 0.45) * per_view([np.exp(r.normal(0, 0.1)) for r in draws]) + 0.45
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * per_view(
        [r.uniform(0.0, 0.2) if r.random() < 0.04 else r.normal(1.0, 0.15) for r in draws]
    )
    v, u = torch.meshgrid(
        torch.linspace(-1, 1, height, device=device),
        torch.linspace(-1, 1, width, device=device),
        indexing="ij",
    )
    x = x * (1 - per_view([max(r.normal(0.03, 0.08), 0) for r in draws]) * (u * u + v * v))
    noise = torch.stack(
        [
            torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    ).to(device)
    x = x + noise * per_view([r.exponential(0.008) for r in draws])
    strength = [np.exp(r.uniform(-3.5, 0.4)) if r.random() < 0.55 else 0.0 for r in draws]
    return quantise(x.clamp(0, 1), torch.tensor(strength).float().to(device))


def _blur(images: Tensor, draws: list[np.random.Generator]) -> Tensor:
    """Lens or motion blur of half the views, by a 5 x 5 kernel each."""
    offsets = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="xy"), -1)
    kernels = []
    for r in draws:
        sigma = r.uniform(0.35, 0.9) if r.random() < 0.5 else 0.2
        spread = np.array([sigma, sigma])
        if r.random() < 0.12:
            spread[0] = r.uniform(0.8, 1.6)
        angle = r.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        kernel = np.exp(-0.5 * (((offsets @ turn) / spread) ** 2).sum(-1))
        kernels.append(kernel / kernel.sum())
    weight = torch.from_numpy(np.stack(kernels)).float().to(images.device)
    count, channels, height, width = images.shape
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    result = torch.zeros_like(images)
    for i in range(5):
        for j in range(5):
            result += padded[:, :, i : i + height, j : j + width] * weight[:, i, j].view(
                -1, 1, 1, 1
            )
    return result
