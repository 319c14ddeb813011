"""One prediction, and one scene, of many clusters that have been placed in one world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..geometry import Similarity
from ..types import Cameras, Prediction, Scene, Views
from .sim3 import compose
from .tracks import voxel_for


class Owner(NamedTuple):
    """Where a picture's camera and depth are taken from: a cluster, and its number there."""

    cluster: int
    position: int


def merge_predictions(
    views: Views,
    owners: Sequence[Owner],
    load: Callable[[int], Prediction],
    world_from_cluster: Sequence[Similarity],
) -> Prediction:
    """The prediction of all views, each taken from one cluster.

    The world is the first view's camera frame; its unit is that of ``world_from_cluster``.

    Args:
        views: those to merge, in order.
        owners: one a view.
        load: the prediction of a cluster, by its number; asked once each.
        world_from_cluster: where each cluster lies, by its number.
    """
    count, (height, width) = len(views), views.size
    intrinsics, poses = np.zeros((count, 3, 3)), np.zeros((count, 3, 4))
    depth = np.zeros((count, height, width), dtype=np.float32)
    confidence: np.ndarray | None = np.ones_like(depth)
    first_from_world = _first_camera(owners[0], load, world_from_cluster)
    for cluster in sorted({owner.cluster for owner in owners}):
        prediction = load(cluster)
        cameras, depths = prediction.cameras, prediction.depth
        assert cameras is not None and depths is not None  # only whole predictions are stored
        mine = [i for i, owner in enumerate(owners) if owner.cluster == cluster]
        theirs = [owners[i].position for i in mine]
        placed = compose(first_from_world, world_from_cluster[cluster])
        intrinsics[mine] = cameras.intrinsics[theirs]
        poses[mine] = placed.apply_to_cameras(cameras.camera_from_world[theirs])
        depth[mine] = placed.scale * depths[theirs]
        if prediction.depth_confidence is None:
            confidence = None
        elif confidence is not None:
            confidence[mine] = prediction.depth_confidence[theirs]
    sizes = np.tile(np.array(views.size), (count, 1))
    return Prediction(views, Cameras(intrinsics, poses, sizes), depth, confidence)


def _first_camera(
    owner: Owner, load: Callable[[int], Prediction], world_from_cluster: Sequence[Similarity]
) -> Similarity:
    """From the world into a camera's frame, in the same unit."""
    cameras = load(owner.cluster).cameras
    assert cameras is not None
    pose = world_from_cluster[owner.cluster].apply_to_cameras(
        cameras.camera_from_world[owner.position]
    )
    return Similarity(1.0, pose[:, :3], pose[:, 3])


def without_duplicates(
    scene: Scene, cluster_of_view: np.ndarray, voxel: float | None = None
) -> Scene:
    """Drop points that another cluster has too, where clusters overlap.

    Where points of several clusters share a voxel, those of one cluster stay: of the one with the
    most confident point there. Points of one cluster never displace each other.

    Args:
        scene: of merged clusters.
        cluster_of_view: (S,) the cluster that each view's depth came from.
        voxel: edge of the voxels, world units; by default twice what a pixel sees at the median
            depth.
    """
    if not len(scene.points) or len(np.unique(cluster_of_view)) < 2:
        return scene
    if voxel is None:
        # As many voxels as points ask for the finest there is, which is a pixel's footprint.
        voxel = 2 * voxel_for(scene, np.arange(len(scene.points)), len(scene.points))
    points = scene.points.astype(np.float64)
    cell = np.floor((points - points.min(axis=0)) / voxel).astype(np.int64)
    _, cell_of = np.unique(cell, axis=0, return_inverse=True)
    cluster = cluster_of_view[scene.view_index]
    order = np.lexsort((cluster, -scene.confidence, cell_of))
    first = np.ones(len(order), dtype=bool)
    first[1:] = cell_of[order[1:]] != cell_of[order[:-1]]
    holder = cluster[order[first]]
    keep = holder[cell_of] == cluster
    return replace(
        scene,
        points=scene.points[keep],
        colors=scene.colors[keep],
        confidence=scene.confidence[keep],
        view_index=scene.view_index[keep],
        pixel=scene.pixel[keep],
    )
