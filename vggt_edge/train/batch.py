"""Worlds turned into training targets: first camera's frame, unit scale."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..worlds import WorldBatch


class Batch(NamedTuple):
    """Training tensors in the normalised frame of VGGT (section 3 of the paper).

    images  (B, S, 3, H, W) in [0, 1].
    depth   (B, S, H, W), divided by the scene's scale; meaningless where not valid.
    valid   (B, S, H, W) bool.
    points  (B, S, H, W, 3) in the first camera's frame, divided by the scale.
    pose    (B, S, 9) the encoding the camera head predicts.
    scale   (B,) metres per unit: mean distance of all valid points from the first camera.
    camera_from_first  (B, S, 3, 4) extrinsics, divided by the scale.
    intrinsics         (B, S, 3, 3) in pixels.
    weight  (B, S, H, W) of the pixels' errors; 0 where not valid.
    """

    images: Tensor
    depth: Tensor
    valid: Tensor
    points: Tensor
    pose: Tensor
    scale: Tensor
    camera_from_first: Tensor
    intrinsics: Tensor
    weight: Tensor

    def grid(self, patch: int) -> tuple[int, int]:
        """Rows and columns of a view's patches."""
        return self.images.shape[3] // patch, self.images.shape[4] // patch


def quaternion_from_matrix(rotation: Tensor) -> Tensor:
    """(..., 3, 3) rotations to (..., 4) unit quaternions xyzw, w >= 0, by the largest part."""
    m = rotation.flatten(-2)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.unbind(-1)
    squares = torch.stack(
        [1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22], -1
    )
    by = torch.stack(
        [
            torch.stack([squares[..., 0], m01 + m10, m02 + m20, m21 - m12], -1),
            torch.stack([m01 + m10, squares[..., 1], m12 + m21, m02 - m20], -1),
            torch.stack([m02 + m20, m12 + m21, squares[..., 2], m10 - m01], -1),
            torch.stack([m21 - m12, m02 - m20, m10 - m01, squares[..., 3]], -1),
        ],
        dim=-2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = torch.nn.functional.normalize(by.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def camera_points(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """(..., H, W) depth to (..., H, W, 3) points in the camera's own frame."""
    rows, cols = depth.shape[-2:]
    u = torch.arange(cols, device=depth.device, dtype=depth.dtype)
    v = torch.arange(rows, device=depth.device, dtype=depth.dtype)[:, None]
    k = intrinsics[..., None, None, :, :]
    x = (u - k[..., 0, 2]) / k[..., 0, 0] * depth
    y = (v - k[..., 1, 2]) / k[..., 1, 1] * depth
    return torch.stack([x, y, depth], dim=-1)


def regroup(world: WorldBatch, groups: int) -> WorldBatch:
    """(B, groups * S, ...) views to (B * groups, S, ...): each stretch a scene of its own."""
    return WorldBatch(*(t.unflatten(1, (groups, -1)).flatten(0, 1) for t in world))


def make_batch(world: WorldBatch, weight: Tensor | None = None) -> Batch:
    """Normalise a batch of views; a scene of nothing but sky keeps its scale.

    Args:
        world: the views.
        weight: (B, S, H, W) of valid pixels' errors, about 1 on average; 1 when None.
    """
    extrinsics = world.camera_from_world
    # camera-from-first = camera-from-world composed with world-from-first
    first_r, first_t = extrinsics[:, :1, :, :3], extrinsics[:, :1, :, 3:]
    rotation = extrinsics[..., :3] @ first_r.transpose(-1, -2)
    translation = extrinsics[..., 3:] - rotation @ first_t
    points = camera_points(world.depth, world.intrinsics)
    flat = points.flatten(2, 3) - translation.transpose(-1, -2)
    points = (flat @ rotation).view_as(points)
    distance = points.norm(dim=-1) * world.valid
    count = world.valid.sum(dim=(1, 2, 3))
    scale = torch.where(count > 0, distance.sum(dim=(1, 2, 3)) / count.clamp(min=1), 1.0)
    height, width = world.depth.shape[-2:]
    fov_v = 2 * torch.atan(height / 2 / world.intrinsics[..., 1, 1])
    fov_h = 2 * torch.atan(width / 2 / world.intrinsics[..., 0, 0])
    shift = translation / scale[:, None, None, None]
    pose = torch.cat(
        [
            shift.squeeze(-1),
            quaternion_from_matrix(rotation),
            fov_v[..., None],
            fov_h[..., None],
        ],
        dim=-1,
    )
    return Batch(
        # The renderer works in inference mode, whose tensors autograd refuses to keep.
        images=world.images.clone(),
        depth=world.depth / scale[:, None, None, None],
        valid=world.valid.clone(),
        points=points / scale[:, None, None, None, None],
        pose=pose,
        scale=scale,
        camera_from_first=torch.cat([rotation, shift], dim=-1),
        intrinsics=world.intrinsics.clone(),
        weight=world.valid * (1.0 if weight is None else weight),
    )
