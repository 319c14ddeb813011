"""Rigid geometry on numpy arrays: array in, array out. Frames and pixels as in ``types``.

Functions accept any leading batch dimensions unless they say otherwise, compute in the precision
they are given and never modify their arguments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions xyzw, of any non-zero length, to (..., 3, 3) rotation matrices."""
    quaternion = np.asarray(quaternion)
    x, y, z, w = np.moveaxis(quaternion, -1, 0)
    s = 2.0 / np.sum(quaternion * quaternion, axis=-1)
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 4) unit quaternions xyzw with w >= 0.

    Uses the eigenvector of the symmetric 4x4 matrix of Bar-Itzhack (2000), which has no singular
    case and returns the nearest rotation when the input is slightly off.
    """
    m = np.asarray(rotation, dtype=np.float64)
    k = np.zeros((*m.shape[:-2], 4, 4))
    k[..., 0, 0] = m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2]
    k[..., 1, 1] = m[..., 1, 1] - m[..., 0, 0] - m[..., 2, 2]
    k[..., 2, 2] = m[..., 2, 2] - m[..., 0, 0] - m[..., 1, 1]
    k[..., 3, 3] = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    for i, j, value in (
        (0, 1, m[..., 0, 1] + m[..., 1, 0]),
        (0, 2, m[..., 0, 2] + m[..., 2, 0]),
        (1, 2, m[..., 1, 2] + m[..., 2, 1]),
        (0, 3, m[..., 2, 1] - m[..., 1, 2]),
        (1, 3, m[..., 0, 2] - m[..., 2, 0]),
        (2, 3, m[..., 1, 0] - m[..., 0, 1]),
    ):
        k[..., i, j] = k[..., j, i] = value
    quaternion = np.linalg.eigh(k)[1][..., :, -1]
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def invert_rigid(pose: np.ndarray) -> np.ndarray:
    """Inverse of (..., 3, 4) rigid transforms ``[R|t]``: ``[R^T | -R^T t]``."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    return np.concatenate([rotation, -rotation @ pose[..., :3, 3:]], axis=-1)


def compose_rigid(a_from_b: np.ndarray, b_from_c: np.ndarray) -> np.ndarray:
    """``a_from_c`` of two (..., 3, 4) rigid transforms."""
    rotation = a_from_b[..., :3, :3] @ b_from_c[..., :3, :3]
    translation = a_from_b[..., :3, :3] @ b_from_c[..., :3, 3:] + a_from_b[..., :3, 3:]
    return np.concatenate([rotation, translation], axis=-1)


def transform(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply (..., 3, 4) rigid transforms to (..., N, 3) points."""
    return points @ np.swapaxes(pose[..., :3, :3], -1, -2) + pose[..., None, :3, 3]


def project(
    points: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray
) -> np.ndarray:
    """(..., N, 3) world points to (..., N, 3) of column, row and depth in each camera.

    Column and row are meaningless where the depth is not positive.
    """
    camera = transform(camera_from_world, points)
    depth = camera[..., 2:]
    safe = np.where(np.abs(depth) < 1e-12, 1e-12, depth)
    pixel = (camera / safe) @ np.swapaxes(intrinsics, -1, -2)
    return np.concatenate([pixel[..., :2], depth], axis=-1)


def unproject(
    depth: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray
) -> np.ndarray:
    """(..., H, W) depth maps to (..., H, W, 3) world points, one per pixel centre."""
    height, width = depth.shape[-2:]
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    fx, fy = intrinsics[..., 0, 0, None, None], intrinsics[..., 1, 1, None, None]
    cx, cy = intrinsics[..., 0, 2, None, None], intrinsics[..., 1, 2, None, None]
    camera = np.stack([(column - cx) / fx * depth, (row - cy) / fy * depth, depth], axis=-1)
    flat = camera.reshape(*camera.shape[:-3], height * width, 3)
    return transform(invert_rigid(camera_from_world), flat).reshape(camera.shape)


class Similarity(NamedTuple):
    """``y = scale * rotation @ x + translation``."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def apply_to_cameras(self, camera_from_world: np.ndarray) -> np.ndarray:
        """Extrinsics (..., 3, 4) after the world has been mapped by this similarity."""
        rotation = camera_from_world[..., :3, :3] @ self.rotation.T
        translation = self.scale * camera_from_world[..., :3, 3] - rotation @ self.translation
        return np.concatenate([rotation, translation[..., None]], axis=-1)


def fit_similarity(
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray | None = None,
    with_scale: bool = True,
) -> Similarity:
    """Least-squares similarity from (N, 3) source to (N, 3) target points (Umeyama 1991).

    Args:
        source: points to move.
        target: where they should be.
        weights: (N,) non-negative weights; equal when None.
        with_scale: fit the scale too; otherwise a rigid transform.

    Raises:
        ValueError: with fewer than three points, all of them in one place, or no positive weight.
    """
    if len(source) < 3:
        raise ValueError(f"fit_similarity needs at least 3 points, got {len(source)}")
    w = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not w.sum() > 0:
        raise ValueError("fit_similarity needs weights of which some are positive")
    w = w / w.sum()
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    variance = float(w @ np.sum(a * a, axis=-1))
    # Against the points' own size: far from the origin, rounding spreads even equal points.
    if variance <= 1e-24 * float(w @ np.sum(np.square(source, dtype=np.float64), axis=-1)):
        raise ValueError("fit_similarity needs points that are not all in one place")
    u, d, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.ones(3)
    sign[-1] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / variance) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
