"""Peak memory of loading and of one pass at VGGT-1B's size, and its growth per view.

    python benchmarks/memory.py [--views 2 4 8 12] [--size 392x518] [--dtype bf16] [--pairs 4]

Every number is the peak resident set of a fresh process. The weights are seeded random numbers,
written once as float32 safetensors (4.8 GB) to ``--scratch``. With ``--pairs`` the network has so
few alternating pairs and one encoder block, at full width and with all four taps: what it keeps of
a view is the same, and many views take minutes instead of hours.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from child import answer

CHILD = """
import json, resource, sys, time, torch
file, dtype, views, height, width = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
import numpy as np
import vggt_edge as ve
from vggt_edge import hardware, memory
hardware.keep_heap()  # as the command line does
ve.predict, ve.load, ve.Views
start = peak()
begin = time.perf_counter()
model = ve.load(file, heads=("camera", "depth"), dtype=dtype, device="cpu")
loaded, load_seconds = peak(), time.perf_counter() - begin
size = sum(p.nbytes for p in model.parameters())
data = {"start": start, "weights": size, "load_peak": loaded - start, "load_seconds": load_seconds}
if views:
    pictures = np.random.default_rng(0).integers(0, 256, (views, height, width, 3), dtype=np.uint8)
    begin = time.perf_counter()
    ve.predict(model, ve.Views.from_images(pictures))
    data |= {"peak": peak(), "seconds": time.perf_counter() - begin}
    itemsize = model.aggregator.camera_token.element_size()
    data["estimate"] = memory.run_bytes(model.config, views, height, width, itemsize)
packed = [m for m in model.modules() if hasattr(m, "backend")]
data["backends"] = sorted({m.backend for m in packed})
data["packed layers"] = len(packed)
data["float linears"] = sum(type(m).__name__ == "Linear" for m in model.modules())
print(json.dumps(data))
"""


def measure(file: Path, dtype: str, views: int, height: int, width: int) -> dict:
    """Peaks in bytes of loading and, with views, of a pass, in a process of its own.

    Most of its ``start`` is torch; ``load_peak`` is what loading adds to that.
    """
    return answer("-c", CHILD, file, dtype, views, height, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8, 12])
    parser.add_argument("--size", default="392x518", help="HEIGHTxWIDTH")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--pairs", type=int, help="alternating pairs, from 4; all 24 by default")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    kind = f"_{args.pairs}_pairs" if args.pairs else ""
    file = args.scratch / f"vggt_1b_seeded{kind}.safetensors"
    shallow = (
        f"encoder_depth=1, depth={args.pairs}, taps=tuple(range({args.pairs} - 4, {args.pairs}))"
        if args.pairs
        else ""
    )
    if not file.exists():
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import network, vggt_edge; from dataclasses import replace; "
                "from vggt_edge.model.vggt import VGGT; "
                f"config = replace(network.CONFIG, {shallow}); "
                f"vggt_edge.save(network.seeded(VGGT(config)), {str(file)!r})",
            ],
            cwd=Path(__file__).parent,
            check=True,
        )
    import record

    begin = time.time()
    load = measure(file, args.dtype, 0, height, width)
    runs = {views: measure(file, args.dtype, views, height, width) for views in args.views}
    first, last = args.views[0], args.views[-1]
    slope = (runs[last]["peak"] - runs[first]["peak"]) / (last - first)
    data = {
        "dtype": args.dtype,
        "pairs": args.pairs or 24,
        "size": [height, width],
        "load": {**load, "peak over weights": round(load["load_peak"] / load["weights"], 3)},
        "runs": runs,
        "MB per view": round(slope / 1e6, 2),
        "goal MB per view": 25,
        "upstream MB per view": 205,
        "took": round(time.time() - begin),
    }
    print(json.dumps(data, indent=1))
    print(record.write(f"memory_{args.dtype}_{height}x{width}{kind}", data))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
