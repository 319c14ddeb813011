"""Depth maps as 16-bit PNG, with their scale and cameras in a sidecar ``depth.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..errors import OutputError
from ..files import replacing
from ..types import Prediction

SIDECAR = "depth.json"
NO_DEPTH = "there is no depth to write: predict with heads=('camera', 'depth')"
_COUNTS = 65535
_MILLIMETRE = 0.001


class DepthMap(Protocol):
    """One view's depth at some resolution, with the intrinsics that belong to it.

    ``depth`` and ``confidence`` are (h, w) float32, not positive or not finite where nothing is
    known; ``intrinsics`` is (3, 3), None without the camera head.
    """

    @property
    def depth(self) -> np.ndarray:
        """(h, w) float32."""

    @property
    def confidence(self) -> np.ndarray | None:
        """(h, w) float32."""

    @property
    def intrinsics(self) -> np.ndarray | None:
        """(3, 3) float64."""


class _ViewDepth(NamedTuple):
    depth: np.ndarray
    confidence: np.ndarray | None
    intrinsics: np.ndarray | None


DepthMapOf = Callable[[Prediction, int], DepthMap]
"""From a prediction and the index of a view to its depth map."""


def view_resolution(prediction: Prediction, index: int) -> DepthMap:
    """The depth of one view as the network gave it, 0 in the padding.

    Raises:
        OutputError: predicted without the depth head.
    """
    depth, confidence, cameras = (
        prediction.depth,
        prediction.depth_confidence,
        prediction.cameras,
    )
    if depth is None:
        raise OutputError(NO_DEPTH)
    shown = prediction.views[[index]].valid_mask()[0]
    return _ViewDepth(
        np.where(shown, depth[index], 0).astype(np.float32),
        None if confidence is None else confidence[index],
        None if cameras is None else cameras.intrinsics[index],
    )


def valid_depth(depth: np.ndarray) -> np.ndarray:
    """Bool: where a depth map holds a depth, positive and finite."""
    valid: np.ndarray = np.isfinite(depth) & (depth > 0)
    return valid


def write(
    prediction: Prediction,
    folder: str | Path,
    *,
    units: str = "arbitrary",
    depth_map: DepthMapOf = view_resolution,
) -> Path:
    """Write ``NAME.png`` for each view and then the sidecar, whose path is returned.

    A count of 0 is no depth, any other is ``depth / units_per_count`` rounded. Metric depth below
    65.5 m is written in millimetres, as RGB-D tools expect; else the deepest pixel of all views
    gets the count 65535. So nothing saturates, and a depth read back is within half a count (a
    depth smaller than that becomes one count, to stay valid).

    Args:
        prediction: with depth.
        folder: made if need be.
        units: "arbitrary" or "metres", as in ``Scene``.
        depth_map: the depth of a view at the wanted resolution, called for one view at a time
            (``scene.full_resolution.full_resolution``). It must not exceed the view's own range.

    Raises:
        OutputError: no depth, or a file cannot be written.
    """
    folder = Path(folder)
    if prediction.depth is None:
        raise OutputError(NO_DEPTH)
    step = _step(prediction.depth, prediction.views.valid_mask(), units)
    entries = []
    for index, name in enumerate(prediction.views.names):
        current = depth_map(prediction, index)
        valid = valid_depth(current.depth)
        depth = np.where(valid, current.depth, 0).astype(np.float64)
        counts = np.where(valid, np.clip(np.rint(depth / step), 1, _COUNTS), 0).astype(np.uint16)
        with replacing(folder / f"{name}.png") as temporary:
            # Level 1 is a third faster than the default and costs a few per cent of size.
            Image.fromarray(counts).save(temporary, compress_level=1)
        entry: dict[str, object] = {
            "name": name,
            "file": f"{name}.png",
            "height": counts.shape[0],
            "width": counts.shape[1],
        }
        if current.intrinsics is not None:
            entry["intrinsics"] = current.intrinsics.tolist()
        if prediction.cameras is not None:
            entry["camera_from_world"] = prediction.cameras.camera_from_world[index].tolist()
        entries.append(entry)
    sidecar = {
        "format": "vggt-edge depth 1",
        "units": units,
        "units_per_count": step,
        "no_depth": 0,
        "depth": "z in the camera frame, OpenCV axes; integer pixel coordinates are pixel centres",
        "views": entries,
    }
    with replacing(folder / SIDECAR) as temporary:
        temporary.write_text(json.dumps(sidecar, indent=1) + "\n", encoding="utf-8")
    return folder / SIDECAR


def _step(depth: np.ndarray, shown: np.ndarray, units: str) -> float:
    deepest = 0.0
    for current, mask in zip(depth, shown, strict=True):
        values = current[mask & valid_depth(current)]
        deepest = max(deepest, float(values.max(initial=0.0)))
    if units == "metres" and deepest <= _COUNTS * _MILLIMETRE:
        return _MILLIMETRE
    return deepest / _COUNTS if deepest > 0 else 1.0
