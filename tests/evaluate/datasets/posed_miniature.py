"""A small world of exact depth and poses, from which each dataset's layout is written in miniature.

Its cameras are as awkward as real ones: unequal focal lengths, a principal point off the centre,
and a world frame that is no camera's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from synthetic import look_at, trace

from vggt_edge import geometry
from vggt_edge.recording import Recording
from vggt_edge.types import Cameras

WORLD_FROM_ROOM = np.concatenate(
    [
        geometry.quaternion_to_matrix(np.array([0.3, -0.5, 0.2, 0.8])),
        np.array([[1.5], [-0.7], [2.1]]),
    ],
    axis=1,
)


class World(NamedTuple):
    images: np.ndarray
    depth: np.ndarray
    cameras: Cameras

    @property
    def points(self) -> np.ndarray:
        """(N, 3) world points of all pixels."""
        k, pose = self.cameras.intrinsics, self.cameras.camera_from_world
        return geometry.unproject(self.depth.astype(np.float64), k, pose).reshape(-1, 3)


def make_world(
    views: int = 4, height: int = 36, width: int = 48, intrinsics: np.ndarray | None = None
) -> World:
    """Views of a floor, a wall and four balls from an arc about 4 m away, in metres."""
    if intrinsics is None:
        k = [[width * 0.9, 0, width * 0.52], [0, width * 0.94, height * 0.45], [0, 0, 1]]
        intrinsics = np.array(k)
    target = np.array([0.0, 0.0, 4.0])
    angles = np.linspace(-0.3, 0.3, views)
    centers = target + 4 * np.stack([np.sin(angles), 0 * angles - 0.1, -np.cos(angles)], axis=-1)
    camera_from_room = np.stack([look_at(center, target) for center in centers])
    rays = geometry.unproject(
        np.ones((views, height, width)), np.tile(intrinsics, (views, 1, 1)), camera_from_room
    )
    traced = [trace(c, hit - c) for c, hit in zip(centers, rays, strict=True)]
    room_from_world = geometry.invert_rigid(WORLD_FROM_ROOM)
    return World(
        np.rint(255 * np.stack([color for _, color in traced])).astype(np.uint8),
        np.stack([depth for depth, _ in traced]).astype(np.float32),
        Cameras(
            np.tile(intrinsics, (views, 1, 1)),
            geometry.compose_rigid(
                camera_from_room, np.broadcast_to(room_from_world, (views, 3, 4))
            ),
            np.tile([height, width], (views, 1)),
        ),
    )


def save(picture: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def assert_same_cameras(got: Cameras, world: World, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(got.intrinsics, world.cameras.intrinsics, atol=1e3 * tolerance)
    np.testing.assert_allclose(
        got.camera_from_world, world.cameras.camera_from_world, atol=tolerance
    )
    np.testing.assert_array_equal(got.sizes, world.cameras.sizes)


def assert_consistent(recording: Recording, share: float = 0.8) -> None:
    """Pixels of each frame, moved by depth and pose, land in the next at the depth that is there.

    Nothing of how the miniature was written is used: wrong axes, an inverted pose or a flipped
    picture cannot pass.
    """
    cameras = recording.cameras
    assert cameras is not None and recording.depth is not None
    for i in range(len(recording) - 1):
        first, second = recording.depth(i), recording.depth(i + 1)
        assert first.dtype == np.float32
        k, pose = cameras.intrinsics, cameras.camera_from_world
        # Depth may have a size of its own.
        scaled = []
        for depth, frame in ((first, i), (second, i + 1)):
            ratio = np.array(depth.shape[::-1]) / cameras.sizes[frame][::-1]
            shrink = np.diag([*ratio, 1.0])
            shrink[:2, 2] = (ratio - 1) / 2
            scaled.append(shrink @ k[frame])
        world = geometry.unproject(first.astype(np.float64), scaled[0], pose[i])[first > 0]
        there = geometry.project(world, scaled[1], pose[i + 1])
        column, row = np.rint(there[:, :2]).astype(int).T
        rows, cols = second.shape
        inside = (column >= 0) & (column < cols) & (row >= 0) & (row < rows)
        assert inside.mean() > 0.5, "the frames hardly overlap"
        found = second[row[inside], column[inside]]
        known = found > 0
        close = np.abs(found - there[inside, 2]) < 0.04 * there[inside, 2]
        assert close[known].mean() > share
