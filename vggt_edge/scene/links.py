"""Edges between clusters: by the pictures they share, and by bridges that prove themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import geometry
from ..types import Prediction
from .align import Alignment, align
from .clusters import Bridge, Cluster
from .pose_graph import Edge
from .reproject import reproject

# Pixels of each picture that a bridge's check looks at.
_PIXELS = 400
# How far a cluster is bent in itself, which no overlap shows: share of scale and size, radians.
_BENT = 0.03


@dataclass(frozen=True)
class Link:
    """What became of one contact between two clusters.

    Fields
        clusters      the two, the lower number first.
        kind          "shared" pictures, or a "loop" that a bridge was to close.
        inlier_ratio  of the alignment, the worse one of a bridge's two; 0 when there was none.
        error         likewise, relative to depth.
        refused       why it does not count; "" when it does.
    """

    clusters: tuple[int, int]
    kind: str
    inlier_ratio: float = 0.0
    error: float = float("nan")
    refused: str = ""


def shared_edge(
    pair: tuple[int, int],
    frames: tuple[tuple[int, ...], tuple[int, ...]],
    predictions: tuple[Prediction, Prediction],
    tolerance: float,
    min_inlier_ratio: float,
) -> tuple[Link, list[Edge]]:
    """The edge between two clusters that share pictures; none when these do not agree."""
    found = align(*predictions, _common(*frames), tolerance=tolerance)
    if found is None:
        return Link(pair, "shared", refused="no similarity fits the shared pictures"), []
    refused = "" if found.accepted(min_inlier_ratio) else "the shared pictures disagree"
    link = Link(pair, "shared", found.inlier_ratio, found.error, refused)
    return link, [] if refused else [_edge(pair, predictions[0], found)]


def bridge_edges(
    bridge: Bridge,
    node: int,
    clusters: tuple[Cluster, ...],
    load: Callable[[int], Prediction],
    tolerance: float,
    min_inlier_ratio: float,
) -> tuple[Link, list[Edge]]:
    """The two edges that hang a bridge, node ``node`` of the pose graph, between its clusters.

    The bridge must agree with each cluster about the pictures taken from it, and within the bridge
    the pictures of one end must see surfaces where those of the other do, and hardly any in front
    of them, where the other end looks through free space.
    """
    found: list[Alignment] = []
    prediction = load(node)
    for cluster in bridge.clusters:
        shared = _common(clusters[cluster].frames, bridge.frames)
        alignment = align(load(cluster), prediction, shared, tolerance=tolerance)
        if alignment is None or not alignment.accepted(min_inlier_ratio):
            ratio = 0.0 if alignment is None else alignment.inlier_ratio
            reason = f"the bridge disagrees with cluster {cluster}"
            return Link(bridge.clusters, "loop", ratio, refused=reason), []
        found.append(alignment)
    worst = min(alignment.inlier_ratio for alignment in found)
    error = max(alignment.error for alignment in found)
    if not sees_the_same(prediction, len(bridge.ends[0]), tolerance):
        reason = "its two ends do not see the same place"
        return Link(bridge.clusters, "loop", worst, error, reason), []
    edges = [
        _edge((cluster, node), load(cluster), alignment, loop=True)
        for cluster, alignment in zip(bridge.clusters, found, strict=True)
    ]
    return Link(bridge.clusters, "loop", worst, error), edges


def _edge(pair: tuple[int, int], a: Prediction, alignment: Alignment, loop: bool = False) -> Edge:
    """An edge that is no stiffer than clusters are, however well their overlap fits."""
    assert a.cameras is not None and a.depth is not None  # only whole predictions are stored
    seen = a.depth[np.isfinite(a.depth) & (a.depth > 0)]
    size = np.linalg.norm(np.ptp(a.cameras.centers, axis=0)) + np.median(seen)
    slack = np.diag([1, 1, 1, 1, size**2, size**2, size**2]) * _BENT**2
    information = np.linalg.inv(np.linalg.inv(alignment.information) + slack)
    return Edge(*pair, alignment.similarity, (information + information.T) / 2, loop)


def sees_the_same(
    prediction: Prediction,
    first: int,
    tolerance: float,
    least_seen: float = 0.1,
    least_agreeing: float = 0.6,
) -> bool:
    """Whether the first ``first`` views of a prediction and the others look at one place.

    Args:
        prediction: with cameras and depth.
        first: how many views the first end has.
        tolerance: two depths agree when they differ by no more than this share.
        least_seen: share of each end's points that must be confirmed by a view of the other end.
        least_agreeing: of the points that a view of the other end confirms or contradicts, the
            share that must be confirmed. What lies in front of a surface contradicts, since the
            view looks through it; what lies behind is hidden and says nothing.
    """
    cameras, depths, views = prediction.cameras, prediction.depth, prediction.views
    assert cameras is not None and depths is not None  # bridges come from finished passes
    ends = range(first), range(first, len(views))
    shown = views.valid_mask()
    for here, there in (ends, ends[::-1]):
        points = []
        for i in here:
            usable = np.flatnonzero(shown[i] & np.isfinite(depths[i]) & (depths[i] > 0))
            chosen = usable[np.linspace(0, len(usable) - 1, min(_PIXELS, len(usable))).astype(int)]
            world = geometry.unproject(
                depths[i], cameras.intrinsics[i], cameras.camera_from_world[i]
            )
            points.append(world.reshape(-1, 3)[chosen])
        cloud = np.concatenate(points).astype(np.float64)
        if not len(cloud):
            return False
        confirmed = np.zeros(len(cloud), dtype=bool)
        for_it = against = 0
        for j in there:
            pose, matrix = cameras.camera_from_world[j], cameras.intrinsics[j]
            seen = reproject(cloud, depths[j], matrix, pose, views.valid[j])
            agrees = seen.agreeing(tolerance).point
            confirmed[agrees] = True
            for_it += len(agrees)
            against += int(np.sum(seen.depth < (1 - tolerance) * seen.there))
        if confirmed.mean() < least_seen or for_it < least_agreeing * (for_it + against):
            return False
    return True


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[int, int]]:
    place = {frame: number for number, frame in enumerate(b)}
    return [(number, place[frame]) for number, frame in enumerate(a) if frame in place]
