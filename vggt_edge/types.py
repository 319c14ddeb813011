"""The nouns. Shapes, units and frames are stated here once and obeyed everywhere.

Conventions
    camera frame    OpenCV axes: x right, y down, z forward.
    extrinsics      ``camera_from_world``, 3x4 ``[R|t]``: ``x_camera = R x_world + t``.
                    ``world_from_camera`` is its inverse, the camera's pose in the world.
    pixels          (u, v) = (column, row). Integer coordinates are pixel *centres*: a view covers
                    [-0.5, W - 0.5] x [-0.5, H - 0.5]. File formats that put the first centre at
                    (0.5, 0.5), COLMAP and nerfstudio among them, add 0.5 on writing.
    depth           z in the camera frame, not distance along the ray.
    world           the network's: its origin and axes are the first camera's, its unit arbitrary,
                    unless ``Scene.units`` says "metres".
    confidence      positive, without a fixed scale: compare by rank, never absolutely.
    S, H, W, N      views, rows, columns, points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from . import geometry


class TokenLayout(NamedTuple):
    """How a scene's tokens are arranged: per view ``special`` tokens, then rows x cols patches."""

    views: int
    special: int
    rows: int
    cols: int

    @property
    def per_view(self) -> int:
        """Tokens per view."""
        return self.special + self.rows * self.cols


@dataclass(frozen=True)
class Views:
    """Images as the network sees them, and the way back to the pictures they came from.

    Fields
        images            (S, H, W, 3) uint8, RGB. Padding is white.
        names             S unique names, usable as file names, in the order given.
        sources           S places the pictures came from: a path, "clip.mp4@12.40s", or a URL.
        source_sizes      (S, 2) int, (height, width) of each source picture, upright.
        source_from_view  (S, 3, 3) float64: homogeneous map from view pixels to source pixels.
        valid             (S, 4) int, the box (top, left, bottom, right), end-exclusive, of each
                          view that shows picture and not padding.
    """

    images: np.ndarray
    names: tuple[str, ...]
    sources: tuple[str, ...]
    source_sizes: np.ndarray
    source_from_view: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the views."""
        return self.images.shape[1], self.images.shape[2]

    def __getitem__(self, index: slice | list[int] | np.ndarray) -> Views:
        """A subset of the views, by slice, list of indices or boolean mask."""
        order = np.arange(len(self))[index]
        return Views(
            images=self.images[order],
            names=tuple(self.names[i] for i in order),
            sources=tuple(self.sources[i] for i in order),
            source_sizes=self.source_sizes[order],
            source_from_view=self.source_from_view[order],
            valid=self.valid[order],
        )

    def valid_mask(self) -> np.ndarray:
        """(S, H, W) bool: True where a view shows picture and not padding."""
        rows, cols = np.arange(self.size[0]), np.arange(self.size[1])
        top, left, bottom, right = (self.valid[:, i, None] for i in range(4))
        in_rows = (rows >= top) & (rows < bottom)
        in_cols = (cols >= left) & (cols < right)
        return in_rows[:, :, None] & in_cols[:, None, :]

    @staticmethod
    def from_images(images: np.ndarray, names: tuple[str, ...] | None = None) -> Views:
        """Views of pictures that are already of the network's size: (S, H, W, 3) uint8, RGB."""
        count, height, width, _ = images.shape
        names = names or tuple(f"view_{i:04d}" for i in range(count))
        return Views(
            images=images,
            names=names,
            sources=names,
            source_sizes=np.tile(np.array([height, width]), (count, 1)),
            source_from_view=np.tile(np.eye(3), (count, 1, 1)),
            valid=np.tile(np.array([0, 0, height, width]), (count, 1)),
        )


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras.

    Fields
        intrinsics         (S, 3, 3) float64, pixels; principal point in the pixel convention above.
        camera_from_world  (S, 3, 4) float64, extrinsics.
        sizes              (S, 2) int, (height, width) of the images the intrinsics belong to.
    """

    intrinsics: np.ndarray
    camera_from_world: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.intrinsics)

    @property
    def world_from_camera(self) -> np.ndarray:
        """(S, 3, 4) float64: camera poses in the world; the last column is the camera's centre."""
        return geometry.invert_rigid(self.camera_from_world)

    @property
    def centers(self) -> np.ndarray:
        """(S, 3) float64: camera centres in the world."""
        return self.world_from_camera[:, :, 3]


@dataclass(frozen=True)
class Prediction:
    """What one forward pass says about ``views``. A head that was not run leaves None.

    Fields
        views              the input.
        cameras            for the *view* images; ``source_cameras`` are for the source pictures.
        depth              (S, H, W) float32.
        depth_confidence   (S, H, W) float32.
        points             (S, H, W, 3) float32, world frame, straight from the point head.
        points_confidence  (S, H, W) float32.
    """

    views: Views
    cameras: Cameras | None = None
    depth: np.ndarray | None = None
    depth_confidence: np.ndarray | None = None
    points: np.ndarray | None = None
    points_confidence: np.ndarray | None = None

    @property
    def source_cameras(self) -> Cameras:
        """The same cameras with intrinsics for the source pictures (camera head required)."""
        if self.cameras is None:
            raise ValueError(
                "source_cameras needs the camera head: predict(..., heads=('camera', ...))"
            )
        return replace(
            self.cameras,
            intrinsics=self.views.source_from_view @ self.cameras.intrinsics,
            sizes=self.views.source_sizes,
        )

    def world_points(self) -> np.ndarray:
        """(S, H, W, 3) float32: world points from depth and cameras (both heads required)."""
        if self.cameras is None or self.depth is None:
            raise ValueError("world_points needs heads=('camera', 'depth')")
        return geometry.unproject(
            self.depth, self.cameras.intrinsics, self.cameras.camera_from_world
        ).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """A reconstruction: cameras, and a filtered, coloured point cloud that knows its pixels.

    Fields
        prediction   what the network said; cameras and depth live here.
        points       (N, 3) float32, world frame.
        colors       (N, 3) uint8, RGB.
        confidence   (N,) float32.
        view_index   (N,) int32: the view each point was seen in.
        pixel        (N, 2) int32: its (column, row) in that view.
        units        "arbitrary" or "metres".
    """

    prediction: Prediction
    points: np.ndarray
    colors: np.ndarray
    confidence: np.ndarray
    view_index: np.ndarray
    pixel: np.ndarray
    units: str = "arbitrary"

    @property
    def views(self) -> Views:
        """The input views."""
        return self.prediction.views

    @property
    def cameras(self) -> Cameras:
        """The cameras, for the view images."""
        if self.prediction.cameras is None:
            raise ValueError("this scene was predicted without the camera head")
        return self.prediction.cameras
