"""Deterministic scores on worlds that training never draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from .. import metrics
from ..model.vggt import VGGT
from ..predict import extrinsics_from_encoding
from ..worlds import KINDS, render
from .batch import make_batch

# Training seeds are below 2^40; these are above.
VALIDATION_SEED = 2**41


@dataclass(frozen=True)
class Score:
    """Means over scenes: depth after median scaling, pose over all pairs of views.

    The baseline is constant depth and identity pose. Without a translation there is no direction to
    be right about, so its AUC@30 is zero; ``rotation_auc30`` is the score in which it has a chance.
    """

    abs_rel: float
    delta1: float
    auc30: float
    rotation_auc30: float
    baseline_abs_rel: float
    baseline_auc30: float
    baseline_rotation_auc30: float
    scenes: int


@torch.inference_mode()
def validate(
    model: VGGT,
    scenes: int = 24,
    views: int = 4,
    size: int = 112,
    overlap: float = 0.7,
    kinds: Sequence[str] = KINDS,
) -> Score:
    """Score a model beside the constant-depth, identity-pose baseline.

    Args:
        model: with camera and depth heads, on any device.
        scenes: how many, spread evenly over the kinds of worlds.
        views: per scene.
        size: height and width of the views.
        overlap: of consecutive views.
        kinds: of worlds.
    """
    device = next(model.parameters()).device
    rows = []
    for index in range(scenes):
        world = render(
            VALIDATION_SEED + index,
            1,
            views,
            size,
            size,
            kinds=(kinds[index % len(kinds)],),
            overlap=overlap,
            device=device,
        )
        batch = make_batch(world)
        output = model(batch.images, heads=("camera", "depth"))
        if output.depth is None or output.pose_enc is None:
            raise ValueError("validation needs a model with camera and depth heads")
        truth, valid = batch.depth[0].cpu().numpy(), batch.valid[0].cpu().numpy()
        depth = output.depth[0, ..., 0].float().cpu().numpy()
        score = metrics.depth_score(depth, truth, valid)
        constant = metrics.depth_score(np.ones_like(truth), truth, valid)
        true_poses = extrinsics_from_encoding(batch.pose[0].cpu().numpy())
        poses = extrinsics_from_encoding(output.pose_enc[0].float().cpu().numpy())
        still = np.broadcast_to(np.eye(3, 4), true_poses.shape)
        rotation, translation = metrics.relative_pose_errors(poses, true_poses)
        still_rotation, still_translation = metrics.relative_pose_errors(still, true_poses)
        rows.append(
            (
                score.abs_rel,
                score.delta1,
                metrics.pose_auc(rotation, translation),
                metrics.pose_auc(rotation, np.zeros_like(rotation)),
                constant.abs_rel,
                metrics.pose_auc(still_rotation, still_translation),
                metrics.pose_auc(still_rotation, np.zeros_like(still_rotation)),
            )
        )
    names = [field.name for field in fields(Score) if field.name != "scenes"]
    means = dict(zip(names, map(float, np.mean(rows, axis=0)), strict=True))
    return Score(**means, scenes=scenes)
