"""What to beat: a predictor that knows nothing, and COLMAP on the same pictures.

Each is a callable from ``Views`` to ``Prediction`` and is scored like any model.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import geometry
from ..errors import MissingExtraError
from ..images import load_sources
from ..types import Cameras, Prediction, Views

FIELD_OF_VIEW = math.radians(60.0)
"""Across the longer side of every view: that of a phone's main camera, and COLMAP's first guess."""

# FATAL only: COLMAP says what it does, and that it found no model, on standard error.
_LOG_LEVEL = 3


def constant(views: Views) -> Prediction:
    """Constant depth, identity pose, and the same field of view (60 degrees) for every view."""
    count, (height, width) = len(views), views.size
    focal = max(height, width) / 2 / math.tan(FIELD_OF_VIEW / 2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    cameras = Cameras(
        np.tile(intrinsics, (count, 1, 1)),
        np.tile(np.eye(3, 4), (count, 1, 1)),
        np.tile(np.array(views.size), (count, 1)),
    )
    flat = np.ones((count, height, width), np.float32)
    return Prediction(views, cameras, flat, flat)


def colmap(views: Views) -> Prediction:
    """Cameras by COLMAP's incremental mapper (Schönberger & Frahm, CVPR 2016), as it comes.

    SIFT, exhaustive matching and mapping run on the *source* pictures at full resolution, with one
    SIMPLE_RADIAL camera if all are of one size, and the largest model counts. Distortion is left
    out of the result. There is no depth. Pictures that it could not place have poses and intrinsics
    of NaN, all of them where it finds no model.

    Raises:
        MissingExtraError: without pycolmap.
        ImageError: a source picture is gone.
    """
    check_colmap()
    pycolmap = import_module("pycolmap")
    count = len(views)
    names = [f"{index:06d}.png" for index in range(count)]
    sizes = [tuple(size) for size in views.source_sizes.tolist()]
    with tempfile.TemporaryDirectory(prefix="vggt-edge-colmap-") as folder, _silent(pycolmap):
        pictures, database = Path(folder) / "images", Path(folder) / "database.db"
        pictures.mkdir()
        with closing(load_sources(views.sources)) as loaded:
            for name, picture in zip(names, loaded, strict=True):
                Image.fromarray(picture).save(pictures / name, compress_level=1)
        models = _map(pycolmap, database, pictures, Path(folder), one_camera=len(set(sizes)) == 1)
    source_intrinsics = np.full((count, 3, 3), np.nan)
    camera_from_world = np.full((count, 3, 4), np.nan)
    if models:
        largest = max(models, key=lambda model: model.num_reg_images())
        for identifier in largest.reg_image_ids():
            image = largest.image(identifier)
            index = names.index(image.name)
            camera_from_world[index] = image.cam_from_world().matrix()
            source_intrinsics[index] = largest.camera(image.camera_id).calibration_matrix()
    source_intrinsics[:, :2, 2] -= 0.5  # COLMAP's first pixel centre is at 0.5
    cameras = Cameras(
        np.linalg.inv(views.source_from_view) @ source_intrinsics,
        _from_first(camera_from_world),
        np.tile(np.array(views.size), (count, 1)),
    )
    return Prediction(views, cameras)


def check_colmap() -> None:
    """Say before the work that COLMAP is not there.

    Raises:
        MissingExtraError: without pycolmap.
    """
    if find_spec("pycolmap") is None:
        raise MissingExtraError("pycolmap", "evaluate", "the COLMAP baseline")


def _map(module: Any, database: Path, pictures: Path, folder: Path, one_camera: bool) -> list[Any]:
    """The ``pycolmap.Reconstruction``s that the mapper finds."""
    threads = torch.get_num_threads()
    modes = module.CameraMode
    extraction, matching = module.FeatureExtractionOptions(), module.FeatureMatchingOptions()
    mapping = module.IncrementalPipelineOptions()
    for options in (extraction, matching, mapping):
        options.num_threads = threads
    extraction.use_gpu = matching.use_gpu = False
    # The default of 10 refuses the few views that feed-forward models are scored on.
    mapping.min_model_size = 2
    mapping.extract_colors = False
    mapping.random_seed = 0
    module.set_random_seed(0)
    module.extract_features(
        database,
        pictures,
        camera_mode=modes.SINGLE if one_camera else modes.PER_IMAGE,
        extraction_options=extraction,
        device=module.Device.cpu,
    )
    module.match_exhaustive(database, matching_options=matching, device=module.Device.cpu)
    return list(module.incremental_mapping(database, pictures, folder, mapping).values())


def _from_first(camera_from_world: np.ndarray) -> np.ndarray:
    """The same cameras in the frame of the first one that has a pose."""
    placed = np.flatnonzero(np.isfinite(camera_from_world).all(axis=(1, 2)))
    if not len(placed):
        return camera_from_world
    world_from_first = geometry.invert_rigid(camera_from_world[placed[0]])
    return geometry.compose_rigid(camera_from_world, world_from_first)


@contextmanager
def _silent(module: Any) -> Iterator[None]:
    level = module.logging.minloglevel
    module.logging.minloglevel = _LOG_LEVEL
    try:
        yield
    finally:
        module.logging.minloglevel = level


BASELINES = {"constant": constant, "colmap": colmap}
