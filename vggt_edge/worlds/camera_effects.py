"""What cameras do to pictures: exposure, colour, vignette, blur, noise, JPEG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

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


class _Camera(NamedTuple):
    """How one camera renders what it sees; ``trim`` is what its automatics change view by view."""

    gain: np.ndarray
    gamma: float
    contrast: float
    saturation: float
    vignette: float
    noise: float
    jpeg: float
    sharpness: float
    trim: float

    @staticmethod
    def draw(seed: int) -> _Camera:
        r = np.random.default_rng(seed)
        return _Camera(
            gain=np.exp(r.normal(0, [0.05, 0.02, 0.07]) + r.normal(0, 0.13)),
            gamma=float(np.exp(r.normal(0, 0.13))),
            contrast=float(np.exp(r.normal(0, 0.1))),
            saturation=r.uniform(0, 0.2) if r.random() < 0.04 else r.normal(1.0, 0.16),
            vignette=max(r.normal(0.03, 0.08), 0),
            noise=r.exponential(0.008),
            jpeg=float(np.exp(r.uniform(-3.5, 0.4))) if r.random() < 0.55 else 0.0,
            sharpness=r.uniform(0.35, 0.9) if r.random() < 0.5 else 0.2,
            trim=r.exponential(0.05),
        )


def photograph(images: Tensor, seeds: Sequence[int], cameras: Sequence[int]) -> Tensor:
    """Pictures (V, 3, H, W) in [0, 1] as cameras of different quality would have taken them.

    Args:
        images: the pictures.
        seeds: one number a view, for what differs from view to view: exposure, shake, noise.
        cameras: one number a view, for what stays: views with the same number share a camera.
    """
    height, width = images.shape[2:]
    device = images.device
    owners = [_Camera.draw(camera) for camera in cameras]
    draws = [np.random.default_rng(seed) for seed in seeds]

    def per_view(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device).view(-1, 1, 1, 1)

    x = _blur(images, draws, [camera.sharpness for camera in owners])
    gains = [
        camera.gain * np.exp(r.normal(0, camera.trim) + r.normal(0, 0.25 * camera.trim, 3))
        for camera, r in zip(owners, draws, strict=True)
    ]
    x = x * torch.from_numpy(np.stack(gains)).float().to(device)[:, :, None, None]
    x = x.clamp(1e-4, 1) ** per_view([camera.gamma for camera in owners])
    x = (x - 0.45) * per_view([camera.contrast for camera in owners]) + 0.45
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * per_view([camera.saturation for camera in owners])
    v = torch.linspace(-1, 1, height, device=device)[:, None]
    u = torch.linspace(-1, 1, width, device=device)
    x = x * (1 - per_view([camera.vignette for camera in owners]) * (u * u + v * v))
    noise = torch.stack(
        [
            torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    )
    x = x + noise.to(device) * per_view([camera.noise for camera in owners])
    jpeg = torch.tensor([camera.jpeg for camera in owners], dtype=torch.float32)
    return quantise(x.clamp(0, 1), jpeg.to(device))


def _blur(images: Tensor, draws: list[np.random.Generator], sharpness: list[float]) -> Tensor:
    """The lens's blur, and some views' motion blur, by a 5 x 5 kernel each."""
    offsets = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="xy"), -1)
    kernels = []
    for r, sigma in zip(draws, sharpness, strict=True):
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
