"""The group of similarities: composition, inverse, and rotations as vectors.

A ``Similarity`` maps points of one world to another; named ``a_from_b`` it takes b's points to a's.
Rotation vectors are axis times angle in radians; the Jacobians are those of Sola, Deray and
Atchuthan, "A micro Lie theory for state estimation in robotics", 2018.
"""

from __future__ import annotations

import numpy as np

from .. import geometry
from ..geometry import Similarity

IDENTITY = Similarity(1.0, np.eye(3), np.zeros(3))


def compose(a_from_b: Similarity, b_from_c: Similarity) -> Similarity:
    """``a_from_c``."""
    return Similarity(
        a_from_b.scale * b_from_c.scale,
        a_from_b.rotation @ b_from_c.rotation,
        a_from_b.apply(b_from_c.translation),
    )


def invert(a_from_b: Similarity) -> Similarity:
    """``b_from_a``."""
    rotation = a_from_b.rotation.T
    scale = 1.0 / a_from_b.scale
    return Similarity(scale, rotation, -scale * rotation @ a_from_b.translation)


def skew(vector: np.ndarray) -> np.ndarray:
    """(..., 3) to the (..., 3, 3) matrices of the cross product from the left."""
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vectors to (..., 3, 3) rotation matrices."""
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
    # sinc is smooth at zero, where the axis has no direction.
    imaginary = vector / 2 * np.sinc(half / np.pi)
    return geometry.quaternion_to_matrix(np.concatenate([imaginary, np.cos(half)], axis=-1))


def vector_of(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 3) rotation vectors of at most pi."""
    quaternion = geometry.matrix_to_quaternion(rotation)
    imaginary, real = quaternion[..., :3], quaternion[..., 3]
    sine = np.linalg.norm(imaginary, axis=-1)
    angle = 2 * np.arctan2(sine, real)
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    return imaginary * factor[..., None]


def right_jacobian(vector: np.ndarray) -> np.ndarray:
    """(..., 3, 3) J of ``R(v + d) = R(v) R(J d)`` for small d, at (..., 3) rotation vectors v."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    safe = np.where(angle < 1e-4, 1.0, angle)
    first = np.where(angle < 1e-4, 0.5, (1 - np.cos(safe)) / safe**2)
    second = np.where(angle < 1e-4, 1 / 6, (safe - np.sin(safe)) / safe**3)
    cross = skew(vector)
    return np.eye(3) - first * cross + second * (cross @ cross)
