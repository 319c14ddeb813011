"""Which scenes to calibrate with: none that is noise, and not the same thing many times.

After QuantVGGT (Feng et al., "Quantized Visual Geometry Grounded Transformer", ICLR 2026,
noise-filtered diverse sampling), and doing what the paper says: the scenes that the filter finds
are left out, which in the published code they are not.

1. For each candidate scene, mean and standard deviation of what enters the last quarter of frame
   and global blocks, layer by layer.
2. Within its group (a folder), a candidate is abnormal when one of these numbers lies outside
   ``[Q1 - k IQR, Q3 + k IQR]``, k = 1.5 (Tukey's fences). Abnormal candidates are removed.
3. A scene's description is how its views relate to the first one, which fixes the world frame: for
   each view k >= 1 the mean over tokens of the cosine between its token and the first view's at the
   same place, in the last global block's output; S - 1 numbers.
4. k-means groups the rest into n clusters, each of which gives m scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.vggt import VGGT

WHISKER = 1.5
LEAST_GROUP = 8
"""Members a group needs for quartiles of its own; smaller ones are judged among all."""
RESTARTS = 50
ITERATIONS = 100


class SceneStatistics(NamedTuple):
    """What a network makes of a scene.

    moments     (2 * layers,) means, then standard deviations.
    similarity  (S - 1,) likeness of each view to the first.
    peaks       (layers, 2) largest absolute value of patch and of special tokens that enter each.
    """

    moments: np.ndarray
    similarity: np.ndarray
    peaks: np.ndarray


def observed(depth: int) -> list[str]:
    """Paths of the layers that ``scene_statistics`` looks at: the last quarter of both kinds."""
    numbers = range(depth - max(1, depth // 4), depth)
    return [
        f"aggregator.{kind}_blocks.{number}" for kind in ("frame", "global") for number in numbers
    ]


@torch.inference_mode()
def scene_statistics(model: VGGT, images: Tensor) -> SceneStatistics:
    """Run the aggregator over (1, S, 3, H, W) images of a scene."""
    aggregator = model.aggregator
    blocks = [model.get_submodule(path) for path in observed(model.config.depth)]
    special = model.config.special_tokens
    means: dict[int, float] = {}
    spreads: dict[int, float] = {}
    peaks: dict[int, tuple[float, float]] = {}
    last: list[Tensor] = []

    def watch(index: int, given: tuple[Tensor, ...]) -> None:
        x = given[0].float()
        means[index], spreads[index] = float(x.mean()), float(x.std())
        sizes = x.abs()  # (..., P, width), the special tokens of each view first
        peaks[index] = float(sizes[..., special:, :].max()), float(sizes[..., :special, :].max())

    handles = [
        cast(nn.Module, block.norm1).register_forward_pre_hook(
            lambda _, given, index=index: watch(index, given)
        )
        for index, block in enumerate(blocks)
    ]
    handles.append(blocks[-1].register_forward_hook(lambda _, __, y: last.append(y)))
    try:
        aggregator(images)
    finally:
        for handle in handles:
            handle.remove()
    tokens = torch.nn.functional.normalize(last[0][0].float(), dim=-1)
    similarity = (tokens[1:] * tokens[:1]).sum(-1).mean(-1)
    order = sorted(means)
    moments = np.array([means[i] for i in order] + [spreads[i] for i in order])
    largest = np.array([peaks[i] for i in order])
    return SceneStatistics(moments, similarity.cpu().numpy().astype(np.float64), largest)


def abnormal(moments: np.ndarray, groups: Sequence[str], whisker: float = WHISKER) -> np.ndarray:
    """(N,) bool: candidates with a number outside Tukey's fences of their group.

    Args:
        moments: (N, K) numbers of each candidate.
        groups: N labels.
        whisker: in interquartile ranges.
    """
    labels = np.asarray(groups)
    found = np.zeros(len(moments), dtype=bool)
    for label in np.unique(labels):
        members = labels == label
        judged = moments[members] if members.sum() >= LEAST_GROUP else moments
        first, third = np.quantile(judged, [0.25, 0.75], axis=0)
        reach = whisker * (third - first)
        outside = (moments < first - reach) | (moments > third + reach)
        found |= members & outside.any(axis=1)
    return found


def k_means(vectors: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """(N,) cluster of each of (N, K) vectors; the best of many starts (k-means++), seeded."""
    random = np.random.default_rng(seed)
    best, least = np.zeros(len(vectors), dtype=int), np.inf
    for _ in range(RESTARTS):
        centers = vectors[[random.integers(len(vectors))]]
        while len(centers) < clusters:
            apart = ((vectors[:, None] - centers) ** 2).sum(-1).min(1)
            total = apart.sum()
            chance = apart / total if total > 0 else None
            centers = np.concatenate([centers, vectors[[random.choice(len(vectors), p=chance)]]])
        label = np.full(len(vectors), -1)
        for _ in range(ITERATIONS):
            apart = ((vectors[:, None] - centers) ** 2).sum(-1)
            previous, label = label, apart.argmin(1)
            if (label == previous).all():
                break
            for cluster in range(clusters):
                if (label == cluster).any():
                    centers[cluster] = vectors[label == cluster].mean(0)
        cost = ((vectors - centers[label]) ** 2).sum()
        if cost < least - 1e-12:
            best, least = label, cost
    return best


class Sample(NamedTuple):
    """Which candidates were taken.

    kept      (N,) bool: passed the filter.
    cluster   (N,) int, -1 where not kept.
    chosen    indices, in order.
    """

    kept: np.ndarray
    cluster: np.ndarray
    chosen: list[int]


def choose(
    statistics: Sequence[SceneStatistics],
    groups: Sequence[str],
    clusters: int,
    each: int,
    seed: int = 0,
    whisker: float = WHISKER,
) -> Sample:
    """Filter, cluster, take ``each`` of every cluster; what small ones lack comes from the rest.

    Args:
        statistics: of each candidate; all of equally many views.
        groups: of each candidate.
        clusters: how many; fewer where fewer candidates pass.
        each: of each cluster.
        seed: of the clusters and draws.
        whisker: of the filter.

    Raises:
        InputError: no candidate passes the filter.
    """
    moments = np.stack([one.moments for one in statistics])
    kept = ~abnormal(moments, groups, whisker)
    if not kept.any():
        raise InputError(
            f"the filter removed all {len(kept)} candidates: raise --whisker (it is {whisker:g}) "
            "or give more pictures"
        )
    index = np.flatnonzero(kept)
    vectors = np.stack([statistics[i].similarity for i in index.tolist()])
    cluster = np.full(len(statistics), -1)
    cluster[index] = k_means(vectors, min(clusters, len(index)), seed)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(cluster.max() + 1):
        members = np.flatnonzero(cluster == label)
        chosen += random.permutation(members)[:each].tolist()
    rest = [i for i in index.tolist() if i not in chosen]
    missing = min(clusters * each - len(chosen), len(rest))
    chosen += random.permutation(np.array(rest, dtype=int))[: max(missing, 0)].tolist()
    return Sample(kept, cluster, sorted(chosen))
