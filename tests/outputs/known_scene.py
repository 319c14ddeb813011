"""A scene whose every number is known: a slanted plane seen by three cameras of a wide picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

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


def with_pictures(scene: Scene, folder: Path, orientation: int = 1) -> Scene:
    """The scene with real photographs behind its views, stored turned by their EXIF orientation."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = scene.views.source_sizes[0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    paths = []
    for i, name in enumerate(scene.views.names):
        picture = Image.fromarray(np.full((height, width, 3), 40 * i, np.uint8))
        if orientation == 6:
            picture = picture.rotate(90, expand=True)
        paths.append(folder / f"{name}.jpg")
        picture.save(paths[-1], exif=exif)
    views = replace(scene.views, sources=tuple(map(str, paths)))
    return replace(scene, prediction=replace(scene.prediction, views=views))
