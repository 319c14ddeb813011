"""The scene as a ``.rrd`` recording for the rerun viewer (``rerun scene.rrd``).

Entities: ``world/points``; per view ``world/NAME`` with its pose and pinhole, and below it
``image`` and ``depth``. Intrinsics keep our pixel convention (integers are centres): it is the one
by which rerun turns a depth image into a cloud, so cloud and points coincide.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtraError, OutputError
from ..files import replacing
from ..types import Scene

_JPEG_QUALITY = 90


def write(scene: Scene, path: str | Path) -> Path:
    """Write cameras, pictures (JPEG, at the size of the views), depth and points.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        OutputError: no cameras, or the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun", "writing .rrd") from error
    path = Path(path)
    if scene.prediction.cameras is None:
        raise OutputError(f"cannot write {path}: no cameras, predict with heads=('camera', ...)")
    recording = rr.RecordingStream("vggt-edge")
    # Collected in memory: recording.save only logs that a disk is full, and leaves half a file.
    memory = rr.memory_recording(recording)
    for entity, *archetypes in _entities(scene, rr):
        for archetype in archetypes:
            recording.log(entity, archetype, static=True)
    with replacing(path) as temporary:
        temporary.write_bytes(memory.drain_as_bytes())
    recording.disconnect()
    return path


def _entities(scene: Scene, rr: Any) -> Iterator[tuple[Any, ...]]:
    """Entity path and its archetypes, a view at a time."""
    cameras, depth = scene.cameras, scene.prediction.depth
    shown, poses = scene.views.valid_mask(), cameras.world_from_camera
    yield "world", rr.ViewCoordinates.RDF
    yield "world/points", rr.Points3D(scene.points, colors=scene.colors)
    for i, name in enumerate(scene.views.names):
        entity = f"world/{rr.escape_entity_path_part(name)}"
        pose = poses[i]
        height, width = cameras.sizes[i].tolist()
        lens = rr.Pinhole(
            image_from_camera=cameras.intrinsics[i],
            resolution=[width, height],
            camera_xyz=rr.ViewCoordinates.RDF,
        )
        yield entity, rr.Transform3D(translation=pose[:, 3], mat3x3=pose[:, :3]), lens
        picture = rr.Image(scene.views.images[i]).compress(jpeg_quality=_JPEG_QUALITY)
        yield f"{entity}/image", picture
        if depth is not None:
            visible = np.where(shown[i], depth[i], 0).astype(np.float32)
            yield f"{entity}/depth", rr.DepthImage(visible, meter=1.0)
