"""Cameras from the camera tokens, by repeated refinement."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..types import TokenLayout
from . import sparse
from .config import VGGTConfig
from .layers import Block, Linear, Mlp, Norm

POSE_WIDTH = 9  # translation 3, quaternion xyzw 4, vertical and horizontal field of view 2


class CameraHead(nn.Module):
    """Refines a 9-number camera per view, conditioning each pass on the previous answer."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        width = 2 * config.width
        self.iterations = config.camera_iterations
        self.token_norm = Norm(width)
        self.trunk = nn.ModuleList(
            Block(width, config.camera_attention_heads, scale=0.01)
            for _ in range(config.camera_depth)
        )
        self.trunk_norm = Norm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_WIDTH))
        self.embed_pose = Linear(POSE_WIDTH, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 3 * width))
        self.adaln_norm = Norm(width, elementwise_affine=False, eps=1e-6)
        self.pose_branch = Mlp(width, width // 2, POSE_WIDTH)
        self.compensation_token: nn.Parameter | None = None
        if config.compensation_tokens:
            self.compensation_token = nn.Parameter(torch.zeros(config.compensation_tokens, width))

    def forward(
        self, camera_tokens: Tensor, reach: sparse.Reach | None = None
    ) -> tuple[Tensor, ...]:
        """Pose encodings after each iteration, the last one the best.

        Args:
            camera_tokens: (B, S, 2 * width), the camera token of each view at the last tap.
            reach: which views see which in a sparse run; all see all when None.

        Returns:
            tuple of (B, S, 9): translation and quaternion (xyzw, any length) of camera-from-world,
            vertical and horizontal field of view in radians.

        Raises:
            ValueError: a sparse run of a head with compensation tokens, which no plan knows of.
        """
        views = camera_tokens.shape[1]
        if self.compensation_token is not None:
            if reach is not None:
                raise ValueError("a network with compensation tokens runs with dense attention")
            # Views that all others see and that no answer is kept of.
            extra = self.compensation_token.to(camera_tokens.dtype)
            camera_tokens = torch.cat(
                [camera_tokens, extra.expand(len(camera_tokens), -1, -1)], dim=1
            )
        tokens = self.token_norm(camera_tokens)
        normed = self.adaln_norm(tokens)
        pose = None
        poses = []
        for iteration in range(self.iterations):
            # Each pass corrects a given answer; gradients do not run through the chain of passes.
            empty = self.empty_pose_tokens.float().expand(*tokens.shape[:2], -1)
            given = empty if pose is None else pose.detach()
            modulation = self.poseLN_modulation(self.embed_pose(given)).float()
            shift, scale, gate = modulation.chunk(3, dim=-1)
            x = tokens + gate * (normed * (1 + scale) + shift)
            if reach is None:
                x = x.unsqueeze(1)
                for block in self.trunk:
                    x = block(x)
                x = x.squeeze(1)
            else:
                self._update(x.unsqueeze(2), reach, iteration)
            delta = self.pose_branch(self.trunk_norm(x)).float()
            pose = delta if pose is None else given + delta
            kept = pose[:, :views]
            poses.append(torch.cat([kept[..., :7], F.relu(kept[..., 7:])], dim=-1))
        return tuple(poses)

    def _update(self, x: Tensor, reach: sparse.Reach, iteration: int) -> None:
        """The trunk in place on (B, S, 1, 2 * width), each view seeing what the plan says."""
        views = x.shape[1]
        reach = reach._replace(layout=TokenLayout(views, 1, 0, 0))
        for index, block in enumerate(self.trunk):
            layer, name = reach.plan.camera, f"camera.{iteration}.{index}"
            sparse.update(cast(Block, block), x, None, views, layer, reach, name)
