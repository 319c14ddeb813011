"""A walk round a corridor with exact depth and poses, and a perfect or spoilt predictor of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from synthetic import look_at

from vggt_edge import geometry
from vggt_edge.types import Cameras, Prediction, Views

# The corridor: inside the outer box, outside the inner one; metres, y down.
OUTER = np.array([[-6.0, -1.5, -4.0], [6.0, 1.5, 4.0]])
INNER = np.array([[-3.0, -1.5, -1.2], [3.0, 1.5, 1.2]])


def trace_corridor(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(..., 3) rays to the (...,) distance of their first hit, in ray lengths."""
    with np.errstate(divide="ignore", invalid="ignore"):
        outer = np.max((OUTER[:, None, None] - origin) / rays, axis=0).min(axis=-1)
        near, far = np.sort((INNER[:, None, None] - origin) / rays, axis=0)
    entry, leave = near.max(axis=-1), far.min(axis=-1)
    return np.where((entry < leave) & (entry > 0), np.minimum(entry, outer), outer)


def make_walk(frames: int, turns: float = 1.0, height: int = 20, width: int = 28) -> Prediction:
    """The truth of a walk of so many turns round the corridor; frames are named by number."""
    angle = np.linspace(0, 2 * np.pi * turns, frames, endpoint=False)
    bob = 0.1 * np.stack([np.sin(9 * angle), np.sin(7 * angle), np.cos(8 * angle)], axis=-1)
    ring = np.stack([4.5 * np.sin(angle), 0 * angle, -2.6 * np.cos(angle)], axis=-1)
    ahead = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=-1)
    side = 0.5 * np.sin(3 * angle)[:, None] * np.cross(ahead, [0, 1, 0])
    centers = ring + bob
    poses = np.stack([look_at(c, c + a + s) for c, a, s in zip(centers, ahead, side, strict=True)])
    matrix = np.array([[0.7 * width, 0, width / 2], [0, 0.7 * width, height / 2], [0, 0, 1]])
    cameras = Cameras(
        np.tile(matrix, (frames, 1, 1)), poses, np.tile(np.array([height, width]), (frames, 1))
    )
    unit = geometry.unproject(np.ones((frames, height, width)), cameras.intrinsics, poses)
    depth = np.stack([trace_corridor(c, u - c) for c, u in zip(cameras.centers, unit, strict=True)])
    hit = (
        cameras.centers[:, None, None] + (unit - cameras.centers[:, None, None]) * depth[..., None]
    )
    images = np.clip(127 + 60 * np.sin(4 * hit) + 40 * np.sin(11 * hit), 0, 255).astype(np.uint8)
    views = Views.from_images(images, tuple(f"{i:04d}" for i in range(frames)))
    confidence = np.ones_like(depth, dtype=np.float32)
    return Prediction(views, cameras, depth.astype(np.float32), confidence)


def similarity_of(truth: Prediction, reach: float = 1.5) -> np.ndarray:
    """(S, S) a stand-in for retrieval: near 1 for cameras that stand and look alike."""
    centers, forward = truth.cameras.centers, truth.cameras.camera_from_world[:, 2, :3]
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    return np.exp(-((distance / reach) ** 2)) * np.maximum(forward @ forward.T, 0)


@dataclass
class Oracle:
    """Predicts the truth of views, known by name, in the first one's frame at a scale of its own.

    ``drift`` stretches each call along its way, by this share at its last frame, as networks do.
    ``noise`` spoils each call: depth and position of each frame by this share, rotation by as many
    radians. ``outliers`` is the share of pixels with a random depth. ``fail`` names views whose
    passes fail, each so many times.
    """

    truth: Prediction
    drift: float = 0.0
    noise: float = 0.0
    outliers: float = 0.0
    fail: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, views: Views) -> Prediction:
        self.calls.append(views.names)
        for name in views.names:
            if self.fail.get(name, 0) > 0:
                self.fail[name] -= 1
                raise RuntimeError(f"no luck with {name}")
        frames = [int(name) for name in views.names]
        rng = np.random.default_rng([self.seed, *frames])
        scale = float(np.exp(rng.normal(0, 0.7)))
        poses = self.truth.cameras.camera_from_world[frames]
        poses = geometry.compose_rigid(poses, geometry.invert_rigid(poses[0]))
        depth = self.truth.depth[frames].astype(np.float64)
        if self.drift:
            stretch = 1 + self.drift * np.argsort(np.argsort(frames)) / len(frames)
            pose = geometry.invert_rigid(poses)
            steps = np.diff(pose[np.argsort(frames), :, 3], axis=0, prepend=0)
            walked = np.cumsum(steps * np.sort(stretch)[:, None], axis=0)
            pose[np.argsort(frames), :, 3] = walked
            poses, depth = geometry.invert_rigid(pose), depth * stretch[:, None, None]
        if self.noise:
            turn = rng.normal(0, self.noise, (len(frames), 4)) * [0.5, 0.5, 0.5, 0] + [0, 0, 0, 1]
            move = rng.normal(0, self.noise, (len(frames), 3, 1))
            wobble = np.concatenate([geometry.quaternion_to_matrix(turn), move], axis=-1)
            poses = geometry.compose_rigid(wobble, poses)
            depth *= np.exp(rng.normal(0, self.noise, (len(frames), 1, 1)))
            depth *= np.exp(rng.normal(0, self.noise, depth.shape))
        wrong = rng.random(depth.shape) < self.outliers
        depth = np.where(wrong, rng.uniform(0.1, 10, depth.shape), depth)
        poses[:, :, 3] *= scale
        cameras = replace(
            self.truth.cameras,
            intrinsics=self.truth.cameras.intrinsics[frames],
            camera_from_world=poses,
            sizes=self.truth.cameras.sizes[frames],
        )
        confidence = rng.uniform(1, 2, depth.shape).astype(np.float32)
        return Prediction(views, cameras, (scale * depth).astype(np.float32), confidence)


def trajectory_error(cameras: Cameras, truth: Cameras) -> float:
    """Absolute trajectory error: root mean square distance of centres after the best similarity."""
    fit = geometry.fit_similarity(cameras.centers, truth.centers)
    return float(np.sqrt(np.mean(np.sum((fit.apply(cameras.centers) - truth.centers) ** 2, -1))))
