"""Another VGGT as the teacher of a small one, on pictures that nobody has labelled.

The teacher's answers become the targets of the student's own losses (Hinton et al., 2015): cameras,
depth, and the points that both give together, which VGGT's authors found more accurate than those
of its point head (VGGT, 2025, section 4.3). A pixel's error counts by the teacher's confidence
there, which was trained as the inverse of the error to be expected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import pictures, sources
from ..errors import InputError
from ..model.vggt import VGGT
from ..predict import cameras_from_encoding
from ..worlds import WorldBatch
from ..worlds.camera_effects import photograph
from .batch import Batch, make_batch
from .crop import cut, source_from_view, to_pictures
from .curriculum import Draw

# Of each set so much is not taught, where the teacher is least sure: the sky, and reflections.
UNSURE = 0.1
MOST_WEIGHT = 4.0
LEAST_ZOOM = 0.6
FARTHEST_STRIDE = 10
UNORDERED = 1 / 3


def scenes_of(folder: Path) -> list[tuple[Path, ...]]:
    """The pictures of a folder and of the folders in it, each folder a scene of its own.

    Raises:
        ImageError: the folder does not exist or holds no picture.
        InputError: a folder of videos.
    """
    folders = [folder]
    if folder.is_dir():
        inner = [
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        ]
        folders = sorted(inner, key=lambda path: sources.natural_key(str(path)))
        if not folders or any(path.is_file() for path in folder.iterdir()):
            folders = [folder]
    scenes = []
    for one in folders:
        files = sources.expand(one, folder="")
        if any(file.is_video for file in files):
            raise InputError(f"{one} holds videos; save their frames as pictures first")
        scenes.append(tuple(Path(file.path) for file in files))
    return scenes


class Distilled:
    """Sets of unlabelled pictures, labelled by a teacher.

    Args:
        teacher: with camera and depth heads, on the device of the training. It sees the pictures at
            about the size it was made for, whatever the student sees.
        scenes: pictures of one place each, in the order they were taken.
        augment: whether to zoom in, and to show the student what cameras do to pictures; the
            teacher sees them clean.

    Raises:
        InputError: the teacher lacks a head, or there are no pictures.
        ImageError: a picture cannot be read.
    """

    def __init__(self, teacher: VGGT, scenes: list[tuple[Path, ...]], augment: bool = True):
        if absent := {"camera", "depth"} - set(teacher.config.heads):
            raise InputError(f"the teacher has no {', '.join(sorted(absent))} head; take another")
        if not any(scenes):
            raise InputError("no pictures to distil from")
        self.teacher = teacher.eval().requires_grad_(False)
        self.augment = augment
        self.scenes = [scene for scene in scenes if scene]
        with pictures.quiet():
            self.sizes = [
                np.array([pictures.size_of(str(path)) for path in scene]) for scene in self.scenes
            ]
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update("\n".join(path.name for path in scene).encode() + b"\n\n")
        self.digest = digest.hexdigest()[:16]

    def read(self, plan: Draw) -> Callable[[torch.device], Batch]:
        """The sets of a step, at the teacher's size.

        Raises:
            ImageError: a picture is missing or damaged.
        """
        rng = np.random.default_rng(plan.seed)
        patch = self.teacher.config.patch_size
        ratio = max(1, round(self.teacher.config.image_size / max(plan.height, plan.width)))
        size = (plan.height * ratio, plan.width * ratio)
        if size[0] % patch or size[1] % patch:
            raise InputError(
                f"the teacher's patches of {patch} pixels do not fit pictures of "
                f"{size[1]}x{size[0]}; teacher and student need the same patch size"
            )
        sets, seeds = [], []
        for _ in range(plan.worlds * plan.groups):
            which, frames = self._choose(plan, rng)
            zoom = LEAST_ZOOM ** rng.random() if self.augment else 1.0
            sizes = self.sizes[which][frames]
            maps = [source_from_view(_centred(h, w), (h, w), size, zoom) for h, w in sizes.tolist()]
            views = cut([self.scenes[which][f] for f in frames], maps, size, sizes)
            sets.append(to_pictures(views))
            seeds.append([int(seed) for seed in rng.integers(1 << 31, size=plan.views)])
        return partial(self._batch, torch.stack(sets), seeds, ratio)

    def _choose(self, plan: Draw, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A scene, and frames of it at a stride that grows with the change asked for."""
        counts = np.array([len(scene) for scene in self.scenes])
        weights = np.sqrt(counts) * (counts >= min(plan.views, counts.max()))
        which = int(rng.choice(len(counts), p=weights / weights.sum()))
        count = int(counts[which])
        farthest = max(1, round(FARTHEST_STRIDE * (1 - plan.overlap)))
        stride = int(rng.integers(1, max(1, min(farthest, count // plan.views)) + 1))
        start = int(rng.integers(max(1, count - stride * (plan.views - 1))))
        frames = (start + stride * np.arange(plan.views)) % count
        return which, rng.permutation(frames) if rng.random() < UNORDERED else frames

    def _batch(
        self, clean: Tensor, seeds: list[list[int]], ratio: int, device: torch.device
    ) -> Batch:
        clean = clean.to(device)
        world, weight = label(self.teacher, clean, ratio)
        if self.augment:
            seen = [
                photograph(images, own, [own[0]] * len(own))
                for images, own in zip(world.images, seeds, strict=True)
            ]
            world = world._replace(images=torch.stack(seen))
        return make_batch(world, weight)


def _centred(height: int, width: int) -> np.ndarray:
    """Intrinsics of an unknown camera that cut out around the middle, without stretching."""
    return np.array([[1.0, 0, (width - 1) / 2], [0, 1.0, (height - 1) / 2], [0, 0, 1]])


@torch.inference_mode()
def label(teacher: VGGT, images: Tensor, ratio: int) -> tuple[WorldBatch, Tensor]:
    """What a teacher says about sets of views, at a size smaller by a whole ``ratio``.

    Args:
        teacher: with camera and depth heads.
        images: (B, S, 3, ratio * H, ratio * W) in [0, 1].
        ratio: of the teacher's size to the student's.

    Returns:
        the views of (H, W) with the teacher's cameras and depth, and (B, S, H, W) weights, 1 on
        average: the teacher's confidence, cut off at 4 times its mean in the set. Valid are all
        pixels but the tenth of a set with the least confidence.
    """
    size = (images.shape[-2] // ratio, images.shape[-1] // ratio)
    parts = []
    for one in images:  # one at a time: the teacher may be a hundred times the student
        output = teacher(one[None], heads=("camera", "depth"))
        if output.pose_enc is None or output.depth is None or output.depth_conf is None:
            raise ValueError("a teacher needs camera and depth heads")
        middle = slice(ratio // 2, None, ratio)
        depth = output.depth[0, :, middle, middle, 0].float()
        confidence = output.depth_conf[0, :, middle, middle].float()
        # Not torch.quantile, which takes no more than 16 million values.
        floor = confidence.flatten().kthvalue(1 + int(UNSURE * (confidence.numel() - 1))).values
        valid = (confidence >= floor) & depth.isfinite() & (depth > 0)
        weight = (confidence / confidence[valid].mean().clamp(min=1e-6)).clamp(max=MOST_WEIGHT)
        cameras = cameras_from_encoding(output.pose_enc[0].float().cpu().numpy(), size)
        parts.append(
            (
                F.avg_pool2d(one, ratio),
                torch.where(valid, depth, 0.0),
                valid,
                torch.from_numpy(cameras.intrinsics).float().to(one.device),
                torch.from_numpy(cameras.camera_from_world).float().to(one.device),
                weight / weight[valid].mean().clamp(min=1e-6),
            )
        )
    *fields, weights = (torch.stack(column) for column in zip(*parts, strict=True))
    return WorldBatch(*fields), weights
