"""A scene whose every number is known: a slanted plane seen by three cameras of a wide picture."""

from __future__ import annotations

import numpy as np

from vggt_edge import geometry
from vggt_edge.types import Cameras, Prediction, Scene, Views

HEIGHT, WIDTH = 24, 32
NAMES = ("left", "middle", "right ü")


def make_scene(units: str = "arbitrary") -> Scene:
    rng = np.random.default_rng(0)
    count = len(NAMES)
    rotation = geometry.quaternion_to_matrix(
        np.array([[0, 0, 0, 1.0], [0.02, 0.2, -0.03, 1], [-0.1, -0.2, 0.05, 1]])
    )
    centers = np.array([[0, 0, 0], [0.5, -0.1, 0.2], [-0.4, 0.2, -0.1]])
    poses = np.concatenate([rotation, centers[:, :, None]], axis=2)
    cameras = Cameras(
        intrinsics=np.tile([[30.0, 0, 15.2], [0, 31, 11.9], [0, 0, 1]], (count, 1, 1)),
        camera_from_world=geometry.invert_rigid(poses),
        sizes=np.tile([HEIGHT, WIDTH], (count, 1)),
    )
    # The view shows a 64 x 36 picture, halved, between white bars of three rows.
    views = Views(
        images=rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8),
        names=NAMES,
        sources=tuple(f"/nowhere/{name}.jpg" for name in NAMES),
        source_sizes=np.tile([36, 64], (count, 1)),
        source_from_view=np.tile([[2, 0, 0.5], [0, 2, -5.5], [0, 0, 1.0]], (count, 1, 1)),
        valid=np.tile([3, 0, 21, WIDTH], (count, 1)),
    )
    depth = rng.uniform(1.0, 3.0, (count, HEIGHT, WIDTH)).astype(np.float32)
    confidence = rng.uniform(1.0, 9.0, depth.shape).astype(np.float32)
    prediction = Prediction(views, cameras, depth, confidence)
    view_index, row, column = np.nonzero(views.valid_mask())
    return Scene(
        prediction=prediction,
        points=prediction.world_points()[view_index, row, column],
        colors=views.images[view_index, row, column],
        confidence=confidence[view_index, row, column],
        view_index=view_index.astype(np.int32),
        pixel=np.stack([column, row], axis=1).astype(np.int32),
        units=units,
    )
