"""A small analytic scene with exact depth, cameras and colours, ray traced in numpy."""

from __future__ import annotations

import numpy as np

from vggt_edge import geometry
from vggt_edge.types import Cameras, Prediction, Scene, Views

# Centre and radius of each ball; they stand on the floor, y = 1, before the wall, z = 6.
BALLS = np.array(
    [[-0.9, 0.4, 3.6, 0.6], [0.8, 0.5, 4.2, 0.5], [0.1, 0.7, 3.0, 0.3], [0.2, -0.6, 4.8, 0.5]]
)


def look_at(center: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 4) camera_from_world of a level camera at ``center`` that looks at ``target``."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.concatenate([rotation, -rotation @ center[:, None]], axis=-1)


def trace(origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) rays to the (...,) distance of their first hit, in ray lengths, and its colour."""
    with np.errstate(divide="ignore"):
        floor = (1.0 - origin[1]) / rays[..., 1]
        wall = (6.0 - origin[2]) / rays[..., 2]
    hits = [np.where(floor > 0, floor, np.inf), np.where(wall > 0, wall, np.inf)]
    for x, y, z, radius in BALLS:
        to_ball = origin - np.array([x, y, z])
        a, b = np.sum(rays * rays, -1), rays @ to_ball
        under = b * b - a * (to_ball @ to_ball - radius**2)
        near = (-b - np.sqrt(np.maximum(under, 0))) / a
        hits.append(np.where((under > 0) & (near > 0), near, np.inf))
    which, distance = np.argmin(hits, axis=0), np.min(hits, axis=0)
    hit = origin + rays * distance[..., None]
    hues = np.array([[0.8, 0.7, 0.5], [0.5, 0.6, 0.8], [1, 0.3, 0.2], [0.3, 0.9, 0.4]])
    hues = np.concatenate([hues, [[0.9, 0.8, 0.2], [0.7, 0.3, 0.9]]])[which]
    pattern = sum(np.sin(f * hit + p).sum(-1) for f, p in ((3.0, 0.3), (7.1, 1.1), (13.7, 2.2)))
    return distance, np.clip(hues * (0.6 + 0.05 * pattern[..., None]), 0, 1)


def make_scene(
    views: int = 6, height: int = 56, width: int = 70, seed: int = 0, source_scale: int = 2
) -> Scene:
    """A scene of floor, wall and four balls seen from an arc; every pixel becomes a point.

    The first camera is the world's frame. The source pictures are ``source_scale`` times as large
    as the views; confidence is random in [1, 2] and means nothing.
    """
    rng = np.random.default_rng(seed)
    target = np.array([0.0, 0.0, 4.0])
    angles = np.linspace(0, 0.6, views) * np.where(np.arange(views) % 2, 1, -1)
    centers = target + 4 * np.stack([np.sin(angles), np.zeros(views), -np.cos(angles)], axis=-1)
    centers[1:] += rng.normal(scale=0.05, size=(views - 1, 3))
    camera_from_world = np.stack([look_at(center, target) for center in centers])
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    cameras = Cameras(
        intrinsics=np.tile(intrinsics, (views, 1, 1)),
        camera_from_world=camera_from_world,
        sizes=np.tile(np.array([height, width]), (views, 1)),
    )
    unit_depth = geometry.unproject(
        np.ones((views, height, width)), cameras.intrinsics, camera_from_world
    )
    traced = [
        trace(center, hit - center) for center, hit in zip(cameras.centers, unit_depth, strict=True)
    ]
    depth = np.stack([t[0] for t in traced]).astype(np.float32)
    images = np.rint(255 * np.stack([t[1] for t in traced])).astype(np.uint8)
    scale, shift = float(source_scale), (source_scale - 1) / 2
    prediction = Prediction(
        views=Views(
            images=images,
            names=tuple(f"photo_{i:03d}.png" for i in range(views)),
            sources=tuple(f"photos/photo_{i:03d}.png" for i in range(views)),
            source_sizes=np.tile(np.array([height, width]) * source_scale, (views, 1)),
            source_from_view=np.tile(
                np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1]]), (views, 1, 1)
            ),
            valid=np.tile(np.array([0, 0, height, width]), (views, 1)),
        ),
        cameras=cameras,
        depth=depth,
        depth_confidence=rng.uniform(1, 2, depth.shape).astype(np.float32),
    )
    view, row, column = (a.ravel() for a in np.indices(depth.shape))
    return Scene(
        prediction=prediction,
        points=prediction.world_points().reshape(-1, 3),
        colors=images.reshape(-1, 3),
        confidence=prediction.depth_confidence.ravel(),
        view_index=view.astype(np.int32),
        pixel=np.stack([column, row], axis=-1).astype(np.int32),
    )
