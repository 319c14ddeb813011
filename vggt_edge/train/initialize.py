"""Starting weights for training from scratch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.dense import ResidualUnit
from ..model.layers import LayerScale
from ..model.vggt import VGGT

# VGGT starts its LayerScale at 0.01, on top of a pretrained encoder. From scratch that delays
# learning by thousands of steps.
AGGREGATOR_SCALE = 0.2


@torch.no_grad()
def initialize(model: VGGT, seed: int = 0) -> VGGT:
    """Draw all weights from a seed, in place; returns the model."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            normal(module.weight, min(0.02, module.in_features**-0.5))
            module.bias.zero_()
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            fan_in = (
                module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_channels
            )
            normal(module.weight, fan_in**-0.5)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, LayerScale):
            module.gamma.fill_(AGGREGATOR_SCALE)
    for module in model.modules():
        if isinstance(module, ResidualUnit):
            module.conv2.weight.mul_(0.2)  # a stack of residuals must not grow the signal
    for parameter in (
        model.aggregator.camera_token,
        model.aggregator.register_token,
        model.aggregator.patch_embed.cls_token,
        model.aggregator.patch_embed.register_tokens,
        model.aggregator.patch_embed.pos_embed,
    ):
        normal(parameter, 0.02)
    for name in ("depth_head", "point_head"):
        if hasattr(model, name):
            last = getattr(model, name).scratch.output_conv2[2]
            normal(
                last.weight, 0.02
            )  # depth starts near exp(0) = 1, the scale of a normalised scene
    if hasattr(model, "camera_head"):
        # The first answers are small, and so is every later change.
        last = model.camera_head.pose_branch.fc2
        normal(last.weight, 0.002)
    return model


@torch.no_grad()
def center_camera_tokens(model: VGGT, images: Tensor) -> None:
    """Set the camera head's input norm so that the camera tokens of these pictures are centred and
    of unit variance, in place.

    A few channels of a trained aggregator are a hundred times larger than the rest. Behind a norm
    with weight 1 what differs between pictures drowns in what does not, and the head learns a
    constant (docs/LOG.md).

    Args:
        model: with a camera head.
        images: (B, S, 3, H, W) in [0, 1], of several scenes.
    """
    last = model.aggregator(images)[-1]
    tokens = torch.cat([part[:, :, 0] for part in last], dim=-1).float().flatten(0, 1)
    normed = F.layer_norm(tokens, tokens.shape[-1:])
    spread, norm = normed.std(0), model.camera_head.token_norm
    weight = 1 / (spread + 0.02 * spread.max()).clamp(min=1e-4)
    norm.weight.copy_(weight)
    norm.bias.copy_(-weight * normed.mean(0))
