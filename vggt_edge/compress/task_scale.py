"""Smoothing exponents chosen by what comes out of the heads.

AWQ's search asks what a layer's own output loses; what matters is cameras, depth and points. For
one block at a time all its layers take ``gain ~ 1 / |X|^a`` with statistics of patch tokens, the
block is quantized, the rest of the network runs as it stands, and the exponent a of least

    L = reconstruction + camera + depth + points + consistency

is kept (after QVGGT, Pan et al., CVPR 2026). Terms, each relative or in radians, so that they add:

    reconstruction  mean relative squared error of the block's layers.
    camera          Huber of translation, rotation matrix and fields of view.
    depth           mean |log d - log d*| where d* is valid.
    points          mean |p - p*| / mean |p*| of the point head, where there is one.
    consistency     between heads: points unprojected from depth with the cameras, against the point
                    head's, or against the target's where there is none.

Targets are the float network's outputs, or ground truth in VGGT's normalisation (first camera's
frame, mean distance of valid points 1). The exponents that ``smooth`` prefers for each layer by
itself are among the candidates, so that L never gets worse than theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import geometry
from ..model.vggt import VGGT, VGGTOutput
from ..predict import cameras_from_encoding
from ..types import Cameras
from .layer import Choice, Problem, output_error
from .smooth import smooth, smoothed

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
HUBER = 0.1


class Truth(NamedTuple):
    """Ground truth of one scene.

    cameras  of the views.
    depth    (S, H, W), any unit.
    valid    (S, H, W) bool.
    """

    cameras: Cameras
    depth: np.ndarray
    valid: np.ndarray


class Targets(NamedTuple):
    """What the heads shall say of one scene, in the frame of its first camera; None is not scored.

    cameras  of the views.
    depth    (S, H, W).
    points   (S, H, W, 3), unprojected from depth with the cameras; the point head's without these.
    valid    (S, H, W) bool.
    """

    cameras: Cameras | None
    depth: np.ndarray | None
    points: np.ndarray | None
    valid: np.ndarray


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor[0].float().cpu().numpy()


def _spoken(output: VGGTOutput) -> tuple[Cameras | None, np.ndarray | None, np.ndarray | None]:
    """Cameras, depth, and points unprojected from both."""
    pose, depth = _array(output.pose_enc), _array(output.depth)
    depth = None if depth is None else depth[..., 0]
    cameras = points = None
    if pose is not None and depth is not None:
        cameras = cameras_from_encoding(pose, (depth.shape[1], depth.shape[2]))
        points = geometry.unproject(depth, cameras.intrinsics, cameras.camera_from_world)
    elif pose is not None:
        cameras = cameras_from_encoding(pose, (1, 1))
    return cameras, depth, points


def targets_of(output: VGGTOutput) -> Targets:
    """A float network's output as the teacher."""
    cameras, depth, points = _spoken(output)
    world = _array(output.world_points)
    like = (
        depth if depth is not None else world[..., 0] if world is not None else np.ones((1, 1, 1))
    )
    if points is None:
        points = world
    return Targets(cameras, depth, points, np.ones(like.shape, dtype=bool))


def targets_from_truth(truth: Truth) -> Targets:
    """Ground truth in VGGT's normalisation."""
    poses = truth.cameras.camera_from_world
    relative = geometry.compose_rigid(poses, geometry.invert_rigid(poses[:1]))
    depth = truth.depth.astype(np.float64)
    points = geometry.unproject(depth, truth.cameras.intrinsics, relative)
    scale = float(np.linalg.norm(points[truth.valid], axis=-1).mean()) if truth.valid.any() else 1.0
    relative = relative.copy()
    relative[:, :, 3] /= scale
    cameras = Cameras(truth.cameras.intrinsics, relative, truth.cameras.sizes)
    return Targets(cameras, depth / scale, points / scale, truth.valid)


def _huber(error: np.ndarray) -> float:
    size = np.abs(error)
    bent = np.where(size < HUBER, size**2 / (2 * HUBER), size - HUBER / 2)
    return float(bent.mean())


def _fields(cameras: Cameras) -> np.ndarray:
    """(S, 2) horizontal and vertical fields of view, radians."""
    focal = np.stack([cameras.intrinsics[:, 0, 0], cameras.intrinsics[:, 1, 1]], axis=1)
    return 2 * np.arctan(cameras.sizes[:, ::-1] / 2 / focal)


def _apart(points: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """Mean distance of points over mean distance from the first camera."""
    distance = np.linalg.norm(points - target, axis=-1)[valid].mean()
    return float(distance / max(np.linalg.norm(target, axis=-1)[valid].mean(), 1e-12))


def task_terms(output: VGGTOutput, targets: Targets) -> dict[str, float]:
    """The terms of L that the heads of an output allow, without the reconstruction."""
    cameras, depth, points = _spoken(output)
    world = _array(output.world_points)
    valid, terms = targets.valid, {}
    if cameras is not None and targets.cameras is not None:
        theirs = targets.cameras
        pose = _huber(cameras.camera_from_world - theirs.camera_from_world)
        terms["camera"] = pose + _huber(_fields(cameras) - _fields(theirs))
    if not valid.any():
        return terms
    if depth is not None and targets.depth is not None:
        ours = np.log(np.maximum(depth[valid], 1e-6))
        terms["depth"] = float(np.abs(ours - np.log(np.maximum(targets.depth[valid], 1e-6))).mean())
    if world is not None and targets.points is not None:
        terms["points"] = _apart(world, targets.points, valid)
    reference = world if world is not None else targets.points
    if points is not None and reference is not None:
        terms["consistency"] = _apart(points, reference, valid)
    return terms


@torch.no_grad()
def search_exponents(
    model: VGGT,
    problems: Mapping[str, Problem],
    scenes: Sequence[Tensor],
    targets: Sequence[Targets],
    put: Callable[[Mapping[str, Choice]], None],
    exponents: Sequence[float] = EXPONENTS,
    patches_only: bool = True,
) -> dict[str, Choice]:
    """One exponent for all layers of a block.

    Args:
        model: with everything before the block quantized, or not.
        problems: of the block's layers, by path.
        scenes: (1, S, 3, H, W) images.
        targets: one a scene.
        put: places quantized layers for choices.
        exponents: to try, beside each layer's own best.
        patches_only: leave special tokens out of the statistics.

    Returns:
        Choices by path; the layers placed last are those of the last candidate.
    """
    own = {path: smooth(p, "mean", patches_only=patches_only) for path, p in problems.items()}
    candidates = [own]
    for exponent in exponents:
        candidates.append(
            {
                path: smoothed(problem, "mean", exponent, patches_only=patches_only)
                for path, problem in problems.items()
            }
        )
    best, least = own, float("inf")
    for candidate in candidates:
        put(candidate)
        lost = [output_error(problem, candidate[path]) for path, problem in problems.items()]
        total = float(np.mean(lost))
        for images, target in zip(scenes, targets, strict=True):
            terms = task_terms(model(images), target)
            total += sum(terms.values()) / len(scenes)
        if total < least:
            best, least = candidate, total
    return {path: choice._replace(note=f"task {choice.note}") for path, choice in best.items()}
