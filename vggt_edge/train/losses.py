"""What is minimised, after section 3.3 of the VGGT paper.

Depth and points are weighted by the predicted confidence c (Kendall & Gal 2017):
``mean(c * error) - alpha * mean(log c)``, plus the error of differences of neighbouring pixels.
Depth errors are taken in log depth, where the paper takes them in depth: the scenes range from a
table top to a street, accuracy is scored relative to depth, and the head's activation is ``exp``.
Cameras: L1 on translation, quaternion and field of view of every refinement, the later the more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.vggt import VGGTOutput
from .batch import Batch

CONFIDENCE_ALPHA = 0.2
REFINEMENT_DISCOUNT = 0.6
MAX_CONFIDENCE_LOG = 20.0


def _weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp(min=1)


def confident_mean(error: Tensor, confidence: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of confidence-weighted errors, less what the confidence is worth."""
    worth = confidence.log().clamp(max=MAX_CONFIDENCE_LOG)
    return _weighted_mean(error * confidence - CONFIDENCE_ALPHA * worth, weight)


def _gradient(error: Tensor, confidence: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of |difference of neighbouring errors|, rows and columns; (..., H, W, C)."""
    across = (error[..., :, 1:, :] - error[..., :, :-1, :]).abs().sum(-1)
    down = (error[..., 1:, :, :] - error[..., :-1, :, :]).abs().sum(-1)
    # A pair counts as its lesser half: not at all where one is not valid.
    across_weight = torch.minimum(weight[..., :, 1:], weight[..., :, :-1])
    down_weight = torch.minimum(weight[..., 1:, :], weight[..., :-1, :])
    return _weighted_mean(across * confidence[..., :, 1:], across_weight) + _weighted_mean(
        down * confidence[..., 1:, :], down_weight
    )


def depth_loss(depth: Tensor, confidence: Tensor, batch: Batch) -> Tensor:
    """Confidence-weighted log-depth error of (B, S, H, W, 1) depth, with its gradient term."""
    truth = batch.depth.clamp(min=1e-4).log()
    error = (depth.squeeze(-1).clamp(min=1e-6).log() - truth) * batch.valid
    gradient = _gradient(error[..., None], confidence, batch.weight)
    return confident_mean(error.abs(), confidence, batch.weight) + gradient


def point_loss(points: Tensor, confidence: Tensor, batch: Batch) -> Tensor:
    """Confidence-weighted error of (B, S, H, W, 3) points, with its gradient term."""
    error = (points - batch.points) * batch.valid[..., None]
    gradient = _gradient(error, confidence, batch.weight)
    return confident_mean(error.norm(dim=-1), confidence, batch.weight) + gradient


def camera_loss(poses: Sequence[Tensor], batch: Batch) -> Tensor:
    """L1 on (B, S, 9) encodings of all refinements; the i-th from the end weighs 0.6^i."""
    total = batch.pose.new_zeros(())
    for back, pose in enumerate(reversed(poses)):
        error = (pose - batch.pose).abs()
        # A wild translation early on must not drown the rest.
        translation = error[..., :3].clamp(max=10).mean()
        loss = translation + error[..., 3:7].mean() + 0.5 * error[..., 7:].mean()
        total = total + REFINEMENT_DISCOUNT**back * loss
    return total


def losses(output: VGGTOutput, batch: Batch) -> dict[str, Tensor]:
    """The loss of each head that was run, by the head's name."""
    result = {}
    if output.pose_enc_list:
        result["camera"] = camera_loss(output.pose_enc_list, batch)
    if output.depth is not None and output.depth_conf is not None:
        result["depth"] = depth_loss(output.depth, output.depth_conf, batch)
    if output.world_points is not None and output.world_points_conf is not None:
        result["point"] = point_loss(output.world_points, output.world_points_conf, batch)
    return result


def balanced_gradients(
    gradients: dict[str, list[Tensor]], norms: dict[str, float], shares: dict[str, float]
) -> list[Tensor]:
    """Sum gradients at the taps so that each head pulls with its share, whatever its loss's scale.

    Args:
        gradients: per head, the gradient of its loss at every tapped tensor.
        norms: per head, a running mean of its gradient's norm.
        shares: per head, the norm it shall have relative to the others.
    """
    heads = list(gradients)
    summed = [torch.zeros_like(g) for g in gradients[heads[0]]]
    for head in heads:
        factor = shares[head] / max(norms[head], 1e-12)
        for total, gradient in zip(summed, gradients[head], strict=True):
            total.add_(gradient, alpha=factor)
    return summed
