"""A stream on Ray workers of this machine beside the same stream in one process: bits and seconds.

Needs the extra ``ray``. Workers share the machine's processors with everything else on it, so the
seconds say what handing out costs, not how it scales.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import record
import torch

from vggt_edge import load
from vggt_edge.attention import make_sparse
from vggt_edge.distribute import Executor, LocalExecutor, RayExecutor
from vggt_edge.distribute.packing import pack
from vggt_edge.stream import AnchorStream
from vggt_edge.types import Views


def stream(views: Views, k: int, executor: Executor, threads: int) -> tuple[dict, dict]:
    """What came out, by name, and how long the anchors and the rest took."""
    torch.set_num_threads(threads)
    run = AnchorStream(make_sparse(load("pocket", heads=("camera", "depth")), "anchors", k=k))
    begin = time.monotonic()
    steps = run.run(views, executor=executor)
    next(steps)
    started = time.monotonic()
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    first = None
    for one in steps:
        first = first or time.monotonic()
        for i, name in enumerate(one.views.names):
            found[name] = (one.depth[i], one.cameras.camera_from_world[i])
    ended = time.monotonic()
    data, buffers = pack(run.add)
    return found, {
        "anchors, here": round(started - begin, 2),
        "first result after": round((first or started) - started, 2),
        "the rest": round(ended - (first or started), 2),
        "sent once MB": round((len(data) + sum(one.nbytes for one in buffers)) / 1e6, 2),
        "of them keys and values MB": round(
            sum(one.nbytes for one in run.cache.tensors().values()) / 1e6, 2
        ),
    }


def differ(a: dict, b: dict) -> float:
    """Greatest difference over the greatest number, of depths and poses; 0 is bit for bit."""
    assert a.keys() == b.keys()
    return max(
        float(np.abs(x - y).max() / np.abs(y).max())
        for name, arrays in a.items()
        for x, y in zip(arrays, b[name], strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=120)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--k", type=int, default=25)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    pixels = np.random.default_rng(0).integers(
        0, 256, (args.views, args.size, args.size, 3), dtype=np.uint8
    )
    views = Views.from_images(pixels)
    truth, seconds = stream(views, args.k, LocalExecutor(), 1)
    rows = [{"executor": "local", "threads": 1, **seconds}]
    other, seconds = stream(views, args.k, LocalExecutor(), 2)
    rows.append({"executor": "local", "threads": 2, **seconds, "difference": differ(other, truth)})
    for workers in args.workers:
        with RayExecutor("local", workers=workers) as executor:
            executor.threads = 1
            found, seconds = stream(views, args.k, executor, 1)
        row = {"executor": "ray", "workers": workers, "threads": 1, **seconds}
        rows.append({**row, "difference": differ(found, truth)})
        print(json.dumps(rows[-1]), flush=True)
    note = "two processors that other work shares: seconds say little, bits do"
    data = {"model": "pocket", "views": args.views, "size": args.size, "k": args.k, "note": note}
    print(record.write("scale_ray", {**data, "rows": rows}))


if __name__ == "__main__":
    main()
