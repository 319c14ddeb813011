"""What dividing into clusters costs and keeps: a predictor that drifts, with and without loops.

The predictor is no network. It returns the truth of a walk round a corridor, in the first camera's
frame and at a scale of its own, stretched along each cluster and noisy by given shares, so that the
numbers are those of clustering, alignment, loops and pose graph alone.

    python benchmarks/clusters.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from walks import Oracle, make_walk, similarity_of, trajectory_error

from vggt_edge.scene.clusters import cluster_views
from vggt_edge.scene.reconstruct_clusters import reconstruct_clusters
from vggt_edge.scene.retrieval_graph import retrieval_graph

SEEDS = range(3)
SPOILT = {"exact": {}, "drift": {"drift": 0.06}, "drift, noise and outliers": {}}
SPOILT["drift, noise and outliers"] = {"drift": 0.06, "noise": 0.01, "outliers": 0.1}


def accuracy(frames: int, size: int) -> dict:
    truth = make_walk(frames)
    similarity = similarity_of(truth)
    length = float(np.linalg.norm(np.diff(truth.cameras.centers, axis=0), axis=1).sum())
    rows = {"frames": frames, "size": size, "way_m": round(length, 1)}
    for name, dials in SPOILT.items():
        errors: dict[str, list[float]] = {"loops": [], "chain": []}
        whole = True
        for seed in SEEDS if dials else (0,):
            for kind, found in errors.items():
                result = reconstruct_clusters(
                    Oracle(truth, seed=seed, **dials),
                    truth.views,
                    similarity=similarity,
                    size=size,
                    overlap=size // 5,
                    close_loops=kind == "loops",
                )
                whole &= len(result.scenes) == 1
                found.append(trajectory_error(result.scenes[0].cameras, truth.cameras))
        rows[name] = {
            "one_scene": whole,
            **{f"ate_m_{kind}": record.spread(found) for kind, found in errors.items()},
        }
        if dials:
            ratios = [chain / loops for loops, chain in zip(*errors.values(), strict=True)]
            rows[name]["chain_over_loops"] = record.spread(ratios)
    return rows


def cost(frames: int, size: int) -> dict:
    """Seconds of everything but the network, and how many a rerun needs."""
    truth = make_walk(frames)
    similarity = similarity_of(truth)
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            result = reconstruct_clusters(
                Oracle(truth, drift=0.02),
                truth.views,
                similarity=similarity,
                size=size,
                overlap=size // 5,
                folder=folder,
            )
            seconds.append(round(time.perf_counter() - begin, 2))
    return {
        "frames": frames,
        "clusters": len(result.clusters),
        "scenes": len(result.scenes),
        "seconds": seconds[0],
        "seconds_of_a_rerun": seconds[1],
    }


def graph(pictures: int, width: int) -> dict:
    """Seconds to link and divide so many descriptors, along a noisy closed way."""
    rng = np.random.default_rng(0)
    way = np.cumsum(rng.normal(size=(pictures, width)), axis=0)
    way -= np.linspace(0, 1, pictures)[:, None] * way[-1]
    step = max(1, pictures // 50)
    way = np.stack([np.roll(way, -k, axis=0) for k in range(0, step, max(1, step // 8))]).mean(0)
    way = (way - way.mean(axis=0)).astype(np.float32)
    begin = time.perf_counter()
    linked = retrieval_graph(descriptors=way)
    middle = time.perf_counter()
    made = cluster_views(linked, size=60, overlap=12)
    end = time.perf_counter()
    homes = [len(cluster.home) for cluster in made.clusters]
    return {
        "pictures": pictures,
        "width": width,
        "edges": len(linked.first),
        "clusters": len(homes),
        "home": {"min": min(homes), "max": max(homes)},
        "largest": max(len(cluster.frames) for cluster in made.clusters),
        "link_seconds": round(middle - begin, 2),
        "divide_seconds": round(end - middle, 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    data = {
        "predictor": "truth of a walk, spoilt; no network",
        "note": "one shared machine: seconds are indicative",
        "accuracy": [accuracy(200, 30), accuracy(600, 60)],
        "cost": [cost(300, 60), cost(1200, 60)],
        "graph": [graph(1000, 256), graph(10_000, 256)],
    }
    print(record.write("clusters", data))


if __name__ == "__main__":
    main()
