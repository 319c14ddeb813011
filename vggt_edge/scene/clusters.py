"""From a retrieval graph to clusters that fit one forward pass each.

Each picture has one home cluster. Homes come from recursive spectral bisection (Fiedler 1973;
Pothen, Simon and Liou 1990) and are of about equal size. Along a maximum spanning tree of the
clusters, neighbours lend each other pictures, and these shared pictures hold the clusters together.
All other contacts of two clusters are only candidates for loops: a ``Bridge`` is a small set of
pictures of both ends, reconstructed apart, so that a mistaken retrieval can spoil no cluster.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .adjacency import Adjacency, adjacency, connected, inwards, ranked, spectral_order
from .retrieval_graph import RetrievalGraph

# Tree neighbours share so many pictures even when that makes a cluster larger than asked for.
_LEAST_SHARED = 3


@dataclass(frozen=True)
class Cluster:
    """Pictures for one forward pass.

    Fields
        frames     picture numbers, the most central one first, since the first view fixes the world
                   frame of a pass; then in order.
        home       those of ``frames`` whose home this is; every kept picture has one home.
        component  which connected component of the retrieval graph this is a part of.
    """

    frames: tuple[int, ...]
    home: tuple[int, ...]
    component: int


@dataclass(frozen=True)
class Bridge:
    """A candidate for a loop: clusters that retrieval links and that share too few pictures.

    Fields
        clusters    the two clusters, the lower number first.
        ends        the pictures of each that look most like pictures of the other, most first.
        similarity  summed over the retrieval edges between them.
    """

    clusters: tuple[int, int]
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    similarity: float

    @property
    def frames(self) -> tuple[int, ...]:
        """All pictures of the bridge."""
        return self.ends[0] + self.ends[1]


@dataclass(frozen=True)
class Clustering:
    """Clusters, candidates for loops between them, and pictures that resemble no other."""

    clusters: tuple[Cluster, ...]
    bridges: tuple[Bridge, ...]
    outliers: tuple[int, ...]


def cluster_views(
    graph: RetrievalGraph,
    *,
    size: int = 60,
    overlap: int = 12,
    bridge_size: int = 16,
    bridges_per_cluster: int = 4,
    keep_outliers: bool = False,
) -> Clustering:
    """Divide pictures into overlapping clusters. The same graph gives the same clusters.

    Args:
        graph: from ``retrieval_graph`` or ``sequence_graph``.
        size: most pictures in a cluster. A component no larger than this is one cluster. Where many
            clusters meet, one may become up to three pictures a neighbour larger.
        overlap: pictures that neighbours share.
        bridge_size: pictures of a bridge, half from each end.
        bridges_per_cluster: most bridges that end in one cluster; 0 for none.
        keep_outliers: link a picture that resembles no other to the one it resembles most, instead
            of leaving it out.

    Raises:
        InputError: sizes that make no sense.
    """
    if size < 2 or not 1 <= overlap < size:
        raise InputError(
            f"clusters of {size} that overlap by {overlap} make no sense: "
            "give a size of 2 or more and an overlap of 1 or more below it"
        )
    components = graph.components()
    lone = np.flatnonzero(np.bincount(components, minlength=1)[components] == 1)
    if graph.count > 1 and keep_outliers and len(lone):
        graph = graph.linked(lone, graph.best[lone], graph.best_score[lone])
        components, lone = graph.components(), np.zeros(0, dtype=np.int64)
    if graph.count == 1:
        lone = np.zeros(0, dtype=np.int64)
    near = adjacency(graph)
    homes: list[list[int]] = []
    for component in np.unique(np.delete(components, lone)):
        members = np.flatnonzero(components == component)
        core = size if len(members) <= size else size - overlap
        homes += sorted(_divide(near, members, core), key=min)
    home_of = np.full(graph.count, -1)
    for number, home in enumerate(homes):
        home_of[home] = number
    contacts = _contacts(near, home_of)
    lent = _lend(near, contacts, homes, size, overlap)
    clusters = tuple(
        Cluster(_central_first(near, home, guests), tuple(home), int(components[home[0]]))
        for home, guests in zip(homes, lent, strict=True)
    )
    bridges = _bridges(contacts, clusters, bridge_size, bridges_per_cluster)
    return Clustering(clusters, bridges, tuple(lone.tolist()))


# Of two clusters, lower first: how much each picture of either resembles pictures of the other.
Contacts = dict[tuple[int, int], dict[int, float]]


def _divide(near: Adjacency, members: np.ndarray, core: int) -> list[list[int]]:
    """Parts of at most ``core`` members; connected, unless that would make them too unequal."""
    parts = -(-len(members) // core)
    if parts <= 1:
        return [sorted(members.tolist())]
    order = members[spectral_order(near, members)]
    cut = round(len(order) * (parts // 2) / parts)
    left, right = set(order[:cut].tolist()), set(order[cut:].tolist())
    whole = left | right
    left = _largest_piece(near, left)
    right = _largest_piece(near, whole - left)
    left = whole - right
    if min(len(left), len(right)) < cut / 2:
        left, right = set(order[:cut].tolist()), set(order[cut:].tolist())
    halves = [np.array(sorted(half)) for half in (left, right)]
    return [part for half in halves for part in _divide(near, half, core)]


def _largest_piece(near: Adjacency, members: set[int]) -> set[int]:
    """The largest connected piece; of equals the one with the lowest number."""
    return max(connected(near, members), key=len, default=set())


def _contacts(near: Adjacency, home_of: np.ndarray) -> Contacts:
    contacts: Contacts = defaultdict(lambda: defaultdict(float))
    homes = home_of.tolist()
    for a, others in enumerate(near):
        for b, weight in others.items():
            if homes[a] != homes[b] and homes[a] >= 0 and homes[b] >= 0:
                # Each edge is met from both of its ends.
                contacts[min(homes[a], homes[b]), max(homes[a], homes[b])][a] += weight
    return contacts


def _lend(
    near: Adjacency, contacts: Contacts, homes: list[list[int]], size: int, overlap: int
) -> list[list[int]]:
    """Guests of each cluster: pictures lent along a maximum spanning tree of the contacts."""
    root = list(range(len(homes)))
    tree = []
    for pair in sorted(contacts, key=lambda pair: (-sum(contacts[pair].values()), pair)):
        a, b = (root[one] for one in pair)
        if a != b:
            root = [min(a, b) if r in (a, b) else r for r in root]
            tree.append(pair)
    home_of = {frame: number for number, home in enumerate(homes) for frame in home}
    guests: list[list[int]] = [[] for _ in homes]
    for wanted, within in ((min(_LEAST_SHARED, overlap), False), (overlap, True)):
        for pair in tree:
            shared = sum(_shared(guests, home_of, pair))
            for frame in inwards(near, contacts[pair], home_of, wanted):
                if shared >= wanted:
                    break
                host = pair[1] if home_of[frame] == pair[0] else pair[0]
                full = within and len(homes[host]) + len(guests[host]) >= size
                if frame not in guests[host] and not full:
                    guests[host].append(frame)
                    shared += 1
    return guests


def _shared(
    guests: list[list[int]], home_of: dict[int, int], pair: tuple[int, int]
) -> tuple[int, int]:
    a, b = pair
    lent = sum(home_of[frame] == b for frame in guests[a])
    return lent, sum(home_of[frame] == a for frame in guests[b])


def _central_first(near: Adjacency, home: list[int], guests: list[int]) -> tuple[int, ...]:
    members = sorted({*home, *guests})
    inside = set(members)
    degree = {f: sum(w for b, w in near[f].items() if b in inside) for f in home}
    central = ranked(degree)[0]
    return (central, *(frame for frame in members if frame != central))


def _bridges(
    contacts: Contacts, clusters: tuple[Cluster, ...], bridge_size: int, per_cluster: int
) -> tuple[Bridge, ...]:
    bridges = []
    used = [0] * len(clusters)
    for pair in sorted(contacts, key=lambda pair: (-sum(contacts[pair].values()), pair)):
        a, b = pair
        shared = set(clusters[a].frames) & set(clusters[b].frames)
        if len(shared) >= _LEAST_SHARED or max(used[a], used[b]) >= per_cluster:
            continue
        nearest = ranked(contacts[pair])
        half = max(1, bridge_size // 2)
        first, second = (
            tuple([f for f in nearest if f in set(clusters[one].home)][:half]) for one in pair
        )
        used[a] += 1
        used[b] += 1
        total = sum(contacts[pair].values()) / 2
        bridges.append(Bridge(pair, (first, second), total))
    return tuple(bridges)
