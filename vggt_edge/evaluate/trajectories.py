"""Absolute and relative error of a trajectory, as in Sturm et al. 2012 and in evo.

Poses are aligned by the least-squares similarity (Umeyama 1991) of their centres first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import geometry, metrics
from ..geometry import Similarity

ALIGNMENTS = ("sim3", "se3", "none", "legacy")


class TrajectoryScore(NamedTuple):
    """Root mean squares over the frames, or over the pairs of consecutive frames.

    Fields
        ate              distance of camera centres, in the unit of the truth.
        ate_relative     ``ate`` over the spread of the true centres (root mean square distance from
                         their mean); after "sim3", 1 is what a camera that never moves would score.
        are              angle of the absolute rotation error, degrees.
        rpe_translation  length of the relative pose error's translation, in the unit of the truth.
        rpe_rotation     its angle, degrees.
    """

    ate: float
    ate_relative: float
    are: float
    rpe_translation: float
    rpe_rotation: float


def _spread(points: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum((points - points.mean(axis=0)) ** 2, axis=1))))


def _is_one_place(points: np.ndarray) -> bool:
    return _spread(points) <= 1e-9 * max(1e-12, float(np.abs(points).max()))


def align(centers: np.ndarray, truth: np.ndarray, alignment: str = "sim3") -> Similarity:
    """The similarity that moves (S, 3) camera centres to the true ones.

    Centres that are all in one place have neither scale nor direction: they are only moved.

    Raises:
        ValueError: an unknown alignment, or fewer than three cameras.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"no alignment of trajectories is called {alignment!r}")
    if alignment == "none":
        return Similarity(1.0, np.eye(3), np.zeros(3))
    if len(centers) < 3:
        raise ValueError(f"aligning trajectories needs at least 3 cameras, got {len(centers)}")
    if _is_one_place(centers):
        return Similarity(1.0, np.eye(3), truth.mean(axis=0) - centers.mean(axis=0))
    return geometry.fit_similarity(centers, truth, with_scale=alignment != "se3")


def trajectory_score(
    camera_from_world: np.ndarray, truth: np.ndarray, alignment: str = "sim3"
) -> TrajectoryScore:
    """Score (S, 3, 4) extrinsics in their order; all of them finite.

    Args:
        camera_from_world: predicted, in a world of its own.
        truth: true extrinsics.
        alignment: "sim3", "se3", "none", or "legacy": the script of FastVGGT's ScanNet-50, which
            hands evo the *extrinsics* for poses, those of the truth relative to the first, aligns
            by Sim(3) and then moves the first onto the first.

    Raises:
        ValueError: an unknown alignment, or fewer cameras than it needs (three; two for "none").
    """
    if len(truth) < 2:
        raise ValueError("a trajectory needs at least two cameras")
    if alignment == "legacy":
        truth = geometry.compose_rigid(truth, geometry.invert_rigid(truth[:1]))
        poses, true_poses = camera_from_world, truth
    else:
        poses, true_poses = (geometry.invert_rigid(p) for p in (camera_from_world, truth))
    found = align(poses[:, :, 3], true_poses[:, :, 3], alignment)
    poses = np.concatenate(
        [found.rotation @ poses[:, :, :3], found.apply(poses[:, :, 3])[:, :, None]], axis=-1
    )
    if alignment == "legacy":
        poses = geometry.compose_rigid(
            geometry.compose_rigid(true_poses[:1], geometry.invert_rigid(poses[:1])), poses
        )
    return _score(poses, true_poses)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _score(poses: np.ndarray, truth: np.ndarray) -> TrajectoryScore:
    ate = _root_mean_square(np.linalg.norm(poses[:, :, 3] - truth[:, :, 3], axis=1))
    spread = _spread(truth[:, :, 3])

    def steps(world_from_camera: np.ndarray) -> np.ndarray:
        return geometry.compose_rigid(
            geometry.invert_rigid(world_from_camera[:-1]), world_from_camera[1:]
        )

    step, true_step = steps(poses), steps(truth)
    error = geometry.compose_rigid(geometry.invert_rigid(true_step), step)
    return TrajectoryScore(
        ate=ate,
        ate_relative=ate / spread if spread > 0 else float("inf") if ate > 0 else 0.0,
        are=_root_mean_square(metrics.rotation_angle(poses[:, :, :3], truth[:, :, :3])),
        rpe_translation=_root_mean_square(np.linalg.norm(error[:, :, 3], axis=1)),
        rpe_rotation=_root_mean_square(metrics.rotation_angle(step[:, :, :3], true_step[:, :, :3])),
    )
