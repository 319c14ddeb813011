"""Sensitivity of a model's blocks, whether it carries over, and mixed recipes under budgets.

    python benchmarks/budget.py [--model pocket] [--scenes 12] [--views 4] [--size 112]

Blocks are scored in w4a8-g32 and w8a8 against the float network on two sets of procedural scenes,
indoor and outdoor; Spearman's rank correlation says whether the list of fragile blocks of one set
holds on the other. Then recipes for budgets between both are chosen on these scenes and measured on
others, beside the drop predicted from single blocks and beside choosing at random.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import record
import torch

from vggt_edge.bootstrap import interval
from vggt_edge.compress.budget import CANDIDATES, Frontier, choices_of, recipe_of, sizes_of
from vggt_edge.compress.cases import WORLD_SEED, world_cases
from vggt_edge.compress.damage import JUDGED, Judge
from vggt_edge.compress.scan import compressed, precisions_of, scan
from vggt_edge.recipe import Recipe
from vggt_edge.weights import load

OTHER_SEED = WORLD_SEED + 2_000_000
INDOOR = ("room", "table", "object")
RANDOM = 8  # recipes drawn for each budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--file", type=Path, help="keep sensitivities here and go on from them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.time()
    model = load(args.model, heads=("camera", "depth"), dtype="float32", device="cpu")
    cases = [
        replace(case, group="indoor" if any(kind in case.name for kind in INDOOR) else "outdoor")
        for case in world_cases(args.scenes, args.views, args.size)
    ]
    names = [name for name in CANDIDATES if name != "float"]
    sensitivity = scan(model, cases, names, kinds=("block",), file=args.file)
    blocks = {
        name: {
            one.unit: {
                metric: [round(value, 4) for value in found[:3]]
                for metric in JUDGED
                if (found := sensitivity.interval(one, metric)) is not None
            }
            for one in sensitivity.ranked("block", name)
        }
        for name in names
    }
    agreement = {
        name: {
            metric: {f"{a}, {b}": round(value, 3) for (a, b), value in found.items()}
            for metric in JUDGED
            if (found := sensitivity.agreement("block", name, metric))
        }
        for name in names
    }
    sizes = sizes_of(model, CANDIDATES, torch.float16)
    choices = choices_of(sensitivity, sizes)
    frontier = Frontier(choices)
    judge = Judge(model, world_cases(args.scenes, args.views, args.size, OTHER_SEED))

    def measure(recipe: Recipe) -> dict[str, list[float]]:
        with compressed(model, precisions_of(model, recipe)):
            drops = judge.drops(model)
        found = {}
        for metric in JUDGED:
            one = interval([row[metric] for row in drops.values()])
            found[metric] = [round(one.mean, 4), round(one.low, 4), round(one.high, 4)]
        return found

    random = np.random.default_rng(0)
    least, most = int(frontier.bytes[0]), int(frontier.bytes[-1])
    rows = []
    for share in (0.0, 0.1, 0.25, 0.5, 0.75):
        limit = least + int(share * (most - least))
        state = int(np.searchsorted(frontier.bytes, limit, side="right")) - 1
        recipe = recipe_of(frontier[state], list(sizes.layers))
        blind = []
        while share and len(blind) < RANDOM:
            # Blocks in random order take the most precise scheme there is still room for.
            left, chosen = limit - least, {}
            for one in random.permutation(len(choices)):
                unit = choices[one]
                extra = unit.bytes - unit.bytes.min()
                fitting = np.flatnonzero(extra <= left)
                pick = fitting[np.argmax(extra[fitting])]
                chosen[unit.unit], left = unit.names[pick], left - int(extra[pick])
            ordered = {unit.unit: chosen[unit.unit] for unit in choices}
            blind.append(measure(recipe_of(ordered, list(sizes.layers))))
        rows.append(
            {
                "MB": round(sizes.total(recipe) / 1e6, 3),
                "recipe": recipe.name,
                "predicted": round(float(frontier.cost[state]) ** 0.5, 4),
                "measured on other scenes": measure(recipe),
                "random recipes, mean": {
                    metric: round(float(np.mean([row[metric][0] for row in blind])), 4)
                    for metric in JUDGED
                }
                if blind
                else None,
            }
        )
        print(rows[-1], flush=True)
    uniform = {
        name: {"MB": round(sizes.total(Recipe(name)) / 1e6, 3), **measure(Recipe(name))}
        for name in names
    }
    data = {
        "model": args.model,
        "protocol": f"{args.scenes} worlds of {args.views} views, {args.size} pixels; drops in "
        "percent points against the float network, rounded to nearest; mean, low, high",
        "blocks": blocks,
        "rank correlation of sets": agreement,
        "states of the frontier": len(frontier),
        "budgets": rows,
        "uniform": uniform,
        "float MB": round(sizes.total(Recipe("float")) / 1e6, 3),
        "took": round(time.time() - begin),
    }
    print(agreement, uniform)
    print(record.write("budget_pocket" if args.model == "pocket" else "budget", data))


if __name__ == "__main__":
    main()
