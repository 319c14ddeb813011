"""LiteRT files beside torch: time and memory of making them, size, latency and deviation.

    python benchmarks/export_litert.py [MODEL] [--recipes float32 fp16 int8 int4 ...]
    python benchmarks/export_litert.py seeded-1b --recipes float32 int8 int4 --scratch /tmp

Runs in the environment that ``make litert`` makes. Every file is made in a process of its own, so
that its peak memory is its own (--scratch keeps them for the next time), then runs take turns with
torch in one process: ratios are of runs of the same turn. Absolute times are those of a shared
machine; where others keep its cores busy, torch's threads wait for each other, and only --threads 1
compares what the kernels do. "seeded-1b" is VGGT-1B's size with
seeded random weights (float32 safetensors, 4.8 GB, and 4 GB of float32 ``.tflite``, in --scratch).
Deviations are from torch float32 on the sample scene's photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import record
import torch
from child import answer

import vggt_edge as ve
from vggt_edge.export import litert, stages
from vggt_edge.export.litert_recipes import find_recipe
from vggt_edge.export.module import TensorModule, compare
from vggt_edge.export.pictures import fit
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import Shape
from vggt_edge.export.targets import TARGETS

FORM = TARGETS["litert"].form
PAUSE = 0.3
ALONE = """
import ast, json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
interpreter = Interpreter(path, num_threads=threads)
interpreter.allocate_tensors()
run = interpreter.get_signature_runner()
images = np.random.default_rng(0).random(ast.literal_eval(sys.argv[4]), dtype=np.float32)
run(images=images)
spent = []
for _ in range(rounds):
    begin = time.perf_counter()
    run(images=images)
    spent.append(1000 * (time.perf_counter() - begin))
print(json.dumps(spent))
"""
SAMPLE = Path(ve.__file__).parent / "assets" / "sample"


def seeded_file(scratch: Path) -> str:
    """The file of seeded weights, made on first use."""
    file = scratch / "vggt_1b_seeded.safetensors"
    if not file.exists():
        import network

        from vggt_edge.model.vggt import VGGT

        ve.save(network.seeded(VGGT(network.CONFIG)), file)
    return str(file)


def load(model: str, dtype: str = "float32") -> torch.nn.Module:
    return ve.load(model, heads=("depth",), dtype=dtype, device="cpu")


def pictures(shape: Shape) -> np.ndarray:
    return fit(ve.read_views(SAMPLE, size=518), shape)


def make(model: str, shape: Shape, recipe: str, folder: Path) -> dict:
    """Child: make one file; what it took."""
    path = folder / f"{recipe}.tflite"
    begin = time.perf_counter()
    if recipe == "float32":
        rewritten = reauthor(load(model), shape, ("depth",), FORM)
        rewrite = time.perf_counter() - begin
        begin = time.perf_counter()
        (stage,) = stages.whole(rewritten)
        litert.convert(stage.module, {"images": rewritten.example()}, stage.outputs, path)
        seconds = {"load and rewrite": round(rewrite, 1)}
    else:
        inputs = []
        if find_recipe(recipe).needs_pictures:
            inputs = [{"images": images} for images in pictures(shape)[:4]]
        litert.quantize(folder / "float32.tflite", path, recipe, inputs=inputs)
        seconds = {}
    step = "convert" if recipe == "float32" else "quantize"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds[step] = round(time.perf_counter() - begin, 1)
    return {"bytes": path.stat().st_size, "seconds": seconds, "peak_bytes": peak}


def child(script: str, arguments: argparse.Namespace, recipe: str, folder: Path) -> dict:
    """A script's ``make`` in a process of its own, unless the folder has what it made."""
    kept = folder / f"{recipe}.json"
    if not kept.exists():
        where = ["--size", arguments.size, "--views", arguments.views, "--scratch", folder]
        made = answer(script, arguments.model, "--make", recipe, *where)
        kept.write_text(json.dumps(made))
    return json.loads(kept.read_text())


def alone(path: Path, shape: Shape, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds of runs one after the other where torch never ran, as in an app."""
    size = repr((shape.views, shape.height, shape.width, 3))
    command = [sys.executable, "-c", ALONE, str(path), str(threads), str(rounds), size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return record.spread(json.loads(done.stdout.splitlines()[-1]))


class Times(NamedTuple):
    """Seconds of every run: on the wall, and of all threads together, which others delay less."""

    wall: list[float]
    cpu: list[float]


def turns(
    calls: dict[str, Callable[[], object]], rounds: int, pause: float = PAUSE
) -> dict[str, Times]:
    """Times of each, taking turns.

    They pause, as a runtime's threads go on spinning after a run, on cores the next one needs.
    """
    times = {name: Times([], []) for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            begin, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].wall.append(time.perf_counter() - begin)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def milliseconds(times: Times) -> dict[str, dict[str, float]]:
    return {
        "milliseconds": record.spread([1000 * t for t in times.wall]),
        "cpu milliseconds": record.spread([1000 * t for t in times.cpu]),
    }


def result_name(name: str, model: str, shape: Shape) -> str:
    """Of the results file: one for pocket, and one for each other network and shape."""
    name += "" if model == "pocket" else f"_{model.removeprefix('seeded-')}"
    return name if str(shape) == "2x224x224" else f"{name}_{shape}"


def ratio(times: dict[str, Times], reference: str, name: str) -> dict[str, float]:
    pairs = zip(times[reference].wall, times[name].wall, strict=True)
    return record.spread([slow / fast for slow, fast in pairs])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--size", default="224x224", help="HEIGHTxWIDTH")
    parser.add_argument("--recipes", nargs="+", default=list(TARGETS["litert"].recipes))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = Shape.parse(args.views, args.size)
    if args.make:
        source = seeded_file(args.scratch) if args.model == "seeded-1b" else args.model
        print(json.dumps(make(source, shape, args.make, args.scratch)))
        return
    torch.set_num_threads(args.threads)
    scratch = args.scratch or Path(tempfile.mkdtemp(prefix="export-litert-"))
    source = seeded_file(scratch) if args.model == "seeded-1b" else args.model
    recipes = ["float32", *(name for name in args.recipes if name != "float32")]
    made = {}
    for recipe in recipes:
        made[recipe] = child(__file__, args, recipe, scratch)
        print(recipe, made[recipe], flush=True)

    sets = pictures(shape)[:4]
    torch32 = TensorModule(load(source))
    given = torch.from_numpy(sets).permute(0, 1, 4, 2, 3).contiguous()
    wanted = [torch32(images).numpy() for images in given]
    torch16 = TensorModule(load(source, "bf16"))
    rows = {}
    for recipe in args.recipes:
        runner = litert.LiteRTRunner(scratch / f"{recipe}.tflite", args.threads)
        found = [runner(images=images)["depth"] for images in sets]
        each = [compare("depth", f, w) for f, w in zip(found, wanted, strict=True)]
        calls: dict[str, Callable[[], object]] = {
            "torch float32": lambda: torch32(given[0]),
            "torch bf16": lambda: torch16(given[0]),
            "litert": lambda runner=runner: runner(images=sets[0]),
        }
        times = turns(calls, args.rounds)
        rows[recipe] = {
            **made[recipe],
            **milliseconds(times["litert"]),
            "milliseconds in a process of its own": alone(
                scratch / f"{recipe}.tflite", shape, args.threads, args.rounds
            ),
            **{
                f"times faster than {name}": ratio(times, name, "litert")
                for name in calls
                if name != "litert"
            },
            "abs_rel to torch float32": float(np.mean([e.mean_relative_error for e in each])),
            "worst image abs_rel": max(e.mean_relative_error for e in each),
            "worst pixel, of the largest depth": max(e.relative_error for e in each),
            "correlation": min(e.correlation for e in each),
            "operators": runner.operators(),
        }
        rows[recipe] |= {name: milliseconds(times[name]) for name in calls if name != "litert"}
        print(recipe, json.dumps(rows[recipe]), flush=True)
        del runner
    data = {
        "model": args.model,
        "shape": str(shape),
        "threads": args.threads,
        "load average at the end": os.getloadavg()[0],
        "versions": litert.versions(),
        "recipes": rows,
        "float32 file": made["float32"],
        "goals": {
            "pocket 2x224x224 int8": "60 ms on two x86 cores",
            "seeded-1b int8": "1.0 GB, 3 times faster than torch float32",
            "seeded-1b int4": "0.6 GB",
        },
    }
    print(record.write(result_name("export_litert", args.model, shape), data))


if __name__ == "__main__":
    main()
