"""Networks whose every term matters: norms, gains and biases far from their first values."""

from __future__ import annotations

import torch
from conftest import TINY_CONFIG

from vggt_edge.model.config import VGGTConfig
from vggt_edge.model.vggt import VGGT


@torch.no_grad()
def seeded(config: VGGTConfig = TINY_CONFIG, seed: int = 0) -> VGGT:
    """A network of seeded noise of plausible size."""
    model = VGGT(config)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2 and "token" not in name:
            fan_in = tensor.shape[0] if "resize_layers" in name else tensor[0].numel()
            tensor.copy_(noise * fan_in**-0.5)
        elif "norm" in name and name.endswith("weight"):
            tensor.copy_(1 + 0.3 * noise)
        elif name.endswith("gamma"):
            tensor.copy_(0.3 + 0.1 * noise)
        else:
            tensor.copy_(0.2 * noise)
    return model.eval().requires_grad_(False)
