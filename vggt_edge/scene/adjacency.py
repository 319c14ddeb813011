"""Walking a retrieval graph: neighbours, connected pieces, inwards from a border, Fiedler order."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from .retrieval_graph import RetrievalGraph

# Above so many pictures the Fiedler vector is found by sparse methods.
_DENSE = 400

# Of each picture, those it is linked to and how similar they are.
Adjacency = list[dict[int, float]]


def adjacency(graph: RetrievalGraph) -> Adjacency:
    """Neighbours of each picture; no similarity is below 0.001."""
    near: Adjacency = [{} for _ in range(graph.count)]
    edges = zip(graph.first.tolist(), graph.second.tolist(), graph.similarity.tolist(), strict=True)
    for a, b, score in edges:
        # Cutting an edge must cost something, however little its ends resemble each other.
        near[a][b] = near[b][a] = max(score, 1e-3)
    return near


def connected(near: Adjacency, members: set[int]) -> list[set[int]]:
    """The connected pieces of some pictures, in the order of their lowest numbers."""
    pieces, done = [], set[int]()
    for start in sorted(members):
        if start in done:
            continue
        piece, front = {start}, [start]
        while front:
            fresh = {b for b in near[front.pop()] if b in members and b not in piece}
            piece |= fresh
            front += fresh
        done |= piece
        pieces.append(piece)
    return pieces


def ranked(strengths: dict[int, float]) -> list[int]:
    """Pictures by falling strength; of equals the lower number first."""
    return sorted(strengths, key=lambda frame: (-strengths[frame], frame))


def inwards(
    near: Adjacency, contact: dict[int, float], home_of: dict[int, int], wanted: int
) -> list[int]:
    """Pictures from where parts touch inwards, until there are enough of each or no more.

    Args:
        near: neighbours.
        contact: pictures of either part at the border, and how strongly they touch the other.
        home_of: the part of each picture; nobody else is found.
        wanted: how many of each part are wanted; there may be more.
    """
    found, layer = ranked(contact), dict(contact)
    while layer:
        have = Counter(home_of[frame] for frame in found)
        deeper: dict[int, float] = defaultdict(float)
        for frame in layer:
            if have[home_of[frame]] >= wanted:
                continue
            for b, weight in near[frame].items():
                if b not in found and home_of.get(b) == home_of[frame]:
                    deeper[b] += weight
        layer = deeper
        found += ranked(layer)
    return found


def spectral_order(near: Adjacency, members: np.ndarray) -> np.ndarray:
    """Positions of the members along the Fiedler vector of their normalised Laplacian."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import eigsh

    number = {frame: i for i, frame in enumerate(members.tolist())}
    entries = [
        (i, number[b], weight)
        for frame, i in number.items()
        for b, weight in near[frame].items()
        if b in number
    ]
    # A weak chain through all, in order, settles ties and joins pieces that a cut left apart.
    for i in range(len(members) - 1):
        entries += [(i, i + 1, 1e-3), (i + 1, i, 1e-3)]
    row, column, weight = zip(*entries, strict=True)
    count = len(members)
    links = csr_matrix((weight, (row, column)), shape=(count, count))
    degree = np.asarray(links.sum(axis=1)).ravel()
    scale = diags(1 / np.sqrt(degree))
    laplacian = diags(np.ones(count)) - scale @ links @ scale
    if count <= _DENSE:
        vector = np.linalg.eigh(laplacian.toarray())[1][:, 1]
    else:
        # Any fixed start that is not the trivial eigenvector makes the result repeatable.
        start = np.cos(np.arange(count) * np.pi / count)
        values, vectors = eigsh(laplacian.tocsc(), k=2, sigma=-1e-3, v0=start)
        vector = vectors[:, np.argmax(values)]
    vector = vector / np.sqrt(degree)
    if vector @ (np.arange(count) - (count - 1) / 2) < 0:
        vector = -vector
    # Rounded, so that members which differ by rounding errors alone keep their order.
    return np.argsort(np.round(vector / np.abs(vector).max(), 9), kind="stable")
