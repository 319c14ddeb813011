"""How well descriptors find views of the same place, and what follows for anchors and components.

    python benchmarks/retrieval.py overlap|line|worlds|photographs [DATA] [--model pocket]

``overlap``: redkitchen and a procedural walk, where depth and poses say which views truly overlap:
the area under the ROC curve of the cosine for pairs that overlap (> .3 both ways) against pairs
that do not (< .05), the true overlap of the five nearest, and of each view with its best anchor.
``line``: KITTI, driven straight: rank correlation of cosine and nearness. ``worlds``: every two of
14 procedural scenes mixed: do the components of the graph keep them apart, and one scene together,
before and after the network's features are asked about weak links (scene/verification.py).
``photographs``: the same for 18 photographed sets, and one foreign picture in a set: is it found,
is anybody else accused. Baselines pool the same tokens otherwise.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image

from vggt_edge import covisibility, geometry, memory, retrieval, weights, worlds
from vggt_edge.anchors import farthest_points
from vggt_edge.images import read_views
from vggt_edge.model.vggt import VGGT
from vggt_edge.retrieval.tokens import encode
from vggt_edge.scene.features import feature_similarity
from vggt_edge.scene.retrieval_graph import retrieval_graph
from vggt_edge.scene.verification import Verifier, verify_links
from vggt_edge.types import Views

SEED = 2**41 + 1213  # no world of training, none that was looked at while choosing
WORLDS = 2**41 + 90_000  # of "worlds"; what was looked at on the way is in docs/LOG.md
NEIGHBOURS = 12
STEPS = ("retrieval alone", "verified")
MOST = 16  # views of a set in "mixed" and "lone"
NOTES = (
    "MegaLoc is not compared: its trained weights cannot be fetched here, and random ones say "
    "nothing. The constants of retrieval/tokens.py and SAME_PLACE were chosen on these photographs "
    "and on procedural scenes of other seeds, as were those of scene/verification.py: walk and "
    "worlds are held out, photographs are not. Seconds are of one thread of a shared machine."
)
Describe = Callable[[Views], np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def methods(model: VGGT) -> dict[str, Describe]:
    def pooled(views: Views) -> np.ndarray:
        chunk = memory.aggregator_chunk(model.config, *views.size)
        with torch.inference_mode():
            parts = [
                encode(model, views[i : i + chunk]).mean(dim=1).numpy()
                for i in range(0, len(views), chunk)
            ]
        return np.concatenate(parts)

    def centred(views: Views) -> np.ndarray:
        mean = pooled(views)
        return unit(mean - mean.mean(axis=0))

    def whitened(views: Views) -> np.ndarray:
        """As SwiftVGGT: signed root, principal components but the first, each to variance one.

        At most a quarter as many as views: all of them would make any two views orthogonal.
        """
        mean = pooled(views)
        mean = np.sign(mean) * np.sqrt(np.abs(mean))
        mean = mean - mean.mean(axis=0)
        left, _, _ = np.linalg.svd(mean, full_matrices=False)
        return unit(left[:, 1 : 1 + max(1, min(512, len(mean) // 4))])

    return {
        "tokens": lambda views: retrieval.descriptors(model, views),
        "mean token": lambda views: unit(pooled(views)),
        "mean token, centred": centred,
        "mean token, whitened": whitened,
    }


def overlaps(depth: np.ndarray, intrinsics: np.ndarray, poses: np.ndarray, step: int) -> np.ndarray:
    """(S, S): share of the pixels with depth of each view that another sees at the same depth."""
    count, height, width = depth.shape
    found = np.zeros((count, count))
    for i in range(count):
        small = intrinsics[i].copy()
        small[:2] /= step
        few = depth[i, ::step, ::step]
        points = geometry.unproject(few, small, poses[i])[few > 0]
        for j in range(count):
            seen = geometry.project(points, intrinsics[j], poses[j])
            col, row = np.round(np.clip(seen[:, :2], -9, 9999)).astype(int).T
            inside = (seen[:, 2] > 0.1) & (col >= 0) & (col < width) & (row >= 0) & (row < height)
            there = np.where(inside, depth[j, row.clip(0, height - 1), col.clip(0, width - 1)], 0.0)
            same = (there > 0) & (np.abs(there - seen[:, 2]) < 0.08 * seen[:, 2] + 0.03)
            found[i, j] = same.sum() / max(1, len(points))
    return np.minimum(found, found.T)


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort(kind="stable").argsort(kind="stable").astype(float)


def roc(positive: np.ndarray, negative: np.ndarray) -> float:
    order = ranks(np.concatenate([positive, negative]))[: len(positive)]
    return float((order.mean() - (len(positive) - 1) / 2) / len(negative))


def score_overlap(found: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    count = len(found)
    cosine, pairs = found @ found.T, np.triu_indices(count, 1)
    c, t = cosine[pairs], truth[pairs]
    top = covisibility.nearest(found, 5).indices
    best = {
        str(k): round(float(truth[:, farthest_points(found, k).indices].max(axis=1).mean()), 3)
        for k in (5, 10, 25)
    }
    return {
        "roc_auc": round(roc(c[t > 0.3], c[t < 0.05]), 3),
        "rank_correlation": round(float(np.corrcoef(ranks(c), ranks(t))[0, 1]), 3),
        "overlap_of_nearest_5": round(float(np.take_along_axis(truth, top, 1).mean()), 3),
        "nearest_5_overlapping": round(float((np.take_along_axis(truth, top, 1) > 0.25).mean()), 3),
        "overlap_with_best_anchor": best,
        "cosine_percentiles_1_50_99": np.percentile(c, [1, 50, 99]).round(2).tolist(),
    }


def reference(truth: np.ndarray) -> dict[str, Any]:
    """What no descriptor can beat, and what needs none."""
    count = len(truth)
    others = np.where(np.eye(count, dtype=bool), -1, truth)
    random = np.random.default_rng(0)
    out: dict[str, Any] = {
        "best_nearest_5": round(float(np.sort(others, axis=1)[:, -5:].mean()), 3),
        "mean_of_all_pairs": round(float(truth[np.triu_indices(count, 1)].mean()), 3),
        "evenly_in_time": {},
        "random": {},
    }
    for k in (5, 10, 25):
        even = np.linspace(0, count - 1, k).round().astype(int)
        draws = [np.r_[0, 1 + random.permutation(count - 1)[: k - 1]] for _ in range(50)]
        out["evenly_in_time"][str(k)] = round(float(truth[:, even].max(axis=1).mean()), 3)
        out["random"][str(k)] = round(
            float(np.mean([truth[:, d].max(axis=1).mean() for d in draws])), 3
        )
    return out


def redkitchen(folder: Path, size: int) -> tuple[Views, np.ndarray]:
    data = json.loads((folder / "cameras.json").read_text())
    frames = data["frames"]
    depth = np.stack([np.asarray(Image.open(folder / f["depth"])) for f in frames])
    depth = depth * data["depth_unit_m"]
    depth[depth > 6] = 0  # 65535 and what the sensor cannot know
    intrinsics = np.array([f["K"] for f in frames], float)
    poses = geometry.invert_rigid(np.array([f["c2w"] for f in frames])[:, :3])
    views = read_views([folder / f["image"] for f in frames], size=size)
    return views, overlaps(depth, intrinsics, poses, 8)


def procedural_walk(size: int) -> tuple[Views, np.ndarray]:
    world = worlds.walk(SEED, 100, size, size, stride=0.25)
    images = (world.images[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    truth = overlaps(
        world.depth[0].numpy(),
        world.intrinsics[0].double().numpy(),
        world.camera_from_world[0].double().numpy(),
        4,
    )
    return Views.from_images(images), truth


def parted(found: np.ndarray, views: Views, verifier: Verifier) -> dict[str, np.ndarray]:
    """Components of the views as reconstruct_clusters finds them, before and after verification."""
    graph = retrieval_graph(
        descriptors=found, neighbours=NEIGHBOURS, threshold=retrieval.SAME_PLACE["tokens"]
    )
    steps = graph, verify_links(graph, views, verifier)
    return {step: graph.components() for step, graph in zip(STEPS, steps, strict=True)}


def separation(
    model: VGGT, sets: dict[str, Callable[[], Views]], both: Callable[[str, str], Views]
) -> dict[str, Any]:
    """Every two sets mixed: which are tied by a link, and by how many views that are astray."""
    describe = methods(model)["tokens"]
    verifier = Verifier(functools.partial(feature_similarity, model))
    sizes: dict[str, int] = {}
    pieces: dict[str, dict[str, int]] = {step: {} for step in STEPS}
    glued: dict[str, dict[str, int]] = {step: {} for step in STEPS}
    exact = dict.fromkeys(STEPS, 0)
    spread_in, spread_out = [], []
    for name, read in sets.items():
        views = read()
        found = describe(views)
        sizes[name] = len(found)
        for step, labels in parted(found, views, verifier).items():
            if labels.max() > 0:
                pieces[step][name] = int(labels.max()) + 1
        spread_in += (found @ found.T)[np.triu_indices(len(found), 1)].tolist()
    for a, b in itertools.combinations(sets, 2):
        views = both(a, b)
        found = describe(views)
        for step, labels in parted(found, views, verifier).items():
            of_a = np.bincount(labels[: sizes[a]], minlength=labels.max() + 1)
            of_b = np.bincount(labels[sizes[a] :], minlength=labels.max() + 1)
            if astray := int(np.minimum(of_a, of_b).sum()):
                glued[step][f"{a} + {b}"] = astray
            exact[step] += int(labels.max()) == 1 and not astray
        spread_out += (found[: sizes[a]] @ found[sizes[a] :].T).ravel().tolist()
    return {
        "threshold": retrieval.SAME_PLACE["tokens"],
        "neighbours": NEIGHBOURS,
        "sets": len(sets),
        "pairs_of_sets": len(sets) * (len(sets) - 1) // 2,
        "views_astray_of_glued_pairs": glued,
        "exactly_two_components": exact,
        "sets_in_pieces": pieces,
        "cosine_within_percentiles_1_50_99": np.percentile(spread_in, [1, 50, 99])
        .round(2)
        .tolist(),
        "cosine_between_percentiles_1_50_99_100": np.percentile(spread_out, [1, 50, 99, 100])
        .round(2)
        .tolist(),
    }


def lone(describe: Describe, files: dict[str, list[Path]], size: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    found = accused = others = trials = alone = total = 0
    threshold = retrieval.SAME_PLACE["tokens"]
    for name, own in files.items():
        if len(own) < 5:
            continue
        alone += len(covisibility.lone_views(describe(read_views(own, size=size)), threshold))
        total += len(own)
        for other in random.choice([n for n in files if n != name], 4, replace=False):
            picture = files[other][random.integers(len(files[other]))]
            rows = describe(read_views([*own, picture], size=size))
            hits = set(covisibility.lone_views(rows, threshold).tolist())
            found += len(own) in hits
            accused += len(hits - {len(own)})
            others += len(own)
            trials += 1
    return {
        "foreign_pictures": trials,
        "found": found,
        "others": others,
        "others_accused": accused,
        "pure_sets_views": total,
        "pure_sets_accused": alone,
    }


def shrunken(data: Path, folder: Path, size: int) -> dict[str, list[Path]]:
    """At most MOST pictures of each set, made small once: they are read in every mixture."""
    files: dict[str, list[Path]] = {}
    for source in sorted([*data.glob("*posed/*"), data / "gps" / "gps_opensfm_lund"]):
        images = sorted(p for p in (source / "images").iterdir() if p.suffix in (".jpg", ".png"))
        chosen = np.linspace(0, len(images) - 1, min(len(images), MOST)).round().astype(int)
        (folder / source.name).mkdir()
        files[source.name] = [folder / source.name / f"{i:04d}.png" for i in chosen]
        for i, path in zip(chosen, files[source.name], strict=True):
            with Image.open(images[i]) as picture:
                picture.thumbnail((size, size), Image.Resampling.BICUBIC)
                picture.save(path)
    return files


def overlap(model: VGGT, data: Path, size: int) -> dict[str, Any]:
    result = {}
    for name, (views, truth) in {
        "redkitchen": redkitchen(data / "posed" / "rgbd_7scenes_redkitchen", size),
        "procedural walk": procedural_walk(112),
    }.items():
        rows: dict[str, Any] = {"views": len(views), "reference": reference(truth)}
        for label, describe in methods(model).items():
            start = time.perf_counter()
            found = describe(views)
            seconds = time.perf_counter() - start
            rows[label] = score_overlap(found, truth) | {"seconds": round(seconds, 2)}
        result[name] = rows
    return result


def line(model: VGGT, data: Path, size: int) -> dict[str, Any]:
    folder = data / "posed" / "pose_kitti_1"
    frames = json.loads((folder / "cameras.json").read_text())["frames"]
    centres = np.array([frame["c2w"] for frame in frames])[:, :3, 3]
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    pairs = np.triu_indices(len(apart), 1)
    views = read_views(folder / "images", size=size)
    result = {}
    for label, describe in methods(model).items():
        found = describe(views)
        near = covisibility.nearest(found, 2).indices
        correlation = np.corrcoef(ranks((found @ found.T)[pairs]), ranks(-apart[pairs]))[0, 1]
        result[label] = {
            "rank_correlation": round(float(correlation), 3),
            "metres_to_nearest_2": round(float(np.take_along_axis(apart, near, 1).mean()), 2),
        }
    return result


def procedural(model: VGGT, data: Path, size: int) -> dict[str, Any]:
    result = {}
    for views in (3, 6, 12):
        scenes = worlds.render(WORLDS + 100 * views, 14, views, 112, 112)
        pictures = (scenes.images.permute(0, 1, 3, 4, 2) * 255).round().byte().numpy()
        result[f"{views} views"] = separation(
            model,
            {str(i): lambda p=p: Views.from_images(p) for i, p in enumerate(pictures)},
            lambda a, b, p=pictures: Views.from_images(np.concatenate([p[int(a)], p[int(b)]])),
        )
    return result


def photographs(model: VGGT, data: Path, size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as small:
        files = shrunken(data, Path(small), 2 * size)
        mixed = separation(
            model,
            {n: lambda f=f: read_views(f, size=size) for n, f in files.items()},
            lambda a, b: read_views([*files[a], *files[b]], size=size),
        )
        return {"mixed": mixed, "lone": lone(methods(model)["tokens"], files, size)}


PARTS = {"overlap": overlap, "line": line, "worlds": procedural, "photographs": photographs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("data", nargs="?", type=Path, default=Path("/work/shared/data"))
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = weights.load(args.model, dtype="float32", device="cpu")
    result = PARTS[args.part](model, args.data, args.size)
    print(json.dumps(result, indent=1))
    about = {"model": args.model, "size": args.size, "notes": NOTES}
    print(record.write(f"retrieval_{args.part}", about | {args.part: result}))


if __name__ == "__main__":
    main()
