"""ExecuTorch programs beside torch: time and memory of making them, size, latency and deviation.

    python benchmarks/export_executorch.py [MODEL] [--recipes float32 int8 int4 ...] [--scratch DIR]
    python benchmarks/export_executorch.py seeded-1b --recipes int8 int4 --scratch /tmp

Runs in the environment that ``make executorch`` makes. Every program is made in a process of its
own, so that its peak memory is its own (--scratch keeps them for the next time), then its runs take
turns with torch in one process: ratios are of runs of the same turn. Absolute times are those of a
shared machine. "seeded-1b" is VGGT-1B's size with seeded random weights (float32 safetensors of
4.8 GB in --scratch). Deviations are from torch float32 on the sample scene's photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import torch
from export_litert import (
    child,
    load,
    milliseconds,
    pictures,
    ratio,
    result_name,
    seeded_file,
    turns,
)

from vggt_edge.export import executorch
from vggt_edge.export.executorch_program import build
from vggt_edge.export.executorch_recipes import check_recipe
from vggt_edge.export.module import TensorModule, compare
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import Shape
from vggt_edge.export.stages import whole
from vggt_edge.export.targets import TARGETS

TARGET = TARGETS["executorch"]


def given(shape: Shape) -> torch.Tensor:
    """(N, V, 3, H, W) photographs."""
    return torch.from_numpy(pictures(shape)[:4]).permute(0, 1, 4, 2, 3).contiguous()


@torch.no_grad()
def make(model: str, shape: Shape, recipe: str, folder: Path) -> dict:
    """Child: make one program; what it took."""
    executorch.require_packages()
    chosen = check_recipe(recipe, True)
    plan = whole(reauthor(load(model), shape, ("depth",), TARGET.form))
    sets = given(shape)
    begin, cpu = time.perf_counter(), time.process_time()
    samples = [{"images": images} for images in sets] if chosen.needs_pictures else []
    path = folder / f"{recipe}.pte"
    build(plan, chosen, {"images": sets[0]}, samples, path, None, lambda _: None)
    return {
        "bytes": path.stat().st_size,
        "seconds to quantize and lower": round(time.perf_counter() - begin, 1),
        "cpu seconds to quantize and lower": round(time.process_time() - cpu, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--size", default="224x224", help="HEIGHTxWIDTH")
    parser.add_argument("--recipes", nargs="+", default=list(TARGET.recipes))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = Shape.parse(args.views, args.size)
    torch.set_num_threads(args.threads)
    if args.make:
        source = seeded_file(args.scratch) if args.model == "seeded-1b" else args.model
        print(json.dumps(make(source, shape, args.make, args.scratch)))
        return
    scratch = args.scratch or Path(tempfile.mkdtemp(prefix="export-executorch-"))
    made = {recipe: child(__file__, args, recipe, scratch) for recipe in args.recipes}
    sets = given(shape)
    source = seeded_file(scratch) if args.model == "seeded-1b" else args.model
    reference, half = TensorModule(load(source)), TensorModule(load(source, "bf16"))
    wanted = [reference(images).numpy() for images in sets]
    rows = {}
    for recipe in args.recipes:
        path = scratch / f"{recipe}.pte"
        runner = executorch.ExecuTorchRunner(path, threads=args.threads)
        found = [executorch.as_arrays(runner(images))[0] for images in sets]
        each = [compare("depth", f, w) for f, w in zip(found, wanted, strict=True)]
        calls = {
            "torch float32": lambda: reference(sets[0]),
            "torch bf16": lambda: half(sets[0]),
            "executorch": lambda runner=runner: runner(sets[0]),
        }
        times = turns(calls, args.rounds)
        alone = turns({"executorch": calls["executorch"]}, args.rounds, 0.0)["executorch"]
        rows[recipe] = {
            **made[recipe],
            **milliseconds(times["executorch"]),
            "one after the other": milliseconds(alone),
            "times faster than torch float32": ratio(times, "torch float32", "executorch"),
            "times faster than torch bf16": ratio(times, "torch bf16", "executorch"),
            "abs_rel to torch float32": float(np.mean([e.mean_relative_error for e in each])),
            "worst image abs_rel": max(e.mean_relative_error for e in each),
            "worst pixel, of the largest depth": max(e.relative_error for e in each),
            "correlation": min(e.correlation for e in each),
            "operators": executorch.operators(path)["forward"],
            "torch float32": milliseconds(times["torch float32"]),
            "torch bf16": milliseconds(times["torch bf16"]),
        }
        print(recipe, json.dumps(rows[recipe]), flush=True)
    data = {
        "model": args.model,
        "shape": str(shape),
        "threads": args.threads,
        "load average at the end": os.getloadavg()[0],
        "versions": executorch.versions(),
        "recipes": rows,
    }
    print(record.write(result_name("export_executorch", args.model, shape), data))


if __name__ == "__main__":
    main()
