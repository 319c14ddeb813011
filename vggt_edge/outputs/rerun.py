"""The scene as a ``.rrd`` recording for the rerun viewer (``rerun scene.rrd``).

Entities: ``world/points``; per view ``world/NAME`` with its pose and pinhole, and below it
``image`` and ``depth``. Intrinsics keep our pixel convention (integers are centres): it is the one
by which rerun turns a depth image into a cloud, so cloud and points coincide.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import MissingExtraError
from ..types import Scene
from .files import replacing

_JPEG_QUALITY = 90


def write(scene: Scene, path: str | Path) -> Path:
    """Write cameras, pictures (JPEG, at the size of the views), depth and points.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        OutputError: the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun", "writing .rrd") from error
    path = Path(path)
    cameras, depth = scene.cameras, scene.prediction.depth
    shown = scene.views.valid_mask()
    with replacing(path) as temporary:
        recording = rr.RecordingStream("vggt-edge")
        recording.save(temporary)
        recording.log("world", rr.ViewCoordinates.RDF, static=True)
        cloud = rr.Points3D(scene.points, colors=scene.colors)
        recording.log("world/points", cloud, static=True)
        for i, name in enumerate(scene.views.names):
            entity = f"world/{rr.escape_entity_path_part(name)}"
            pose = cameras.world_from_camera[i]
            height, width = cameras.sizes[i].tolist()
            recording.log(
                entity, rr.Transform3D(translation=pose[:, 3], mat3x3=pose[:, :3]), static=True
            )
            lens = rr.Pinhole(
                image_from_camera=cameras.intrinsics[i],
                resolution=[width, height],
                camera_xyz=rr.ViewCoordinates.RDF,
            )
            recording.log(entity, lens, static=True)
            picture = rr.Image(scene.views.images[i]).compress(jpeg_quality=_JPEG_QUALITY)
            recording.log(f"{entity}/image", picture, static=True)
            if depth is not None:
                visible = np.where(shown[i], depth[i], 0).astype(np.float32)
                image = rr.DepthImage(visible, meter=1.0)
                recording.log(f"{entity}/depth", image, static=True)
        recording.disconnect()
    return path
