"""``vggt-edge reconstruct``: more views than one pass holds, bundle adjustment, and metres."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..distribute import Executor
from ..errors import InputError, MissingExtraError, NumericError
from ..files import replacing
from ..model.megaloc import MegaLoc
from ..model.vggt import VGGT
from ..retrieval.describe import SAME_PLACE, descriptors, method
from ..scene.bundle import bundle_adjust_scene
from ..scene.georeference import georeference, in_metres
from ..scene.gps import read_positions
from ..scene.known_cameras import KnownCameras, align_to_known
from ..scene.reconstruct_clusters import ClusterReconstruction, reconstruct_clusters
from ..types import Scene, Views

logger = logging.getLogger(__name__)

FOLDER = "clusters"
MAP = "georeference.json"


def cluster_size(views: int, clusters: int | None, size: int | None) -> tuple[int, int] | None:
    """(size, overlap) of what ``--clusters`` or ``--cluster-size`` asks for; None for one pass.

    Neighbours share a fifth of a cluster.

    Raises:
        InputError: both were given, or clusters of fewer than 4 views.
    """
    if clusters is None and size is None:
        return None
    if clusters is not None and size is not None:
        raise InputError("give --clusters or --cluster-size, not both")
    if size is None:
        # Of each cluster, a fifth is shared: homes are the other four fifths.
        size = views if clusters in (None, 1) else math.ceil(views / (clusters or 1) / 0.8)
    if size < 4:
        raise InputError(f"clusters of {size} views hold too little together: give 4 or more")
    return size, max(1, size // 5)


def run(
    network: VGGT,
    describer: VGGT | MegaLoc,
    views: Views,
    out: Path,
    size: tuple[int, int],
    keep_outliers: bool,
    verify: bool,
    progress: bool,
    keep: dict[str, Any],
    executor: Executor,
) -> ClusterReconstruction:
    """Reconstruct in clusters of views that ``describer`` finds alike; passes are kept in ``out``.

    ``keep`` is for ``fuse``; the source of the points is always depth.
    """
    return reconstruct_clusters(
        network,
        views,
        descriptors=descriptors(describer, views, progress=progress, executor=executor),
        threshold=SAME_PLACE[method(describer)],
        size=size[0],
        overlap=size[1],
        keep_outliers=keep_outliers,
        verify=verify,
        folder=out / FOLDER,
        executor=executor,
        progress=progress,
        **{name: value for name, value in keep.items() if name != "source"},
    )


def folders(scenes: Sequence[Scene], out: Path) -> list[Path]:
    """Where scenes go: ``out`` itself for one, else ``part_1`` and so on inside."""
    if len(scenes) == 1:
        return [out]
    return [out / f"part_{number}" for number, _ in enumerate(scenes, start=1)]


def adjusted(scene: Scene) -> Scene:
    """The scene after bundle adjustment; as it was, with a warning, if nothing can be matched."""
    try:
        return bundle_adjust_scene(scene)
    except (InputError, NumericError) as error:
        logger.warning("not adjusted: %s", error)
        return scene


def require_packages(clusters: bool, bundle_adjust: bool) -> None:
    """Refuse, before the work, what needs packages that are not there.

    Raises:
        MissingExtraError: scipy for clusters, or pycolmap for bundle adjustment, is missing.
    """
    if clusters and find_spec("scipy") is None:
        raise MissingExtraError("scipy", "clusters", "--clusters")
    if bundle_adjust and find_spec("pycolmap") is None:
        raise MissingExtraError("pycolmap", "bundle", "--bundle-adjust")


def require_positions(views: Views) -> None:
    """Refuse ``--georeference``, before the work, for views that do not say where they are.

    Raises:
        InputError: fewer than two views have a GPS position.
    """
    known = int(read_positions(views.sources).known.sum())
    if known < 2:
        raise InputError(
            f"--georeference: {known} of {len(views)} pictures have a GPS position, 2 are needed; "
            "use them as the camera wrote them, with EXIF data"
        )


def to_metres(scene: Scene, folder: Path) -> Scene:
    """The scene in metres, and ``georeference.json`` beside it; unchanged if GPS does not fit."""
    try:
        found = georeference(scene.cameras, read_positions(scene.views.sources))
    except InputError as error:
        logger.warning("%s: not in metres: %s", folder, error)
        return scene
    told = found.to_json(metres_from_world=found.enu_from_world.scale)
    with replacing(folder / MAP) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")
    return in_metres(scene, found.enu_from_world)


def to_known(scene: Scene, folder: Path, known: KnownCameras) -> Scene:
    """The scene moved to known cameras; unchanged, with a warning, if they do not fit."""
    try:
        return align_to_known(scene, known)
    except InputError as error:
        logger.warning("%s: not moved to the known cameras: %s", folder, error)
        return scene
