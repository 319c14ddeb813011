"""Any number of views to scenes: clusters, a pass each, placed by what they share, and merged."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ..attention import describer
from ..distribute import Executor
from ..errors import InputError, VGGTEdgeError
from ..model.vggt import VGGT
from ..retrieval.describe import SAME_PLACE, method
from ..retrieval.describe import descriptors as describe
from ..types import Prediction, Scene, Views
from .cluster_passes import ModelPredictor, Predictor, identity_of, run_passes
from .cluster_store import ClusterStore
from .clusters import Bridge, Cluster, Clustering, cluster_views
from .fuse import fuse
from .links import Link, bridge_edges, shared_edge
from .merge import Owner, merge_predictions, without_duplicates
from .pose_graph import Edge, PoseGraph, optimize_pose_graph
from .retrieval_graph import RetrievalGraph, retrieval_graph, sequence_graph
from .verification import Verifier, verify_bridges, verify_links

logger = logging.getLogger(__name__)

# Predictions held in memory at a time, while clusters are compared.
_HELD = 4
# Why a loop is refused before it costs a pass.
_UNLIKE = "the network's features do not find one end in the other"
# Views that a warning names; ``left_out`` has them all.
_NAMED = 8


@dataclass(frozen=True)
class ClusterReconstruction:
    """What became of a set of views.

    Fields
        scenes    one for each set of clusters that hang together, that of the most views first.
                  Different scenes have different worlds and units: nothing ties them together.
        left_out  name of each view that is in no scene, and why.
        clusters  the clusters, by number.
        links     every contact between clusters that was tried, and what became of it.
    """

    scenes: tuple[Scene, ...]
    left_out: dict[str, str]
    clusters: tuple[Cluster, ...]
    links: tuple[Link, ...]


def reconstruct_clusters(
    model: VGGT | Predictor,
    views: Views,
    *,
    descriptors: np.ndarray | None = None,
    similarity: np.ndarray | None = None,
    in_order: bool = False,
    threshold: float | None = None,
    neighbours: int = 12,
    size: int = 60,
    overlap: int = 12,
    close_loops: bool = True,
    keep_outliers: bool = False,
    verify: bool = True,
    tolerance: float = 0.1,
    min_inlier_ratio: float = 0.5,
    executor: Executor | None = None,
    folder: str | Path | None = None,
    percentile: float = 20.0,
    mask_sky: bool = False,
    mask_edges: bool = True,
    max_points: int | None = 1_000_000,
    min_consistent_views: int = 0,
    progress: bool = False,
) -> ClusterReconstruction:
    """Reconstruct more views than one forward pass can hold.

    Args:
        model: a network from ``load``, or anything that makes a Prediction with cameras and depth
            of Views.
        views: from ``read_views``, in any order.
        descriptors: (S, D) of the views, by which it is seen which may show one place; or
        similarity: (S, S) between them; or
        in_order: the views are frames in the order they were taken: each is linked to those before
            and after it, and no loop is looked for. Without any of the three a network describes
            the views itself, or the MegaLoc does that ``make_sparse`` was given.
        threshold: views less similar than this are not linked. What is right depends on the
            descriptor: None takes what was measured for the network's own, else 0.3.
        neighbours: links that each view may propose.
        size: most views in a pass.
        overlap: views that neighbouring clusters share.
        close_loops: look for places seen from two clusters, verify them, and share out the drift.
        keep_outliers: reconstruct also a view that resembles no other.
        verify: where few links hold views together, and for each loop, ask the network's own
            features whether both sides show one place (``verification``). Needs a network, or a
            predictor with a method ``feature_similarity``; frames that are in order are not asked.
        tolerance: how far apart two clusters' ideas of a pixel's place may be, as a share of its
            depth, and count as the same.
        min_inlier_ratio: clusters of which less agrees are not tied together.
        executor: who describes views and runs the passes; this process when None.
        folder: where finished passes are kept: a rerun with the same views and network resumes. A
            temporary one when None.
        percentile: see ``fuse`` for it and for ``mask_sky``, ``mask_edges``, ``max_points``, which
            is for each scene, and ``min_consistent_views``.
        progress: show a bar on standard error for work over two seconds.

    Raises:
        InputError: no views, or arguments that make no sense.
        MissingExtraError: scipy is not installed.
        OutputError: ``folder`` cannot be written, or its disk is full; a rerun resumes.
        VGGTEdgeError: every pass failed.
    """
    if not len(views):
        raise InputError("no views to reconstruct")
    if isinstance(model, VGGT) and descriptors is None and similarity is None and not in_order:
        network = describer(model)
        descriptors = describe(network, views, progress=progress, executor=executor)
        threshold = SAME_PLACE[method(network)] if threshold is None else threshold
    predictor = ModelPredictor(model) if isinstance(model, VGGT) else model
    likeness = getattr(predictor, "feature_similarity", None) if verify and not in_order else None
    verifier = None if likeness is None else Verifier(likeness)
    graph = _graph(views, descriptors, similarity, in_order, threshold, neighbours)
    if verifier is not None:
        graph = verify_links(graph, views, verifier, executor, progress)
    clustering = _cluster(graph, size, overlap, keep_outliers)
    clusters = clustering.clusters
    bridges, unlike = list(clustering.bridges if close_loops else ()), list[Bridge]()
    if verifier is not None:
        bridges, unlike = verify_bridges(bridges, views, verifier, executor, progress)
    passes = [*(c.frames for c in clusters), *(b.frames for b in bridges)]
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vggt-edge-"))
        store = ClusterStore(folder, identity_of(predictor))
        failed = run_passes(predictor, views, passes, store, executor, progress)
        if all(number in failed for number in range(len(clusters))):
            raise VGGTEdgeError(f"every cluster failed, the first because: {failed[0]}")

        @functools.lru_cache(maxsize=_HELD)
        def load(number: int) -> Prediction:
            prediction = store.load(views[list(passes[number])])
            if prediction is None:
                raise VGGTEdgeError(
                    f"a finished cluster has gone from {store.folder}; run it again"
                )
            return prediction

        tied = list(_tie(clusters, bridges, failed, load, tolerance, min_inlier_ratio))
        tied += [(Link(bridge.clusters, "loop", refused=_UNLIKE), []) for bridge in unlike]
        placed = optimize_pose_graph(len(passes), [edge for _, edges in tied for edge in edges])
        owners = _owners(clusters, failed, load)
        left_out = _left_out(views.names, clustering, owners, failed)
        scenes = []
        for frames in _worlds(owners, placed):
            scene = fuse(
                merge_predictions(
                    views[frames], [owners[i] for i in frames], load, placed.world_from_node
                ),
                percentile=percentile,
                mask_sky=mask_sky,
                mask_edges=mask_edges,
                max_points=max_points,
                min_consistent_views=min_consistent_views,
            )
            cluster_of_view = np.array([owners[i].cluster for i in frames])
            scenes.append(without_duplicates(scene, cluster_of_view))
    for reason in sorted(set(left_out.values())):
        names = [name for name, why in left_out.items() if why == reason]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        logger.warning("left out %s%s: %s", ", ".join(names[:_NAMED]), more, reason)
    return ClusterReconstruction(tuple(scenes), left_out, clusters, _doubted(tied, placed))


def _graph(
    views: Views,
    descriptors: np.ndarray | None,
    similarity: np.ndarray | None,
    in_order: bool,
    threshold: float | None,
    neighbours: int,
) -> RetrievalGraph:
    if sum((descriptors is not None, similarity is not None, in_order)) != 1:
        raise InputError("give one of descriptors, similarity and in_order=True")
    if in_order:
        return sequence_graph(len(views), neighbours)
    graph = retrieval_graph(
        descriptors=descriptors,
        similarity=similarity,
        neighbours=neighbours,
        threshold=0.3 if threshold is None else threshold,
    )
    if graph.count != len(views):
        raise InputError(
            f"{graph.count} descriptors for {len(views)} views: give one for each view, in order"
        )
    return graph


def _cluster(graph: RetrievalGraph, size: int, overlap: int, keep_outliers: bool) -> Clustering:
    clustering = cluster_views(graph, size=size, overlap=overlap, keep_outliers=keep_outliers)
    if not clustering.clusters:
        raise InputError(
            f"of {graph.count} views none resembles another: lower the threshold, keep outliers, "
            "or do not verify"
        )
    return clustering


Tied = tuple[Link, list[Edge]]


def _tie(
    clusters: tuple[Cluster, ...],
    bridges: Sequence[Bridge],
    failed: dict[int, str],
    load: Callable[[int], Prediction],
    tolerance: float,
    min_inlier_ratio: float,
) -> Iterator[Tied]:
    """Every contact and its edges in the graph, whose nodes are the clusters, then the bridges."""
    members = [set(cluster.frames) for cluster in clusters]
    for a, b in combinations(range(len(clusters)), 2):
        if members[a].isdisjoint(members[b]):
            continue
        if lost := [number for number in (a, b) if number in failed]:
            yield Link((a, b), "shared", refused=f"cluster {lost[0]} failed"), []
            continue
        frames, predictions = (clusters[a].frames, clusters[b].frames), (load(a), load(b))
        yield shared_edge((a, b), frames, predictions, tolerance, min_inlier_ratio)
    for node, bridge in enumerate(bridges, start=len(clusters)):
        if lost := [number for number in (*bridge.clusters, node) if number in failed]:
            what = "the bridge" if lost[0] == node else f"cluster {lost[0]}"
            yield Link(bridge.clusters, "loop", refused=f"{what} failed"), []
            continue
        yield bridge_edges(bridge, node, clusters, load, tolerance, min_inlier_ratio)


def _doubted(tied: Sequence[Tied], graph: PoseGraph) -> tuple[Link, ...]:
    """The links, those that the pose graph did not believe marked as refused."""
    links, trust = [], iter(graph.trust)
    for link, edges in tied:
        if min([next(trust) for _ in edges], default=1.0) < 0.5:
            link = replace(link, refused="it contradicts the other links")
        links.append(link)
    return tuple(links)


def _owners(
    clusters: Sequence[Cluster], failed: dict[int, str], load: Callable[[int], Prediction]
) -> dict[int, Owner]:
    """Of each view that was reconstructed, the cluster that speaks for it.

    That is its home, where it is most central; should that have failed, the most confident of those
    it was lent to.
    """
    owners: dict[int, Owner] = {}
    confidence: dict[int, float] = {}
    orphans = {f for n, cluster in enumerate(clusters) if n in failed for f in cluster.home}
    for number, cluster in enumerate(clusters):
        if number in failed:
            continue
        place = {frame: position for position, frame in enumerate(cluster.frames)}
        owners |= {frame: Owner(number, place[frame]) for frame in cluster.home}
        for frame in orphans & place.keys():
            scores = load(number).depth_confidence
            score = 1.0 if scores is None else float(np.mean(scores[place[frame]]))
            if score > confidence.get(frame, -np.inf):
                confidence[frame], owners[frame] = score, Owner(number, place[frame])
    return owners


def _left_out(
    names: Sequence[str], clustering: Clustering, owners: dict[int, Owner], failed: dict[int, str]
) -> dict[str, str]:
    left_out = {names[frame]: "resembles no other view" for frame in clustering.outliers}
    for number, cluster in enumerate(clustering.clusters):
        for frame in cluster.home:
            if frame not in owners:
                left_out[names[frame]] = f"its cluster failed twice: {failed[number]}"
    return left_out


def _worlds(owners: dict[int, Owner], graph: PoseGraph) -> list[list[int]]:
    """Views of each component of the pose graph, in order; the largest component first."""
    worlds: dict[int, list[int]] = {}
    for frame in sorted(owners):
        worlds.setdefault(int(graph.component[owners[frame].cluster]), []).append(frame)
    return sorted(worlds.values(), key=lambda frames: (-len(frames), frames[0]))
