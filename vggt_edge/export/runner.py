"""A bundle as a callable from Views to Prediction: what is exported is scored like any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import metrics
from ..errors import InputError, NumericError
from ..predict import cameras_from_encoding
from ..types import Cameras, Prediction, Views
from .bundle import Bundle, read
from .executorch import ExecuTorchRunner, as_arrays
from .golden import as_float
from .litert import LiteRTRunner

Call = Callable[..., dict[str, np.ndarray]]


def load_stage(stage: Mapping[str, Any], folder: Path, runtime: str, threads: int = 2) -> Call:
    """One stage of a bundle's description, ready to be called with its inputs by name.

    Raises:
        MissingExtraError: without the runtime.
        ExportError: a file that cannot be loaded.
    """
    path = folder / stage["file"]
    if runtime == "litert":
        return LiteRTRunner(path, threads)
    weights = folder / stage["data"] if "data" in stage else None
    program = ExecuTorchRunner(path, weights, threads)
    method, outputs = stage.get("method", "forward"), tuple(stage["outputs"])

    def call(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()]
        return dict(zip(outputs, as_arrays(program(*given, method=method)), strict=True))

    return call


def run_stages(
    manifest: Mapping[str, Any], folder: Path, images: np.ndarray, threads: int = 2
) -> dict[str, np.ndarray]:
    """Run a bundle's files once on float32 images in its layout; every named tensor."""
    values = {manifest["input"]["name"]: images}
    for stage in manifest["stages"]:
        call = load_stage(stage, folder, manifest["runtime"], threads)
        values.update(call(**{name: values[name] for name in stage["inputs"]}))
    return values


class BundleModel:
    """An exported network, from Views to Prediction.

    The files take V views of one size. Views of another size are scaled to fit inside it, padded
    with white and mapped back. Of more than V views, the first is in every pass, which fixes the
    world frame, and the rest take turns; passes are brought to one unit by the depth of that first
    view. Of fewer, the last one is repeated. A bundle of one view takes one.

    Attributes
        bundle     what it runs.
        identity   changes with every byte of it: predictions of the same bundle can be reused.
        size       longer side of its input, pixels.
        patch      of which the sides are multiples.
    """

    def __init__(self, bundle: Bundle | str | Path, threads: int = 2):
        """Load the files.

        Raises:
            BundleError: when the bundle is not what it should be.
            MissingExtraError: without its runtime.
            ExportError: a file that cannot be loaded.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
        manifest = self.bundle.manifest
        self.identity = f"bundle {self.bundle.identity}"
        self.size, self.patch = max(self.bundle.shape[1:]), int(manifest["patch"])
        self._stages = [
            (stage, load_stage(stage, self.bundle.folder, manifest["runtime"], threads))
            for stage in manifest["stages"]
        ]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(V, H, W, 3) uint8 of the bundle's own shape to its outputs, float32."""
        given = as_float(images)
        if self.bundle.layout == "VCHW":
            given = np.ascontiguousarray(given.transpose(0, 3, 1, 2))
        values = {"images": given}
        for stage, call in self._stages:
            values.update(call(**{name: values[name] for name in stage["inputs"]}))
        found = {name: values[name] for name in self.bundle.outputs}
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise NumericError(f"{name} of the exported network is not finite")
        return found

    def __call__(self, views: Views) -> Prediction:
        """Predict.

        Raises:
            InputError: no views, or several for a bundle of one.
            ExportError: a kernel that fails.
            NumericError: an output that is not finite.
        """
        most, *size = self.bundle.shape
        if not len(views):
            raise InputError("no views to predict from")
        if most == 1 and len(views) > 1:
            raise InputError(f"the bundle takes one view at a time, not {len(views)}")
        frame = _Frame(views.size, (size[0], size[1]))
        parts: list[dict[str, Any]] = []
        for start in range(1, max(len(views), 2), max(most - 1, 1)):
            window = [0, *range(start, min(start + most - 1, len(views)))]
            filled = window + [window[-1]] * (most - len(window))
            found = self.run(np.stack([frame.place(views.images[i]) for i in filled]))
            one = {name: value[: len(window)] for name, value in found.items()}
            parts.append(_in_unit_of(parts[0], one) if parts else one)
        joined = {
            name: np.concatenate([part[name][i > 0 :] for i, part in enumerate(parts)])
            for name in self.bundle.outputs
        }
        maps = {n: frame.back(v[..., 0]) for n, v in joined.items() if n != "pose"}
        pose = joined.get("pose")
        return Prediction(
            views,
            cameras=None if pose is None else frame.cameras(pose),
            depth=maps.get("depth"),
            depth_confidence=maps.get("confidence"),
        )


def _in_unit_of(first: Mapping[str, np.ndarray], part: dict[str, np.ndarray]) -> dict[str, Any]:
    """A pass in the unit of another: their first views are the same picture."""
    if "depth" not in part:
        return part
    factor = metrics.median_scale(part["depth"][0], first["depth"][0])
    scaled = {**part, "depth": part["depth"] * np.float32(factor)}
    if "pose" in part:
        scaled["pose"] = part["pose"].copy()
        scaled["pose"][:, :3] *= np.float32(factor)
    return scaled


class _Frame:
    """Views of one size in the middle of a frame of another, and back."""

    def __init__(self, view: tuple[int, int], frame: tuple[int, int]):
        self.view, self.frame = view, frame
        scale = min(frame[0] / view[0], frame[1] / view[1])
        self.inner = max(1, round(view[0] * scale)), max(1, round(view[1] * scale))
        self.corner = (frame[0] - self.inner[0]) // 2, (frame[1] - self.inner[1]) // 2

    def place(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 to (H, W, 3), white around it."""
        if self.view == self.frame:
            return image
        placed = np.full((*self.frame, 3), 255, np.uint8)
        resized = Image.fromarray(image).resize(self.inner[::-1], Image.Resampling.BICUBIC)
        (top, left), (height, width) = self.corner, self.inner
        placed[top : top + height, left : left + width] = np.asarray(resized)
        return placed

    def back(self, maps: np.ndarray) -> np.ndarray:
        """(S, H, W) maps to (S, h, w)."""
        if self.view == self.frame:
            return maps
        (top, left), (height, width) = self.corner, self.inner
        inner = np.ascontiguousarray(maps[:, top : top + height, left : left + width])
        size = self.view[::-1]
        resized = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in inner]
        return np.stack([np.asarray(one) for one in resized])

    def cameras(self, pose: np.ndarray) -> Cameras:
        """Cameras of the views: focal lengths scaled back, the middle stays the middle."""
        framed = cameras_from_encoding(pose, self.frame)
        intrinsics = framed.intrinsics.copy()
        for axis, side in ((1, 0), (0, 1)):
            intrinsics[:, axis, axis] *= self.view[side] / self.inner[side]
            intrinsics[:, axis, 2] = self.view[side] / 2
        sizes = np.tile(np.array(self.view), (len(pose), 1))
        return Cameras(intrinsics, framed.camera_from_world, sizes)
