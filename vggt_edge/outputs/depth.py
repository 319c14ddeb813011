"""Depth and confidence as 16-bit PNG, with scale and cameras in a sidecar ``depth.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..errors import OutputError
from ..files import replacing
from ..types import Prediction
from . import finite_json
from .depth_counts import (
    BEYOND,
    NONE,
    confidence_quantiles,
    count_depth,
    count_rank,
    depth_step,
    valid_depth,
)

SIDECAR = "depth.json"
CONFIDENCE = "confidence"
NO_DEPTH = "there is no depth to write: predict with heads=('camera', 'depth')"


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


def write(
    prediction: Prediction,
    folder: str | Path,
    *,
    units: str = "arbitrary",
    depth_map: DepthMapOf = view_resolution,
) -> Path:
    """Write ``NAME.png`` for each view and then the sidecar, whose path is returned.

    A count of 0 is no depth, 65535 is a depth beyond the scale (``furthest`` in the sidecar), any
    other is ``depth / units_per_count`` rounded: read back within half a count, but a smaller depth
    becomes one count, to stay valid. ``depth_counts.depth_step`` chooses the scale.

    ``confidence/NAME.png``, of the same size, holds the rank of each pixel's confidence among all
    pixels of all views: count / 65535 is the share of them that are at most as confident, 0 where
    there is no depth. ``confidence_percentiles`` in the sidecar are the values behind the ranks.

    Args:
        prediction: with depth.
        folder: made if need be.
        units: "arbitrary" or "metres", as in ``Scene``.
        depth_map: the depth of a view at the wanted resolution, called for one view at a time
            (``scene.full_resolution.full_resolution``).

    Raises:
        OutputError: no depth, or a file cannot be written.
    """
    folder = Path(folder)
    if prediction.depth is None:
        raise OutputError(NO_DEPTH)
    shown = prediction.views.valid_mask()
    step = depth_step(prediction.depth, shown, units)
    quantiles = _quantiles(prediction, shown)
    entries = []
    for index, name in enumerate(prediction.views.names):
        current = depth_map(prediction, index)
        counts = count_depth(current.depth, step)
        _save(counts, folder / f"{name}.png")
        entry: dict[str, object] = {
            "name": name,
            "file": f"{name}.png",
            "height": counts.shape[0],
            "width": counts.shape[1],
        }
        if current.confidence is not None:
            entry["confidence"] = f"{CONFIDENCE}/{name}.png"
            ranks = count_rank(current.confidence, counts != NONE, quantiles)
            _save(ranks, folder / CONFIDENCE / f"{name}.png")
        if current.intrinsics is not None:
            entry["intrinsics"] = current.intrinsics.tolist()
        if prediction.cameras is not None:
            entry["camera_from_world"] = prediction.cameras.camera_from_world[index].tolist()
        entries.append(entry)
    sidecar: dict[str, object] = {
        "format": "vggt-edge depth 2",
        "units": units,
        "units_per_count": step,
        "no_depth": NONE,
        "beyond": BEYOND,
        "furthest": step * (BEYOND - 0.5),
        "depth": "z in the camera frame, OpenCV axes; integer pixel coordinates are pixel centres; "
        "the count 'beyond' is any depth above 'furthest'",
    }
    if len(quantiles):
        sidecar["confidence"] = (
            "count / 65535 is the share of all pixels that are at most as confident, 0 is no depth"
        )
        every = np.linspace(0, len(quantiles) - 1, 101).round().astype(np.intp)
        sidecar["confidence_percentiles"] = quantiles[every].tolist()
    sidecar["views"] = entries
    text = finite_json.encode(sidecar, folder / SIDECAR, indent=1)
    with replacing(folder / SIDECAR) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder / SIDECAR


def _quantiles(prediction: Prediction, shown: np.ndarray) -> np.ndarray:
    depth, confidence = prediction.depth, prediction.depth_confidence
    if depth is None or confidence is None:
        return np.zeros(0)
    views = zip(depth, confidence, shown, strict=True)
    return confidence_quantiles((c[mask & valid_depth(d)] for d, c, mask in views), depth.size)


def _save(counts: np.ndarray, path: Path) -> None:
    with replacing(path) as temporary:
        # Level 1 is a third faster than the default and costs a few per cent of size.
        Image.fromarray(counts).save(temporary, compress_level=1)
