"""Pictures with known truth: what every dataset is turned into, and all that scoring knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .types import Cameras


@dataclass(frozen=True)
class Recording:
    """One sequence of pictures of one static scene. Frames and pixels are those of ``types``.

    Truth that a dataset does not have is None. Depth and points are read when asked for.

    Fields
        name     unique in its dataset and usable as a relative path: "redkitchen/seq-03".
        paths    S picture files, in the order they were taken.
        cameras  S true cameras, of the stored pictures; lens distortion is not modelled.
        depth    index to (h, w) float32, z in the camera frame, 0 where unknown; its own size may
                 differ from the picture's but shows the same field of view.
        points   () to (N, 3) float64, the true surface in the world frame of ``cameras``.
        units    "metres" or "arbitrary", of the poses, the depth and the points.
    """

    name: str
    paths: tuple[Path, ...]
    cameras: Cameras | None = None
    depth: Callable[[int], np.ndarray] | None = None
    points: Callable[[], np.ndarray] | None = None
    units: str = "metres"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: slice | list[int] | np.ndarray) -> Recording:
        """Some of the frames, by slice, list of indices or boolean mask."""
        order = [int(i) for i in np.arange(len(self))[index]]
        cameras, depth = self.cameras, self.depth
        return replace(
            self,
            paths=tuple(self.paths[i] for i in order),
            cameras=None
            if cameras is None
            else Cameras(
                cameras.intrinsics[order], cameras.camera_from_world[order], cameras.sizes[order]
            ),
            depth=None if depth is None else lambda i: depth(order[i]),
        )
