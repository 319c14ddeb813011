"""Accuracy of a model on held-out procedural worlds, beside a baseline that knows nothing.

    python benchmarks/pocket.py [MODEL] [--scenes 60]

The baseline is constant depth and identity pose. Seeds are disjoint from the training's.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import record
import torch

from vggt_edge.train.validate import validate
from vggt_edge.weights import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224])
    args = parser.parse_args()
    rows = []
    for dtype in ("float32", "bf16"):
        model = load(args.model, dtype=dtype, device="cpu")
        for size in args.sizes if dtype == "float32" else args.sizes[:1]:
            for views in args.views if dtype == "float32" else args.views[:1]:
                score = validate(model, scenes=args.scenes, views=views, size=size)
                rows.append({"dtype": dtype, "size": size, "views": views, **asdict(score)})
                print(rows[-1], flush=True)
    print(record.write("pocket", {"model": args.model, "overlap": 0.7, "rows": rows}))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
