"""A sparse model, as in structure from motion: cameras, points, and which image sees which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import geometry
from .types import Cameras


@dataclass(frozen=True)
class SparseModel:
    """Posed images, points, and the observations that tie them together.

    Frames and pixels are those of ``types``: pixels are of the *source* pictures and integer
    coordinates are pixel centres. One flat table of observations holds both directions, so that a
    point's track and an image's list of 2D points cannot disagree.

    Fields
        names              S image names, unique, relative to the folder of the pictures.
        cameras            S cameras of the source pictures.
        camera_index       (S,) int32: images with equal numbers share one set of intrinsics.
        points             (N, 3) float64, world frame.
        colors             (N, 3) uint8, RGB.
        errors             (N,) float64: mean reprojection error in source pixels, -1 when unknown.
        observations       (M, 2) float64: (column, row) in the source picture, ordered by image.
        observation_image  (M,) int32, not decreasing: the image of each observation.
        observation_point  (M,) int64: the point it sees, -1 when none.
    """

    names: tuple[str, ...]
    cameras: Cameras
    camera_index: np.ndarray
    points: np.ndarray
    colors: np.ndarray
    errors: np.ndarray
    observations: np.ndarray
    observation_image: np.ndarray
    observation_point: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def observation_counts(self) -> np.ndarray:
        """(S,) int64: observations in each image."""
        return np.bincount(self.observation_image, minlength=len(self))

    @property
    def track_lengths(self) -> np.ndarray:
        """(N,) int64: observations of each point."""
        seen = self.observation_point[self.observation_point >= 0]
        return np.bincount(seen, minlength=len(self.points))

    def reprojection_errors(self) -> np.ndarray:
        """(M,) float64: distance in source pixels from observation to projected point.

        NaN where an observation sees no point or its point is not in front of the camera.
        """
        errors = np.full(len(self.observations), np.nan)
        ends = np.cumsum(self.observation_counts)
        for i, (start, end) in enumerate(zip(ends - self.observation_counts, ends, strict=True)):
            seen = start + np.flatnonzero(self.observation_point[start:end] >= 0)
            projected = geometry.project(
                self.points[self.observation_point[seen]],
                self.cameras.intrinsics[i],
                self.cameras.camera_from_world[i],
            )
            distance = np.linalg.norm(projected[:, :2] - self.observations[seen], axis=-1)
            errors[seen] = np.where(projected[:, 2] > 0, distance, np.nan)
        return errors
