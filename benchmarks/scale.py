"""Cost and accuracy of every attention mode over the number of views.

    python benchmarks/scale.py modes   [--model pocket --source walk --views 25 50 100]
    python benchmarks/scale.py stream  [--model pocket --source noise --views 100 1000]
    python benchmarks/scale.py kernel  [--views 50 100 200]

``modes`` runs each mode, and streaming, in a process of its own: seconds for descriptors and for
the pass, peak resident set (``ru_maxrss``), multiplications and additions in the global attention,
and where there is a truth ATE after Sim(3), AUC@30 and AbsRel. ``stream`` runs streaming alone, to
see whether memory grows. ``kernel`` times the attention of one view's queries at VGGT-1B's token
counts, layer by layer as each mode's plan has them; cost is linear in queries. ``--model`` is a
weight file, "pocket", or "vggt-1b-seeded": VGGT-1B's size with seeded random numbers, which says
nothing about accuracy. Timings on a shared machine are noisy: compare within one file, and
rather the processor's seconds than the clock's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import record

MODES = (
    *("dense", "anchors", "anchors, camera sees all", "stream"),
    *("covisible", "covisible+anchors", "avggt", "merge"),
)
SEED = 2**41 + 77  # no world of training
RED_KITCHEN = Path("/work/shared/data/posed/rgbd_7scenes_redkitchen")


def prepare(source: str, views: int, size: int, folder: Path) -> Path:
    """Pictures, and truth where there is one, as files that a child maps: made once."""
    place = folder / f"{source}_{views}_{size}"
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    if source == "redkitchen":
        from vggt_edge import images
        from vggt_edge.evaluate.datasets.cameras_json import read_folder

        recording = read_folder(RED_KITCHEN, "redkitchen")
        recording = recording[np.linspace(0, len(recording) - 1, views).round().astype(int)]
        read = images.read_views(list(recording.paths), size=size)
        np.save(place / "images.npy", read.images)
        np.save(place / "poses.npy", recording.cameras.camera_from_world)
        height, width = read.size
        depth = np.zeros((views, height, width), np.float32)
        for i in range(views):
            full = recording.depth(i)
            to_source = read.source_from_view[i]
            col = to_source[0, 0] * np.arange(width) + to_source[0, 2]
            row = to_source[1, 1] * np.arange(height) + to_source[1, 2]
            row = np.clip(row.round().astype(int), 0, full.shape[0] - 1)
            col = np.clip(col.round().astype(int), 0, full.shape[1] - 1)
            depth[i] = full[np.ix_(row, col)]
        np.save(place / "depth.npy", depth)
    elif source == "walk":
        from vggt_edge import worlds

        world = worlds.walk(SEED, views, size, size)
        pictures = (world.images[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        np.save(place / "images.npy", pictures)
        np.save(place / "poses.npy", world.camera_from_world[0].double().numpy())
        np.save(place / "depth.npy", world.depth[0].numpy())
    else:
        height, width = (size, size) if source == "noise" else map(int, source.split("x"))
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (views, height // 14, width // 14, 3), dtype=np.uint8)
        np.save(place / "images.npy", coarse.repeat(14, axis=1).repeat(14, axis=2))
    (place / "done").touch()
    return place


def weights(model: str, folder: Path) -> str:
    """A file or name that ``load`` takes."""
    if model != "vggt-1b-seeded":
        return model
    file = folder / "vggt_1b_seeded.safetensors"
    if not file.exists():
        code = (
            "import network, vggt_edge; from vggt_edge.model.vggt import VGGT; "
            f"vggt_edge.save(network.seeded(VGGT(network.CONFIG)), {str(file)!r})"
        )
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    return str(file)


def measure(request: dict) -> dict:
    """One mode on one set, in this process."""
    import resource

    import psutil
    import torch

    import vggt_edge as ve
    from vggt_edge import attention, hardware, memory, stream
    from vggt_edge.sparse_plan import attention_cost, dense_plan
    from vggt_edge.types import TokenLayout

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    hardware.keep_heap()  # as the command line does
    torch.set_num_threads(request["threads"])
    place = Path(request["place"])
    model = ve.load(
        request["weights"], heads=("camera", "depth"), device="cpu", dtype=request["dtype"]
    )
    views = ve.Views.from_images(np.load(place / "images.npy", mmap_mode="r"))
    count, (height, width) = len(views), views.size
    mode, streaming = request["mode"], request["mode"] == "stream"
    camera = "all" if mode.endswith("camera sees all") else "anchors"
    kind = "anchors" if streaming else mode.partition(",")[0]
    attention.make_sparse(model, kind, k=request["k"], camera=camera)
    loaded = psutil.Process().memory_info().rss
    begin = time.perf_counter()
    plan = attention.plan_for(model, views)
    planned, worked = time.perf_counter(), time.process_time()
    poses = np.empty((count, 3, 4))
    step = slice(None, None, request["pixel_step"])
    rows: dict[str, int] = {name: i for i, name in enumerate(views.names)}
    if streaming:
        parts = stream.predict_stream(
            model, views, anchors=plan.anchors, batch=request["batch"] or None
        )
    else:
        parts = iter([ve.predict(model, views, plan=plan)])
    found_depth = {}
    for part in parts:
        for i, name in enumerate(part.views.names):
            poses[rows[name]] = part.cameras.camera_from_world[i]
            found_depth[rows[name]] = part.depth[i, step, step].copy()
    seconds, worked = time.perf_counter() - planned, time.process_time() - worked
    layout = TokenLayout(count, model.config.special_tokens, height // 14, width // 14)
    itemsize = next(model.parameters()).element_size()
    dense = dense_plan(count, model.config.depth)
    cost = attention_cost(plan or dense, layout, model.config.width, itemsize)
    shape = (height, width, itemsize)
    estimate = memory.run_bytes(model.config, count, *shape, plan)
    if streaming:
        estimate = memory.cache_bytes(model.config, plan, *shape)
        estimate += memory.run_bytes(model.config, len(plan.anchors), *shape, plan.anchors_alone())
    data = {
        "mode": mode,
        "views": count,
        "size": [height, width],
        "descriptor seconds": round(planned - begin, 2),
        "seconds": round(seconds, 2),
        "processor seconds": round(worked, 2),
        "peak GB": round(peak() / 1e9, 3),
        "peak over loaded MB": round((peak() - loaded) / 1e6),
        "estimate MB": round(estimate / 1e6),
        "attention TFLOP": round(cost.flops / 1e12, 4),
        "dense over this, attention FLOP": round(
            attention_cost(dense, layout, model.config.width).flops / cost.flops, 2
        ),
        "key MB of a layer": round(cost.key_bytes / 1e6, 1),
    }
    pixels = np.stack([found_depth[i] for i in range(count)])
    if (place / "poses.npy").exists():
        data |= score(poses, pixels, place, request["pixel_step"])
    return data | beside_dense(mode, poses, pixels, place / f"{request.get('name', 'model')}.npz")


def beside_dense(mode: str, poses: np.ndarray, depth: np.ndarray, file: Path) -> dict:
    """How far a mode is from dense, which says something whatever the weights are worth."""
    if mode == "dense":
        np.savez(file, poses=poses, depth=depth)
        return {}
    if not file.exists():
        return {}
    from vggt_edge import metrics

    dense = np.load(file)
    turned = metrics.rotation_angle(poses[:, :, :3], dense["poses"][:, :, :3])
    off = np.abs(depth - dense["depth"]) / dense["depth"]
    return {
        "depth off dense, mean": round(float(off.mean()), 4),
        "rotation off dense, median degrees": round(float(np.median(turned)), 3),
    }


def score(poses: np.ndarray, depth: np.ndarray, place: Path, pixel_step: int) -> dict:
    """Accuracy against the truth in a folder."""
    from vggt_edge import metrics
    from vggt_edge.evaluate.trajectories import trajectory_score

    truth = np.load(place / "poses.npy")
    true_depth = np.load(place / "depth.npy", mmap_mode="r")[:, ::pixel_step, ::pixel_step]
    rotation, translation = metrics.relative_pose_errors(poses, truth)
    path = trajectory_score(poses, truth) if len(poses) > 2 else None  # two can always be aligned
    return {
        "ATE": path and round(path.ate, 4),
        "ATE over spread": path and round(path.ate_relative, 4),
        "AUC@30": round(metrics.pose_auc(rotation, translation), 4),
        "rotation AUC@30": round(metrics.pose_auc(rotation, np.zeros_like(rotation)), 4),
        "AbsRel": round(metrics.depth_score(depth, true_depth, true_depth > 0).abs_rel, 4),
    }


def child(request: dict) -> dict:
    """``measure`` in a process of its own."""
    command = [sys.executable, __file__, "child", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"mode": request["mode"], "failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def kernel(views: list[int], k: int, rounds: int, threads: int) -> dict:
    """Attention of one view's queries at VGGT-1B's token counts, 518x392, all 24 global layers."""
    import torch

    from vggt_edge.model import attend
    from vggt_edge.sparse_plan import kept_tokens
    from vggt_edge.sparsity import Sparsity
    from vggt_edge.types import TokenLayout

    torch.set_num_threads(threads)
    layout, heads, width, dtype = TokenLayout(1, 5, 37, 28), 16, 64, torch.bfloat16
    per_view = layout.per_view
    q, own = (torch.randn(1, heads, 1, per_view, width, dtype=dtype) for _ in range(2))
    table = {}
    for count in views:
        plans = {
            "dense": Sparsity("dense").plan(count, 24),
            "anchors": Sparsity("anchors", anchors=k).plan(count, 24, anchors=range(k)),
            "avggt": Sparsity("avggt").plan(count, 24),
        }
        seconds: dict[str, list[float]] = {mode: [] for mode in plans}
        keys = torch.randn(1, heads, (count + 1) * per_view, width, dtype=dtype)
        with torch.inference_mode():
            for _ in range(rounds):
                for mode, plan in plans.items():
                    total = 0.0
                    for layer in dict.fromkeys(plan.layers):
                        kept = len(kept_tokens(layout, layer.stride))
                        seen = plan.key_views(layer, count - 1)
                        shared = 0 if layer.keys == "frame" else len(seen) * kept
                        begin = time.process_time()
                        if mode == "dense":
                            attend.dense(q[:, :, 0], keys[:, :, :shared], keys[:, :, :shared])
                        else:
                            attend.with_own(q, keys, keys, shared, own, own)
                        total += (time.process_time() - begin) * plan.layers.count(layer)
                    seconds[mode].append(total)
        table[count] = {
            mode: {
                "processor seconds a view": record.spread(times),
                "dense over this": record.spread(
                    [a / b for a, b in zip(seconds["dense"], times, strict=True)]
                ),
            }
            for mode, times in seconds.items()
        }
        print(count, json.dumps(table[count]), flush=True)
    return {"k": k, "size": [518, 392], "dtype": "bfloat16", "views": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["modes", "stream", "kernel", "child"])
    parser.add_argument("request", nargs="?", help="of a child")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--source", default="walk", help="walk, redkitchen, noise or HEIGHTxWIDTH")
    parser.add_argument("--views", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--k", type=int, default=25)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=0, help="of streaming; 0 for its own choice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixel-step", type=int, default=4, help="depth is scored on every n-th")
    parser.add_argument("--name", default="", help="suffix of the result's name")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "scale")
    args = parser.parse_args()
    if args.what == "child":
        print(json.dumps(measure(json.loads(args.request))))
        return
    if args.what == "kernel":
        print(
            record.write(
                f"scale_kernel{args.name}", kernel(args.views, args.k, args.rounds, args.threads)
            )
        )
        return
    args.scratch.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    options = ("model", "source", "k", "dtype", "batch", "threads")
    data = {name: getattr(args, name) for name in options} | {"rows": rows}
    name = f"scale_{args.what}_{Path(args.model).stem}_{args.source}{args.name}"
    for count in args.views:
        # In a process of its own: those that are measured are born with this one's peak memory.
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            place = other.submit(prepare, args.source, count, args.size, args.scratch).result()
        for mode in ("stream",) if args.what == "stream" else args.modes:
            request = {
                "weights": weights(args.model, args.scratch),
                "name": Path(args.model).stem,
                "place": str(place),
                "mode": mode,
                "k": args.k,
                "batch": args.batch,
                "dtype": args.dtype,
                "threads": args.threads,
                "pixel_step": args.pixel_step,
            }
            rows.append(child(request))
            print(json.dumps(rows[-1]), flush=True)
            # Written anew after every row: the last ones take longest and may never end.
            path = record.write(name, data)
    print(path)


if __name__ == "__main__":
    main()
