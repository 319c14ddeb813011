"""Every method in every precision on held-out worlds, and what each part of the papers' is worth.

    python benchmarks/compress_methods.py [MODEL] [--scenes 24] [--views 2 8] [--only NAME ...]

Writes ``results/compress_methods.json``, named after the model too unless it is "pocket", after
every row: with ``--resume`` an interrupted run goes on, and runs of other ``--only`` add to it.
Calibration scenes are chosen from worlds of training's seeds by the noise-filtered, diverse
sampling; scores are on worlds that neither training nor calibration draws. Differences are against
the float network on the same scenes, paired, with 95 % bootstrap intervals over scenes. Signs:
AbsRel up is worse, AUC@30 down is worse (in points of 100); "apart"
measures compare with the float network's answer, not with the truth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import vggt_edge as ve
from vggt_edge import metrics
from vggt_edge.compress.methods import METHODS, Method, method_of
from vggt_edge.compress.sampling import choose, scene_statistics
from vggt_edge.evaluate.bootstrap import compare, summarize
from vggt_edge.evaluate.datasets.worlds import OVERLAP, TEST_SEED
from vggt_edge.model.quantized import QuantLinear
from vggt_edge.predict import extrinsics_from_encoding, to_tensor
from vggt_edge.train.batch import Batch, make_batch
from vggt_edge.types import Views
from vggt_edge.worlds import KINDS, render

CALIBRATION_SEED = 2**39  # below 2^40, as training's
RECIPES = ("w4a4", "w4a8-g32", "w4a16-g128", "w8a8")  # where most is at stake first
Part = tuple[str, str, Method, str]


def parts(epochs: int) -> list[Part]:
    """Name, recipe, method and calibration set of each ablation."""
    half = method_of("smooth", exponent=0.5)
    trained = method_of("quantvggt", exponent=0.5, epochs=epochs)
    rotated = "w4a4-hadamard"
    gains = {"train_weight_clips": False, "train_activation_clips": False}
    rows = [
        ("base: min-max", "w4a4", method_of("minmax"), "nfds"),
        ("clipped weights", "w4a4", method_of("nearest"), "nfds"),
        ("rotation", rotated, method_of("nearest"), "nfds"),
        ("smoothing 0.5", "w4a4", half, "nfds"),
        ("rotation, smoothing 0.5", rotated, half, "nfds"),
        ("rotation, smoothing searched", rotated, method_of("smooth"), "nfds"),
        ("rotation, smoothing, clips trained", rotated,
         method_of(trained, train_gains=False), "nfds"),
        ("rotation, smoothing, gains trained", rotated, method_of(trained, **gains), "nfds"),
        ("all of QuantVGGT", rotated, trained, "nfds"),
        ("all of QuantVGGT without rotation", "w4a4", trained, "nfds"),
        ("all of QuantVGGT, errors propagated", rotated,
         method_of(trained, propagate=True), "nfds"),
        ("all of QuantVGGT, propagated, then GPTQ", rotated,
         method_of(trained, propagate=True, gptq=True), "nfds"),
        ("auto, rotated", rotated, method_of("auto"), "nfds"),
        ("auto, rotated, bias left", rotated, method_of("auto", bias=False), "nfds"),
        ("auto, rotated, no GPTQ", rotated, method_of("auto", gptq=False), "nfds"),
        ("auto, rotated, no folded values", rotated, method_of("auto", fold=False), "nfds"),
        ("auto, rotated, errors not propagated", rotated, method_of("auto", propagate=False),
         "nfds"),
        *((f"auto, rotated, random scenes {i}", rotated, method_of("auto"), f"random-{i}")
          for i in range(3)),
        ("AWQ", "w4a16-g128", method_of("awq"), "nfds"),
        ("AWQ, patch tokens alone", "w4a16-g128", method_of("awq", patches_only=True), "nfds"),
        ("AWQ, task-aware", "w4a16-g128", method_of("qvggt", patches_only=False), "nfds"),
        ("AWQ, task-aware, patch tokens alone", "w4a16-g128", method_of("qvggt"), "nfds"),
    ]  # fmt: skip
    return rows


def photographed(seed: int, kind: str, views: int, size: int) -> Batch:
    return make_batch(render(seed, 1, views, size, size, kinds=(kind,), overlap=OVERLAP))


def views_of(batch: Batch) -> Views:
    pixels = (batch.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    return Views.from_images(pixels.numpy())


def calibrations(model: Any, count: int, views: int, size: int) -> dict[str, list[Views]]:
    """Set name to scenes: chosen, and drawn at random."""
    pool = [
        views_of(photographed(CALIBRATION_SEED + i, KINDS[i % len(KINDS)], views, size))
        for i in range(4 * count)
    ]
    statistics = [scene_statistics(model, to_tensor(one, torch.device("cpu"))) for one in pool]
    clusters = max(1, count // 2)
    sample = choose(statistics, ["worlds"] * len(pool), clusters, count // clusters, seed=0)
    sets = {"nfds": [pool[i] for i in sample.chosen]}
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pool))[:count]
        sets[f"random-{seed}"] = [pool[i] for i in order]
    removed = int((~sample.kept).sum())
    print(f"calibration: {len(pool)} candidates, {removed} removed, {len(sample.chosen)} chosen")
    return sets


Answer = tuple[np.ndarray, np.ndarray]


@torch.inference_mode()
def answers(model: Any, scenes: dict[str, Batch]) -> dict[str, Answer]:
    """Depth (S, H, W) and extrinsics (S, 3, 4) of each scene."""
    found = {}
    for name, batch in scenes.items():
        output = model(to_tensor(views_of(batch), torch.device("cpu")), heads=("camera", "depth"))
        pose = extrinsics_from_encoding(output.pose_enc[0].float().numpy())
        found[name] = (output.depth[0, ..., 0].float().numpy(), pose)
    return found


def scores(
    found: dict[str, Answer], exact: dict[str, Answer], scenes: dict[str, Batch]
) -> dict[str, dict[str, float]]:
    """Scene to metric to value."""
    rows = {}
    for name, batch in scenes.items():
        depth, pose = found[name]
        true_depth, valid = batch.depth[0].numpy(), batch.valid[0].numpy()
        true_pose = extrinsics_from_encoding(batch.pose[0].numpy())
        float_depth, float_pose = exact[name]
        rotation, translation = metrics.relative_pose_errors(pose, true_pose)
        turned, moved = metrics.relative_pose_errors(pose, float_pose)
        logs = np.log(depth) - np.log(float_depth)
        rows[name] = {
            "abs_rel": metrics.depth_score(depth, true_depth, valid).abs_rel,
            "auc30": 100 * metrics.pose_auc(rotation, translation),
            "rotation": float(rotation.mean()),
            "depth_apart": float(np.abs(logs - np.median(logs)).mean()),
            "rotation_apart": float(turned.mean()),
            "translation_apart": float(moved.mean()),
        }
    return rows


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def kept(stem: str, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the last run, which must have had the same settings; none where there was none."""
    path = record.RESULTS / f"{stem}.json"
    if not path.exists():
        return []
    last = json.loads(path.read_text())
    if {key: last[key] for key in setting} != setting:
        raise SystemExit(f"{path} is of other settings; run without --resume")
    if last.get("weights") != record.weights_of(setting["model"]):
        raise SystemExit(f"{path} is of other weights; run without --resume")
    rows: list[dict[str, Any]] = last["rows"]
    return rows


def shown(row: dict[str, Any], views: Sequence[int]) -> str:
    parts = [f"{row['name']:<42} {row['recipe']:<14} {row['seconds']:6.0f} s"]
    for count in views:
        scored = row["views"][str(count)]
        absolute, auc = scored["difference"]["abs_rel"], scored["difference"]["auc30"]
        apart = scored["apart"]
        parts.append(
            f" | {count} views: AbsRel {absolute['mean']:+.4f} AUC {auc['mean']:+.2f} "
            f"apart {apart['depth_apart']['mean']:.4f} {apart['rotation_apart']['mean']:.3f} deg"
        )
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--calibration", type=int, default=8, help="scenes of 4 views")
    parser.add_argument("--epochs", type=int, default=8, help="of block-wise training")
    parser.add_argument("--only", nargs="+", help="names of methods or ablations")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the last run")
    args = parser.parse_args()

    def network() -> Any:
        return ve.load(args.model, heads=("camera", "depth"), dtype="float32", device="cpu")

    model = network()
    sets = calibrations(model, args.calibration, 4, args.size)
    worlds = {
        count: {
            f"{KINDS[i % len(KINDS)]}/{i:02d}": photographed(
                TEST_SEED + 1000 * (i % len(KINDS)) + i // len(KINDS),
                KINDS[i % len(KINDS)], count, args.size,
            )
            for i in range(args.scenes)
        }
        for count in args.views
    }  # fmt: skip
    exact = {count: answers(model, scenes) for count, scenes in worlds.items()}
    baseline = {c: scores(exact[c], exact[c], scenes) for c, scenes in worlds.items()}
    work: list[Part] = [
        (name, recipe, method_of(name, epochs=min(args.epochs, METHODS[name].epochs)), "nfds")
        for recipe in RECIPES
        for name in METHODS
    ]
    work += parts(args.epochs)
    order = {(name, recipe): place for place, (name, recipe, *_) in enumerate(work)}
    if args.only:
        work = [part for part in work if part[0] in args.only]
    stem = "compress_methods" + ("" if args.model == "pocket" else f"_{Path(args.model).stem}")
    setting = {
        "model": args.model, "scenes": args.scenes, "size": args.size, "overlap": OVERLAP,
        "calibration": {"scenes": args.calibration, "views": 4}, "epochs": args.epochs,
    }  # fmt: skip
    rows = kept(stem, setting) if args.resume else []
    done = {(row["name"], row["recipe"]) for row in rows}
    for name, recipe, method, calibration in work:
        if (name, recipe) in done:
            continue
        model, began = network(), time.perf_counter()
        report = ve.compress(model, recipe, method=method, calibration=sets[calibration])
        seconds = time.perf_counter() - began
        quantized = sum(isinstance(layer, QuantLinear) for layer in model.modules())
        assert quantized == len(report.layers) > 0  # what is scored is the compressed network
        row: dict[str, Any] = {
            "name": name, "recipe": recipe, "layers": quantized, "seconds": round(seconds, 1),
            "bytes": report.bytes_after, "bytes_before": report.bytes_before,
            "layer_error": float(np.mean([layer.error for layer in report.layers])),
            "views": {},
        }  # fmt: skip
        for count, scenes in worlds.items():
            found = scores(answers(model, scenes), exact[count], scenes)
            apart = summarize({s: {k: v for k, v in r.items() if k.endswith("_apart")}
                               for s, r in found.items()})  # fmt: skip
            truth = compare(found, baseline[count])
            row["views"][str(count)] = {
                "difference": {
                    k: v._asdict() for k, v in truth.items() if not k.endswith("_apart")
                },
                "apart": {k: v._asdict() for k, v in apart.items()},
            }
        rows.append(rounded(row))
        if args.resume:  # another run may have added some
            own = {(one["name"], one["recipe"]) for one in rows}
            others = kept(stem, setting)
            rows += [one for one in others if (one["name"], one["recipe"]) not in own]
            rows.sort(key=lambda one: order[one["name"], one["recipe"]])
        print(shown(row, args.views), flush=True)
        scored = {
            str(c): {k: v._asdict() for k, v in summarize(b).items() if not k.endswith("_apart")}
            for c, b in baseline.items()
        }
        record.write(stem, {**setting, "float": rounded(scored), "rows": rows})


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
