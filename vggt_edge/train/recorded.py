"""Recordings with true cameras and depth as training data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import geometry, pixels
from ..errors import InputError
from ..recording import Recording
from ..types import Cameras
from ..worlds import WorldBatch
from ..worlds.camera_effects import photograph
from .batch import Batch, make_batch
from .crop import cut, source_from_view, to_pictures
from .curriculum import Draw

# Cells of a picture by which the overlap of two frames is judged.
CELLS = (24, 32)
CANDIDATES = 8
# Frames taken soon after each other, among which half of the candidates are.
NEAR = 24
LEAST_ZOOM = 0.6
# Two cells show the same surface when their depths differ by no more than this share.
SAME_SURFACE = 0.1
UNORDERED = 1 / 3


class Posed(NamedTuple):
    """A recording that has both cameras and depth."""

    name: str
    paths: tuple[Path, ...]
    cameras: Cameras
    depth: Callable[[int], np.ndarray]


class Recorded:
    """Sets of views from recordings, with cropping, aspect and colour augmentation.

    Args:
        recordings: those without cameras or depth are left out; see ``left_out``.
        augment: whether to zoom in, and to add what cameras do to pictures.

    Raises:
        InputError: no recording has both cameras and depth, or one's principal point lies outside
            of its pictures.
    """

    def __init__(self, recordings: Sequence[Recording], augment: bool = True):
        self.augment = augment
        self.recordings = [
            Posed(r.name, r.paths, r.cameras, r.depth)
            for r in recordings
            if r.cameras is not None and r.depth is not None and len(r)
        ]
        used = {recording.name for recording in self.recordings}
        self.left_out = [r.name for r in recordings if r.name not in used]
        if not self.recordings:
            raise InputError(
                "none of the recordings has cameras and depth; train on others, or distil from "
                "their pictures with --teacher"
            )
        digest = hashlib.sha256()
        for recording in self.recordings:
            cameras = recording.cameras
            middle, (rows, cols) = cameras.intrinsics[:, :2, 2], cameras.sizes.T
            if not ((middle > 1).all() and (middle < np.stack([cols, rows], 1) - 1).all()):
                raise InputError(
                    f"{recording.name}: a principal point lies outside of its picture, so that "
                    "nothing can be cut out around it; leave the recording out"
                )
            digest.update(f"{recording.name} {len(cameras)}".encode())
            digest.update(cameras.intrinsics.tobytes() + cameras.camera_from_world.tobytes())
        self.digest = digest.hexdigest()[:16]
        self._cells = lru_cache(maxsize=1 << 15)(self._read_cells)

    def read(self, plan: Draw) -> Callable[[torch.device], Batch]:
        """The sets of a step.

        Raises:
            InputError: a file is missing or damaged.
        """
        rng = np.random.default_rng(plan.seed)
        sets = [self._set(plan, rng) for _ in range(plan.worlds * plan.groups)]
        world = WorldBatch(*(torch.stack(column) for column in zip(*sets, strict=True)))
        return partial(_batch, world)

    def choose(
        self, which: int, views: int, overlap: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Frames of a recording, each sharing about ``overlap`` with the one before it.

        Of a few candidates the one is taken whose share is nearest. A recording with fewer frames
        than views has to show some again.
        """
        count = len(self.recordings[which].paths)
        chosen = [int(rng.integers(count))]
        while len(chosen) < views:
            last = chosen[-1]
            near = last + rng.integers(-NEAR, NEAR + 1, CANDIDATES // 2)
            far = rng.integers(count, size=CANDIDATES - len(near))
            candidates = np.unique(np.concatenate([near.clip(0, count - 1), far]))
            fresh = candidates[~np.isin(candidates, chosen)]
            if not len(fresh):
                fresh = np.setdiff1d(np.arange(count), chosen)
            if not len(fresh):
                chosen.append(int(rng.integers(count)))
                continue
            shares = np.array([self.share(which, last, int(frame)) for frame in fresh])
            # Some overlap is better than none, however little was asked for.
            miss = np.abs(shares - overlap) + 1.0 * (shares < 0.02)
            chosen.append(int(fresh[miss.argmin()]))
        order = np.array(chosen)
        return rng.permutation(order) if rng.random() < UNORDERED else order

    def share(self, which: int, first: int, second: int) -> float:
        """The share of what frame ``first`` sees that ``second`` sees as well."""
        depth, k, pose = self._cells(which, first)
        there, other_k, other_pose = self._cells(which, second)
        known = depth > 0
        if not known.any():
            return 0.0
        points = geometry.unproject(depth, k, pose)[known]
        column, row, z = geometry.project(points, other_k, other_pose).T
        u, v = (np.rint(x.clip(-9, 999)).astype(int) for x in (column, row))
        inside = (z > 0) & (u >= 0) & (u < CELLS[1]) & (v >= 0) & (v < CELLS[0])
        seen, z = there[v[inside], u[inside]], z[inside]
        same = (seen > 0) & (np.abs(seen - z) < SAME_SURFACE * z)
        return float(same.sum() / known.sum())

    def _read_cells(self, which: int, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth at the middles of cells, with intrinsics in cells, and the pose."""
        cameras = self.recordings[which].cameras
        full = self.recordings[which].depth(frame)
        rows, cols = (
            ((np.arange(n) + 0.5) / n * size).astype(int)
            for n, size in zip(CELLS, full.shape, strict=True)
        )
        k = pixels.truth_from_source(CELLS, cameras.sizes[frame]) @ cameras.intrinsics[frame]
        return full[np.ix_(rows, cols)].astype(np.float64), k, cameras.camera_from_world[frame]

    def _set(self, plan: Draw, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        lengths = np.array([len(r.paths) for r in self.recordings], float)
        # A long recording has more to show, but not in proportion.
        weights = np.sqrt(lengths) * np.where(lengths >= min(plan.views, lengths.max()), 1, 0)
        which = int(rng.choice(len(lengths), p=weights / weights.sum()))
        recording = self.recordings[which]
        cameras = recording.cameras
        frames = self.choose(which, plan.views, plan.overlap, rng)
        zoom = LEAST_ZOOM ** rng.random() if self.augment else 1.0
        size = (plan.height, plan.width)
        maps = [
            source_from_view(cameras.intrinsics[f], tuple(cameras.sizes[f]), size, zoom)
            for f in frames
        ]
        views = cut([recording.paths[f] for f in frames], maps, size, cameras.sizes[frames])
        true = np.stack(
            [pixels.truth_in_view(views, i, recording.depth(int(f))) for i, f in enumerate(frames)]
        )
        images = to_pictures(views)
        own = [int(seed) for seed in rng.integers(1 << 31, size=plan.views)]
        if self.augment:
            images = photograph(images, own, [own[0]] * plan.views)
        poses = cameras.camera_from_world[frames]
        # Relative to the first camera before the precision is halved: a world may be far away.
        poses = geometry.compose_rigid(poses, geometry.invert_rigid(poses[:1]))
        intrinsics = pixels.view_intrinsics(views, cameras.intrinsics[frames])
        return (
            images,
            torch.from_numpy(true),
            torch.from_numpy(true > 0),
            torch.from_numpy(intrinsics).float(),
            torch.from_numpy(poses).float(),
        )


def _batch(world: WorldBatch, device: torch.device) -> Batch:
    return make_batch(WorldBatch(*(tensor.to(device) for tensor in world)))
