"""Pictures with known answers: what a bundle carries, so that any machine can prove it.

One set of photographs, and procedural worlds whose depth and cameras are exact. For each, what the
network says in float32 (the reference) and what the exported files said where they were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from .. import worlds
from ..images import read_views
from ..model.vggt import VGGT
from ..types import Views
from .module import TensorModule, as_tuple
from .pictures import fit
from .shape import Shape

# Training draws seeds below 2^40; validation and tests count up from 2^41, 2^43 and 2^44.
WORLD_SEED = 2**45
WORLDS = 3


@dataclass(frozen=True)
class Golden:
    """Sets of pictures and what was said of them; N sets of V views of H x W.

    Fields
        images       (N, V, H, W, 3) uint8, RGB.
        names        N names of sets, unique.
        reference    output to (N, ...) float32: the whole network in float32, in torch.
        outputs      output to (N, ...) float32: the exported files where they were made; empty
                     before they have run.
        has_truth    (N,) bool: whether the next three are known.
        depth        (N, V, H, W) float32, true z in metres, 0 where nothing was hit.
        camera_from_world  (N, V, 3, 4) float32, true extrinsics, OpenCV axes, metres.
    """

    images: np.ndarray
    names: tuple[str, ...]
    reference: Mapping[str, np.ndarray]
    has_truth: np.ndarray
    depth: np.ndarray
    camera_from_world: np.ndarray
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def given(self, layout: str) -> np.ndarray:
        """(N, ...) float32 in [0, 1] in a bundle's layout, "VHWC" or "VCHW"."""
        images = as_float(self.images)
        return images if layout == "VHWC" else np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 pictures as the float32 in [0, 1] that every runtime is given."""
    return images.astype(np.float32) / np.float32(255)


def _photographs(shape: Shape, pictures: Views | None) -> tuple[list[np.ndarray], list[str]]:
    if pictures is None:
        sample = Path(str(resources.files("vggt_edge") / "assets" / "sample"))
        longer = -(-max(shape.height, shape.width) // 14) * 14
        pictures = read_views(sample, size=longer)
        if len(pictures) < shape.views:
            return [], []
    found = fit(pictures, shape)
    chosen = found[:: max(1, len(found) // 2)][:2]
    sets = [np.rint(255 * one).astype(np.uint8) for one in chosen]
    return sets, [f"photographs {index}" for index in range(len(sets))]


@torch.inference_mode()
def make(
    model: VGGT,
    shape: Shape,
    outputs: Sequence[str],
    *,
    pictures: Views | None = None,
    scenes: int = WORLDS,
) -> Golden:
    """Pictures for a bundle and the network's answers, before the network is exported.

    Args:
        model: on the CPU, float32.
        shape: of one set.
        outputs: of ``shape.OUTPUTS``.
        pictures: photographs, at least as many as a set has; those of the package's sample scene
            when None. At most two sets are made of them.
        scenes: how many procedural worlds, each a set with exact depth and cameras.

    Raises:
        InputError: fewer pictures than views.
    """
    sets, names = _photographs(shape, pictures)
    count = len(sets)
    rendered = worlds.render(WORLD_SEED, scenes, shape.views, shape.height, shape.width)
    drawn = (255 * rendered.images.clamp(0, 1)).round().to(torch.uint8)
    sets += list(drawn.permute(0, 1, 3, 4, 2).numpy())
    names += [f"world {index}" for index in range(scenes)]
    images = np.stack(sets)
    reference: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    module = TensorModule(model, outputs)
    for one in as_float(images):
        given = torch.from_numpy(one).permute(0, 3, 1, 2).contiguous()
        for name, value in zip(module.outputs, as_tuple(module(given)), strict=True):
            reference[name].append(value.numpy())
    has_truth = np.arange(len(images)) >= count
    depth = np.zeros(images.shape[:4], np.float32)
    depth[count:] = (rendered.depth * rendered.valid).numpy()
    poses = np.zeros((*images.shape[:2], 3, 4), np.float32)
    poses[count:] = rendered.camera_from_world.numpy()
    stacked = {name: np.stack(values) for name, values in reference.items()}
    return Golden(images, tuple(names), stacked, has_truth, depth, poses)
