"""QVGGT's compensation token: what calibration knows of camera tokens, shown to the camera head.

Special tokens carry outliers, so QVGGT (Pan et al., CVPR 2026) keeps them out of the statistics
that scales are searched with (``patches_only`` of a ``methods.Method``) and makes up for it where
they matter, in the camera head. Of the camera tokens c_1 .. c_N of calibration scenes, float and at
the last tap, let mu be the mean and V the K leading principal directions of c_i - mu. The token is

    t = V V^T mu,   scaled to the mean length of the patch tokens there,

and the head sees it as one more view, whose own answer is dropped. The head begins with a
LayerNorm, which takes the length out again: scaling follows the paper and changes nothing. Whether
the token helps is measured by ``benchmarks/token_filter.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError, RecipeError
from ..model.vggt import VGGT
from ..predict import check_views, to_tensor
from ..types import Views

COMPONENTS = 32


class TokenStatistics(NamedTuple):
    """What calibration scenes say about the tokens the camera head reads.

    camera        (N, 2 * width) float32 camera tokens of all views.
    patch_length  mean length of the patch tokens of the same layer.
    """

    camera: Tensor
    patch_length: float


@torch.no_grad()
def token_statistics(model: VGGT, scenes: Sequence[Views]) -> TokenStatistics:
    """Camera tokens of a network, best before it is compressed.

    Args:
        model: with a camera head.
        scenes: views of each calibration scene.

    Raises:
        InputError: no scenes, or views of a size the network cannot take.
        RecipeError: a network without a camera head, or a sparse one.
    """
    _check(model)
    if not scenes:
        raise InputError("a compensation token needs calibration scenes")
    device = next(model.parameters()).device
    found, lengths, count = [], 0.0, 0
    for views in scenes:
        check_views(model.config, views)
        tap = model.aggregator(to_tensor(views, device))[-1]
        found.append(tap.tokens(last=1)[0, :, 0].float().cpu())
        length = tap.tokens(first=model.config.special_tokens).float().norm(dim=-1)
        lengths, count = lengths + float(length.sum()), count + length.numel()
    return TokenStatistics(torch.cat(found), lengths / count)


def compensation_token(statistics: TokenStatistics, components: int = COMPONENTS) -> Tensor:
    """(2 * width,) float32: the mean camera token within the principal subspace.

    Args:
        statistics: of calibration scenes.
        components: K; fewer where there are not as many tokens.

    Raises:
        InputError: fewer than two tokens, which have no principal direction.
    """
    tokens = statistics.camera
    if len(tokens) < 2:
        raise InputError("a compensation token needs at least two calibration views")
    mean = tokens.mean(0)
    _, _, directions = torch.linalg.svd(tokens - mean, full_matrices=False)
    kept = directions[: min(components, len(tokens) - 1)]
    token = (kept @ mean) @ kept
    return token * (statistics.patch_length / token.norm().clamp(min=1e-12))


@torch.no_grad()
def compensate(model: VGGT, token: Tensor) -> VGGT:
    """Give a network's camera head a compensation token, in place; returns the network.

    It is saved with the weights, in ``config.compensation_tokens``.

    Args:
        model: float or compressed, with dense attention.
        token: (2 * width,) from ``compensation_token``.

    Raises:
        RecipeError: no camera head, a sparse network, or a token of another width.
    """
    _check(model)
    width = 2 * model.config.width
    if token.shape != (width,):
        raise RecipeError(f"a compensation token of {tuple(token.shape)}, where {width} are needed")
    like = model.camera_head.empty_pose_tokens
    value = token[None].to(like.device, like.dtype)
    model.camera_head.compensation_token = nn.Parameter(value, requires_grad=False)
    model.config = replace(model.config, compensation_tokens=1)
    return model


def _check(model: VGGT) -> None:
    if "camera" not in model.config.heads:
        raise RecipeError("a compensation token is for the camera head, which this network lacks")
    if model.sparsity is not None:
        raise RecipeError("a compensation token needs dense attention: make_sparse(model, 'dense')")
