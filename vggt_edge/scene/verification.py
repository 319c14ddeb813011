"""Links between pictures that the network's own features bear out, and those that they do not.

Retrieval proposes, and two pictures of different places that happen to look alike tie two sets into
one. Where a set hangs by few links, the pictures around them go through the network together. If
its features find no more of one side in the other than in any strange picture, the links are cut.

Groups are judged, not single pictures: one foreign picture is hardly ever where a set is easiest to
cut.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..distribute import Executor, LocalExecutor
from ..errors import LostItemsError
from ..types import Views
from .adjacency import Adjacency, adjacency, connected, inwards, spectral_order
from .cluster_passes import FAILURES, in_a_line
from .clusters import Bridge
from .retrieval_graph import RetrievalGraph

logger = logging.getLogger(__name__)

# (S, S) of views: how much of each is found in every other.
Likeness = Callable[[Views], np.ndarray]

# A cut is doubted where the pictures at it have no more than DOUBTED of their links across it, or
# where it is a single link, and where no more than FEW of all pairs are linked (docs/LOG.md).
DOUBTED = 0.3
FEW = 0.5
# What is found across, as a share of what is found on the same side, that proves one place. Of the
# pocket model's features, on other worlds and photographs than are scored: docs/LOG.md.
PROVEN = 0.65
# Pictures of each side that are compared.
COMPARED = 4

# Numbers of the pictures of either side that are nearest the other side.
Ends = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Cut:
    """Two sides of a piece of the graph, and the pictures of each that are nearest the other."""

    sides: tuple[set[int], set[int]]
    ends: Ends


def verify_links(
    graph: RetrievalGraph,
    views: Views,
    verifier: Verifier,
    executor: Executor | None = None,
    progress: bool = False,
) -> RetrievalGraph:
    """The graph without those links that hold two parts together and are not borne out.

    Each connected piece is cut where its links are weakest (the least normalised cut along the
    Fiedler vector), unless it is dense even there, and the pictures around the cut are compared.
    Both sides are then looked at in the same way, whether the cut was confirmed or not; and a
    piece again once it lost links, since others may be the weakest now.

    Args:
        graph: from ``retrieval_graph``.
        views: all views.
        verifier: with ``feature_similarity`` of a network.
        executor: who compares; this process when None.
        progress: show a bar on standard error for work over two seconds.
    """
    known: dict[Ends, float] = {}
    links = len(graph.first)
    open_pieces = [set(range(graph.count))]
    while open_pieces:
        near = adjacency(graph)
        kept = np.ones(len(graph.first), dtype=bool)
        roots = [part for piece in open_pieces for part in connected(near, piece)]
        pieces = roots
        while pieces:
            cuts = [cut for piece in pieces if (cut := weakest_cut(near, piece)) is not None]
            unknown = sorted({cut.ends for cut in cuts} - known.keys())
            found = verifier.compare(views, unknown, executor, progress)
            known |= dict(zip(unknown, found, strict=True))
            for cut in cuts:
                if known[cut.ends] < PROVEN:
                    side = np.zeros(graph.count, dtype=np.int8)
                    side[list(cut.sides[0])], side[list(cut.sides[1])] = 1, 2
                    kept &= side[graph.first] * side[graph.second] != 2
            pieces = [part for cut in cuts for side in cut.sides for part in connected(near, side)]
        changed = {*graph.first[~kept].tolist(), *graph.second[~kept].tolist()}
        open_pieces = [root for root in roots if root & changed]
        graph = graph.only(kept)
    if refused := links - len(graph.first):
        logger.info("%d links between views are not borne out by the network's features", refused)
    return graph


def verify_bridges(
    bridges: Sequence[Bridge],
    views: Views,
    verifier: Verifier,
    executor: Executor | None = None,
    progress: bool = False,
) -> tuple[list[Bridge], list[Bridge]]:
    """Bridges whose two ends are alike for views of one place, and those whose ends are not.

    Args:
        bridges: candidates for loops.
        views: all views.
        verifier: with ``feature_similarity`` of a network.
        executor: who compares; this process when None.
        progress: show a bar on standard error for work over two seconds.
    """
    ends = [(bridge.ends[0][:COMPARED], bridge.ends[1][:COMPARED]) for bridge in bridges]
    found = verifier.compare(views, ends, executor, progress)
    alike: list[Bridge] = []
    unlike: list[Bridge] = []
    for bridge, share in zip(bridges, found, strict=True):
        (unlike if share < PROVEN else alike).append(bridge)
    return alike, unlike


def weakest_cut(near: Adjacency, piece: set[int]) -> Cut | None:
    """Where a connected piece of the graph is easiest to cut; None when it is dense even there."""
    if len(piece) < 3:
        return None
    members = np.array(sorted(piece))
    order = members[spectral_order(near, members)].tolist()
    place = {frame: i for i, frame in enumerate(order)}
    # What each picture adds to the weight of all links, and to those between before and after.
    degree, across = np.zeros(len(order)), np.zeros(len(order))
    for i, frame in enumerate(order):
        for b, weight in near[frame].items():
            if b in place:
                degree[i] += weight
                across[i] += weight if place[b] > i else -weight
    crossing, before = np.cumsum(across)[:-1], np.cumsum(degree)[:-1]
    cost = crossing / before + crossing / (degree.sum() - before)
    cut = int(np.argmin(cost)) + 1
    sides = set(order[:cut]), set(order[cut:])
    contact: dict[int, float] = defaultdict(float)
    links = [(a, b) for a in sides[0] for b in near[a].keys() & sides[1]]
    for a, b in links:
        contact[a] += near[a][b]
        contact[b] += near[a][b]
    total = sum(degree[place[frame]] for frame in contact)
    dense = len(links) > FEW * len(sides[0]) * len(sides[1])
    lone = len(links) == 1 and min(map(len, sides)) > 1
    if dense or (sum(contact.values()) > DOUBTED * total and not lone):
        return None
    side_of = {frame: int(place[frame] >= cut) for frame in order}
    deep = inwards(near, contact, side_of, COMPARED)
    ends = [tuple([f for f in deep if side_of[f] == side][:COMPARED]) for side in (0, 1)]
    return Cut(sides, (ends[0], ends[1]))


class Verifier:
    """What an executor maps over pairs of groups; one object, so that a network travels once."""

    def __init__(self, likeness: Likeness) -> None:
        self.likeness = likeness

    def __call__(self, item: tuple[int, tuple[Views, int]]) -> tuple[int, float | str]:
        """The number of a pair, and how alike its groups are, or in a line why nobody knows."""
        number, (views, first) = item
        try:
            return number, found_across(self.likeness(views), first)
        except FAILURES as error:
            return number, in_a_line(error)

    def compare(
        self,
        views: Views,
        pairs: Sequence[Ends],
        executor: Executor | None = None,
        progress: bool = False,
    ) -> list[float]:
        """For each pair of groups of views, how alike they are for views of one place.

        Args:
            views: all views.
            pairs: numbers of the views of both groups.
            executor: who compares; this process when None.
            progress: show a bar on standard error for work over two seconds.

        Returns:
            What is found across each pair as a share of what is found within its groups: about 1
            for views of one place, and for pairs of which a comparison failed, with a warning.
        """
        if not pairs:
            return []
        items = ((n, (views[[*a, *b]], len(a))) for n, (a, b) in enumerate(pairs))
        found: dict[int, float] = {}
        reason = "no result came back"
        with tqdm(
            total=len(pairs), desc="verify", unit="cut", delay=2, leave=False, disable=not progress
        ) as bar:
            try:
                for number, share in (executor or LocalExecutor()).map(self, items):
                    if isinstance(share, str):
                        reason = share
                    else:
                        found[number] = share
                    bar.update()
            except LostItemsError as error:
                reason = str(error)
        if missing := len(pairs) - len(found):
            logger.warning(
                "%d of %d links between groups of views are believed unverified: %s",
                missing, len(pairs), reason,
            )  # fmt: skip
        return [found.get(number, 1.0) for number in range(len(pairs))]


def found_across(found: np.ndarray, first: int) -> float:
    """What views find in the other group, as a share of what they find in their own.

    Of each group that half of the views counts which finds most of it, since the other half may
    look away; of both groups the one that finds less. A view alone has nothing to compare with.

    Args:
        found: (S, S) how much of each view is found in every other.
        first: how many views the first group has.
    """
    shares = []
    groups = np.arange(first), np.arange(first, len(found))
    for here, there in (groups, groups[::-1]):
        if len(here) < 2:
            continue
        own = found[np.ix_(here, here)].astype(np.float64)
        np.fill_diagonal(own, -np.inf)
        ratio = found[np.ix_(here, there)].max(axis=1) / np.maximum(own.max(axis=1), 1e-6)
        shares.append(np.sort(ratio)[-((len(here) + 1) // 2) :].mean())
    return float(min(shares, default=1.0))
