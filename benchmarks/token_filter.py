"""What QVGGT's treatment of special tokens does: filtered statistics, and the compensation token.

    python benchmarks/token_filter.py [--model pocket] [--schemes w4a16-g128 w4a8-g32 w4a4]

Every variant is scored on the same procedural scenes, against the float network and against the
truth. Scales are searched and the token is made on other scenes. Drops are percent points (AUC@30,
AbsRel, mean relative distance of points) with 95% bootstrap intervals over scenes; "gain" is the
drop without a part minus the drop with it, paired by scene: above zero it helps.
"""

from __future__ import annotations

import argparse
import time

import record
import torch

from vggt_edge.bootstrap import interval
from vggt_edge.compress.cases import WORLD_SEED, world_cases
from vggt_edge.compress.compress import compress
from vggt_edge.compress.damage import METRICS, heads_of, losses, target_of
from vggt_edge.compress.methods import method_of
from vggt_edge.compress.token_filter import (
    TokenStatistics,
    compensate,
    compensation_token,
    token_statistics,
)
from vggt_edge.model.vggt import VGGT
from vggt_edge.predict import predict
from vggt_edge.weights import load

CALIBRATION_SEED = WORLD_SEED + 1_000_000
Drops = dict[str, dict[str, float]]


def text_of(drops: Drops, other: Drops | None = None) -> dict[str, list[float]]:
    """Metric to mean, low and high; of the difference ``other - drops`` where that is given."""
    found = {}
    for metric in METRICS:
        values = [
            (other[name][metric] - row[metric]) if other else row[metric]
            for name, row in drops.items()
            if metric in row
        ]
        if values:
            one = interval(values)
            found[metric] = [round(one.mean, 4), round(one.low, 4), round(one.high, 4)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--schemes", nargs="+", default=["w4a16-g128", "w4a8-g32", "w4a4"])
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--calibration", type=int, default=16, help="scenes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.time()

    def network() -> VGGT:
        return load(args.model, heads=("camera", "depth"), dtype="float32", device="cpu")

    cases = world_cases(args.scenes, args.views, args.size)
    calibration = [
        case.views
        for case in world_cases(args.calibration, args.views, args.size, CALIBRATION_SEED)
    ]
    model = network()
    heads = heads_of(model)
    own = [predict(model, case.views, heads=heads) for case in cases]
    targets = {
        "teacher": [target_of(one) for one in own],
        "truth": [case.truth for case in cases if case.truth],
    }
    before = {
        name: [losses(one, target) for one, target in zip(own, found, strict=True)]
        for name, found in targets.items()
    }
    statistics: TokenStatistics = token_statistics(model, calibration)
    token = compensation_token(statistics)
    mean = statistics.camera.mean(0)
    share = float(torch.cosine_similarity(token, mean, dim=0))

    def scored(one: VGGT) -> dict[str, Drops]:
        """Target to case to metric to drop."""
        found: dict[str, Drops] = {name: {} for name in targets}
        for index, case in enumerate(cases):
            prediction = predict(one, case.views, heads=heads)
            for name, drops in found.items():
                after = losses(prediction, targets[name][index])
                drops[case.name] = {m: after[m] - before[name][index][m] for m in after}
        return found

    results: dict[str, dict[str, dict[str, Drops]]] = {}
    results["float"] = {
        "as it is": scored(network()),
        "token": scored(compensate(network(), token)),
    }
    for scheme in args.schemes:
        rows = results.setdefault(scheme, {})
        for label, method in (
            ("nearest", method_of("nearest")),
            ("scales of all tokens", method_of("awq", patches_only=False)),
            ("scales of patch tokens", method_of("awq", patches_only=True)),
        ):
            one = network()
            compress(one, scheme, method=method, calibration=calibration if method.data else None)
            rows[label] = scored(one)
            rows[f"{label}, token"] = scored(compensate(one, token))
            print(scheme, label, text_of(rows[label]["teacher"]), flush=True)
    table, gains = {}, {}
    for scheme, rows in results.items():
        table[scheme] = {
            label: {name: text_of(drops) for name, drops in both.items()}
            for label, both in rows.items()
        }
        pairs = [
            (f"token, {label}", label, with_token)
            for label, with_token in (
                ("as it is", "token"),
                *((one, f"{one}, token") for one in rows if not one.endswith("token")),
            )
            if label in rows and with_token in rows
        ]
        if "scales of all tokens" in rows:
            pairs.append(("filter", "scales of all tokens", "scales of patch tokens"))
        gains[scheme] = {
            title: {name: text_of(rows[after][name], rows[before][name]) for name in targets}
            for title, before, after in pairs
        }
    data = {
        "model": args.model,
        "protocol": f"{args.scenes} worlds of {args.views} views, {args.size} pixels; calibration "
        f"on {args.calibration} others; mean, low, high in percent points",
        "components": min(32, len(statistics.camera) - 1),
        "cosine of token and mean camera token": round(share, 4),
        "drops": table,
        "gains": gains,
        "took": round(time.time() - begin),
    }
    for scheme, rows in gains.items():
        for title, row in rows.items():
            print(f"{scheme:<12}{title:<36}{row['teacher']}")
    print(record.write("token_filter", data))


if __name__ == "__main__":
    main()
