"""The network as tensors in, tensors out, and the proof that a rewrite of it is still the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import ExportError
from ..files import replacing
from ..model.vggt import VGGT
from .shape import HEAD_OF, Shape, check_outputs

# Largest deviation of a float32 rewrite, relative to the largest value of the output.
TOLERANCE = 1e-5


class TensorModule(nn.Module):
    """A network without batch dimension or named tuple: what every exported form must equal.

    ``outputs`` says what comes out, always in this order; a single one comes bare, several as a
    tuple.

        depth       (V, H, W, 1), z in the camera frame, in the network's own unit.
        confidence  (V, H, W, 1), above 1, without a fixed scale.
        pose        (V, 9), translation and quaternion (xyzw, any length) of camera-from-world,
                    vertical and horizontal field of view in radians.
    """

    def __init__(self, model: VGGT, outputs: Sequence[str] = ("depth",)):
        super().__init__()
        self.model = model
        self.outputs = check_outputs(outputs, model.config)
        self.heads = tuple(dict.fromkeys(HEAD_OF[name] for name in self.outputs))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(V, 3, H, W) in [0, 1] to the outputs."""
        result = self.model(images[None], heads=self.heads)
        found = []
        for name in self.outputs:
            if name == "depth":
                found.append(result.depth[0])
            elif name == "confidence":
                found.append(result.depth_conf[0, ..., None])
            else:
                found.append(result.pose_enc[0])
        return found[0] if len(found) == 1 else tuple(found)


class DepthOnly(TensorModule):
    """Images to depth alone, the smallest useful network on a phone."""

    def __init__(self, model: VGGT):
        super().__init__(model, ("depth",))


class DepthConfidence(TensorModule):
    """Images to depth and its confidence."""

    def __init__(self, model: VGGT):
        super().__init__(model, ("depth", "confidence"))


class DepthCameras(TensorModule):
    """Images to depth, its confidence and the cameras."""

    def __init__(self, model: VGGT):
        super().__init__(model, ("depth", "confidence", "pose"))


@dataclass(frozen=True)
class Agreement:
    """One output of a candidate beside the reference's.

    ``shape``, ``minimum``, ``maximum`` and ``mean`` are the candidate's, the ``reference_`` ones
    the reference's. ``relative_error`` is the largest deviation over the largest magnitude of the
    reference; ``mean_relative_error`` the mean of |c - r| / |r|, AbsRel for depth; ``correlation``
    is Pearson's over all values; ``worst`` the index of the value that deviates most.
    """

    name: str
    shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    minimum: float
    maximum: float
    mean: float
    reference_minimum: float
    reference_maximum: float
    reference_mean: float
    relative_error: float
    mean_relative_error: float
    correlation: float
    worst: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.name} {'x'.join(map(str, self.shape))}: [{self.minimum:.6g}, "
            f"{self.maximum:.6g}] mean {self.mean:.6g}, reference [{self.reference_minimum:.6g}, "
            f"{self.reference_maximum:.6g}] mean {self.reference_mean:.6g}, relative error "
            f"{self.relative_error:.3g} at {self.worst}"
        )


def as_tuple(result: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A module's result as a tuple, whether it has one output or several."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def compare(name: str, candidate: np.ndarray, reference: np.ndarray) -> Agreement:
    """Measure one output; of different shapes, every error is infinite."""
    same = candidate.shape == reference.shape and bool(np.isfinite(candidate).all())
    c, r = candidate.astype(np.float64), reference.astype(np.float64)
    relative = mean_relative = float("inf")
    correlation, worst = 0.0, (0,) * candidate.ndim
    if same:
        error = np.abs(c - r)
        relative = float(error.max() / max(np.abs(r).max(), 1e-30))
        mean_relative = float((error / np.maximum(np.abs(r), 1e-30)).mean())
        worst = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
        spread = c.std() * r.std()
        correlation = float(((c - c.mean()) * (r - r.mean())).mean() / spread) if spread else 1.0
    return Agreement(
        name,
        candidate.shape,
        reference.shape,
        float(c.min()),
        float(c.max()),
        float(c.mean()),
        float(r.min()),
        float(r.max()),
        float(r.mean()),
        relative,
        mean_relative,
        correlation,
        worst,
    )


def depth_picture(depth: np.ndarray, span: tuple[float, float]) -> Image.Image:
    """(V, H, W, 1) depth as grey pictures side by side, near is bright, over a span of depth."""
    near, far = (1 / max(value, 1e-6) for value in span)
    inverse = (1 / np.maximum(depth[..., 0], 1e-6) - far) / max(near - far, 1e-12)
    grey = np.rint(255 * np.clip(inverse, 0, 1)).astype(np.uint8)
    return Image.fromarray(np.concatenate(list(grey), axis=1))


def write_pictures(folder: Path, candidate: np.ndarray, reference: np.ndarray) -> Path:
    """Candidate above reference above their difference (black: equal), into ``validation.png``."""
    span = (float(reference.min()), float(reference.max()))
    deviation = np.abs(candidate - reference) / np.abs(reference)
    top = max(float(deviation.max()), TOLERANCE)
    rows = [
        *(np.asarray(depth_picture(depth, span)) for depth in (candidate, reference)),
        np.rint(255 * np.concatenate(list(deviation[..., 0]), axis=1) / top).astype(np.uint8),
    ]
    path = folder / "validation.png"
    with replacing(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary)
    return path


@torch.inference_mode()
def validate(
    candidate: nn.Module,
    reference: TensorModule,
    shape: Shape,
    *,
    channels_last: bool = False,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
    folder: Path | None = None,
) -> list[Agreement]:
    """Compare a module with the full network before anything is converted.

    Args:
        candidate: takes images in the layout ``channels_last`` says.
        reference: the full network.
        shape: of the input.
        images: (V, 3, H, W) float32 in [0, 1]; seeded smooth pictures when None.
        tolerance: largest deviation, relative to the largest value of an output.
        folder: where to write ``validation.png`` with the depth of both and their difference.

    Raises:
        ExportError: when an output differs in shape or by more than the tolerance.
    """
    if images is None:
        images = example_images(shape)
    given = images.permute(0, 2, 3, 1).contiguous() if channels_last else images
    found = [value.numpy() for value in as_tuple(candidate(given))]
    wanted = [value.numpy() for value in as_tuple(reference(images))]
    if len(found) != len(wanted):
        raise ExportError(f"the rewrite has {len(found)} outputs, the network {len(wanted)}")
    report = [compare(*trio) for trio in zip(reference.outputs, found, wanted, strict=True)]
    if folder is not None and reference.outputs[0] == "depth":
        write_pictures(folder, found[0], wanted[0])
    if bad := [entry for entry in report if not entry.relative_error <= tolerance]:
        raise ExportError(
            "the rewrite differs from the network, nothing was converted: "
            + "; ".join(map(str, bad))
        )
    return report


def example_images(shape: Shape, seed: int = 0) -> Tensor:
    """(V, 3, H, W) float32 in [0, 1]: smooth seeded pictures, views of one after the other.

    Noise of a few cycles per picture, shifted from view to view: neither flat nor white.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9 + shape.views, generator=generator)
    size = (shape.height, shape.width + shape.width * shape.views // 8)
    wide = nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    step = shape.width // 8
    views = [wide[0, :, :, view * step : view * step + shape.width] for view in range(shape.views)]
    return torch.stack(views).clamp(0, 1)
