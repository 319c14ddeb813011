"""Depth maps as OpenEXR, float32 and lossless: channel ``Z`` and channel ``confidence``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import MissingExtraError, OutputError
from ..files import replacing
from ..types import Prediction
from . import finite_json
from .depth import NO_DEPTH, DepthMapOf, view_resolution
from .depth_counts import valid_depth


def write(
    prediction: Prediction,
    folder: str | Path,
    *,
    units: str = "arbitrary",
    depth_map: DepthMapOf = view_resolution,
) -> Path:
    """Write ``NAME.exr`` for each view into ``folder``, which is returned.

    ``Z`` is 0 where there is no depth: compositors choke on NaN. The header's text attributes hold
    ``units`` and, as JSON, ``intrinsics`` and ``camera_from_world``.

    Args:
        prediction: with depth.
        folder: made if need be.
        units: "arbitrary" or "metres", as in ``Scene``.
        depth_map: the depth of a view at the wanted resolution, called for one view at a time.

    Raises:
        MissingExtraError: OpenEXR is not installed.
        OutputError: no depth, or a file cannot be written.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError("OpenEXR", "exr", "writing EXR") from error
    folder = Path(folder)
    if prediction.depth is None:
        raise OutputError(NO_DEPTH)
    for index, name in enumerate(prediction.views.names):
        path = folder / f"{name}.exr"
        current = depth_map(prediction, index)
        valid = valid_depth(current.depth)
        channels = {"Z": np.where(valid, current.depth, 0).astype(np.float32)}
        if current.confidence is not None:
            channels["confidence"] = np.where(valid, current.confidence, 0).astype(np.float32)
        header = {
            "compression": OpenEXR.ZIP_COMPRESSION,
            "type": OpenEXR.scanlineimage,
            "units": units,
        }
        if current.intrinsics is not None:
            header["intrinsics"] = finite_json.encode(current.intrinsics.tolist(), path)
        if prediction.cameras is not None:
            pose = prediction.cameras.camera_from_world[index]
            header["camera_from_world"] = finite_json.encode(pose.tolist(), path)
        with replacing(path) as temporary:
            try:
                OpenEXR.File(header, channels).write(str(temporary))
            except RuntimeError as error:
                raise OutputError(f"cannot write {path}: {error}; free some space") from error
    return folder
