"""Writes the tables of docs/*.md that come from results/*.json.

    python benchmarks/tables.py [--check]

A table stands between the lines ``<!-- table NAME -->`` and ``<!-- end -->``; what is between them
is replaced. With ``--check`` nothing is written, and documents that fell behind their results are
named. Means are followed by their 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
GOALS = {
    "rgbd_7scenes_redkitchen": {"abs_rel": "0.15", "auc30": "0.60"},
    "rgbd_icl_nuim_5": {"abs_rel": "0.15"},
    "rgbd_sun3d_lounge_5": {"abs_rel": "0.15"},
    "pose_instantngp_fox": {"auc30": "0.40"},
    "synth_nerf_lego": {"auc30": "0.40"},
    "pose_strecha_fountain_p11": {"auc30": "0.40"},
}
METRICS = {
    "abs_rel": ("depth AbsRel", "0.05"),
    "delta1": ("depth δ < 1.25", ""),
    "auc30": ("pose AUC@30", "0.85"),
    "auc15": ("pose AUC@15", ""),
    "rra30": ("rotations within 30°", ""),
    "rta30": ("translations within 30°", ""),
    "ate_relative": ("ATE over the path's spread", ""),
    "overall": ("cloud distance, m (mean of Acc and Comp)", ""),
    "focal_error": ("focal length, relative error", ""),
}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HOME / "results" / f"{name}.json").read_text())
    return found


def source(name: str) -> list[str]:
    """Where a table is from, as its last line."""
    data = read(name)
    of = f", weights {data['weights']}" if "weights" in data else ""
    return ["", f"[results/{name}.json](../results/{name}.json), `{data['command']}`{of}."]


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def interval(value: dict[str, float] | list[float] | None, form: str = ".3f") -> str:
    """Mean (low to high)."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = [value["mean"], value["low"], value["high"]]
    mean, low, high = value
    if low is None:  # a single scene
        return f"{mean:{form}}"
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def bold_if_clear(value: dict[str, float], form: str) -> str:
    """Bold where the interval leaves zero out."""
    text = interval(value, form)
    return f"**{text}**" if value["low"] > 0 or value["high"] < 0 else text


def worlds(size: int) -> list[str]:
    name = f"accuracy_worlds_{size}"
    data = read(name)
    methods = data["methods"]
    rows = [
        [title, goal, *(interval(one["summary"].get(metric)) for one in methods)]
        for metric, (title, goal) in METRICS.items()
    ]
    scenes = len(data["recordings"])
    placed = ", ".join(
        f"{one['name']} {100 * one['summary']['found']['mean']:.0f} %"
        for one in methods
        if one["summary"]["found"]["mean"] < 1
    )
    note = ["", f"Views that were given a camera: {placed}; the others all."] if placed else []
    return [
        f"{scenes} scenes, {data['sampling']['count']} views of {size}x{size}:",
        "",
        *markdown(["", "goal", *(one["name"] for one in methods)], rows),
        *note,
        *source(name),
    ]


def kinds(size: int) -> list[str]:
    """By kind of world, of which training never shows some."""
    data = read(f"accuracy_worlds_{size}")
    model = data["methods"][0]["recordings"]
    groups: dict[str, list[dict[str, float]]] = {}
    for scene, scores in model.items():
        groups.setdefault(scene.partition("/")[0], []).append(scores)
    rows = []
    for kind, scored in groups.items():
        unseen = "no" if kind in ("terrace", "depot") else "yes"
        means = [sum(one[m] for one in scored) / len(scored) for m in ("abs_rel", "auc30", "rra30")]
        rows.append([kind, unseen, str(len(scored)), *(f"{mean:.3f}" for mean in means)])
    return markdown(
        ["kind", "in training", "scenes", "AbsRel", "AUC@30", "rotations within 30°"], rows
    )


def real(size: int) -> list[str]:
    name = f"accuracy_real_{size}"
    rows = []
    for scene, methods in read(name)["scenes"].items():
        for metric, goal in GOALS[scene].items():
            cells = [
                "none" if one.get(metric) is None else f"{one[metric]:.3f}"
                for one in methods.values()
            ]
            rows.append([scene, METRICS[metric][0], goal, *cells])
        names = list(methods)
    return [*markdown(["scene", "", "goal", *names], rows), *source(name)]


def pocket() -> list[str]:
    rows = [
        [
            f"{row['views']}",
            f"{row['size']}x{row['size']}",
            row["dtype"],
            f"{row['abs_rel']:.3f} ({row['baseline_abs_rel']:.3f})",
            f"{row['delta1']:.3f}",
            f"{row['auc30']:.3f} ({row['baseline_auc30']:.0f})",
            f"{row['rotation_auc30']:.3f} ({row['baseline_rotation_auc30']:.3f})",
        ]
        for row in read("pocket")["rows"]
    ]
    header = ["views", "size", "", "AbsRel (constant depth)", "delta < 1.25", "AUC@30 (identity)"]
    return [*markdown([*header, "rotation AUC@30 (identity)"], rows), *source("pocket")]


def training() -> list[str]:
    """Every fifth validation."""
    data = read("training")
    rows = [
        [str(data["steps"][i]), *(f"{data[m][i]:.3f}" for m in ("abs_rel", "auc30"))]
        + [f"{data['rotation_auc30'][i]:.3f}"]
        for i in range(len(data["steps"]) - 1, -1, -5)
    ][::-1]
    none = data["baseline"]
    rows.append(["no network", *(f"{none[m]:.3f}" for m in ("abs_rel", "auc30", "rotation_auc30"))])
    return [
        f"{data['scenes']} validation worlds, two views of 112x112:",
        "",
        *markdown(["step", "AbsRel", "AUC@30", "rotation AUC@30"], rows),
        *source("training"),
    ]


def compressed(ablations: bool) -> list[str]:
    """Differences to the float network, by method and recipe or by part of a method."""
    from vggt_edge.compress.methods import METHODS

    data = read("compress_methods")
    counts = sorted(map(int, data["float"]))
    header = ["part", "recipe"] if ablations else ["recipe", "method"]
    header += ["s"] if not ablations else []
    for count in counts:
        header += [
            f"{count} views: AbsRel, points",
            "AUC@30, points",
            "depth apart",
            "turned apart",
        ]
    rows = []
    for row in data["rows"]:
        if (row["name"] not in METHODS) != ablations:
            continue
        first = [row["name"], row["recipe"]]
        cells = first if ablations else [*first[::-1], f"{row['seconds']:.0f}"]
        for count in counts:
            found = row["views"][str(count)]
            percent = {k: 100 * v for k, v in found["difference"]["abs_rel"].items()}
            cells += [
                bold_if_clear(percent, "+.2f"),
                bold_if_clear(found["difference"]["auc30"], "+.2f"),
                f"{100 * found['apart']['depth_apart']['mean']:.2f} %",
                f"{found['apart']['rotation_apart']['mean']:.2f}°",
            ]
        rows.append(cells)
    return [*markdown(header, rows), *source("compress_methods")]


def tokens() -> list[str]:
    data = read("token_filter")
    rows = [
        [recipe, title, *(interval(row[by][metric], "+.2f") for by, metric in columns)]
        for recipe, titles in data["gains"].items()
        for title, row in titles.items()
        for columns in [[("teacher", "abs_rel"), ("truth", "abs_rel"), ("truth", "auc30")]]
    ]
    header = ["recipe", "part", "AbsRel to the float network", "AbsRel to the truth"]
    return [*markdown([*header, "AUC@30 to the truth"], rows), *source("token_filter")]


def budget() -> list[str]:
    data = read("budget_pocket")
    metrics = list(data["budgets"][0]["measured on other scenes"])
    rows = [
        [f"{row['MB']:.1f}", row["recipe"] if len(row["recipe"]) < 20 else "chosen, mixed"]
        + [interval(row["measured on other scenes"][m], ".2f") for m in metrics]
        + [
            ", ".join(f"{v:.2f}" for v in row["random recipes, mean"].values())
            if row["random recipes, mean"]
            else ""
        ]
        for row in data["budgets"]
    ]
    return [
        *markdown(["MB", "recipe", *metrics, f"random recipes: {', '.join(metrics)}"], rows),
        *source("budget_pocket"),
    ]


def modes(name: str) -> list[str]:
    data = read(name)
    rows = [
        [
            str(row["views"]), row["mode"], f"{row['attention TFLOP']:.3f}",
            f"{row['dense over this, attention FLOP']:.1f}", f"{row['processor seconds']:.0f}",
            f"{row['peak over loaded MB']}", f"{row['ATE over spread']:.3f}",
            f"{row['AUC@30']:.3f}", f"{row['rotation AUC@30']:.3f}", f"{row['AbsRel']:.3f}",
        ]
        if "failed" not in row
        else [str(row.get("views", "")), row["mode"], row["failed"], *[""] * 7]
        for row in data["rows"]
    ]  # fmt: skip
    header = ["views", "mode", "attention TFLOP", "dense over this", "processor s"]
    header += ["peak beyond weights, MB", "ATE / spread", "AUC@30", "rotation AUC@30", "AbsRel"]
    return [*markdown(header, rows), *source(name)]


TABLES: dict[str, Callable[[], list[str]]] = {
    "worlds-112": lambda: worlds(112),
    "worlds-224": lambda: worlds(224),
    "kinds-112": lambda: kinds(112),
    "real-112": lambda: real(112),
    "real-224": lambda: real(224),
    "pocket": pocket,
    "card": lambda: pocket()[:-2],  # a link would lead nowhere from where it is installed
    "training": training,
    "methods": lambda: compressed(ablations=False),
    "ablations": lambda: compressed(ablations=True),
    "tokens": tokens,
    "budget": budget,
    "modes-walk": lambda: modes("scale_modes_pocket_walk"),
    "modes-redkitchen": lambda: modes("scale_modes_pocket_redkitchen"),
}


def documents() -> list[Path]:
    """Where tables may stand."""
    return sorted([*(HOME / "docs").glob("*.md"), HOME / "vggt_edge/assets/MODEL_CARD.md"])


def filled(text: str) -> str:
    """A document with its tables anew."""
    return BLOCK.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; say what is behind")
    args = parser.parse_args()
    behind = []
    for path in documents():
        text = path.read_text()
        new = filled(text)
        if new != text:
            behind.append(path.name)
            if not args.check:
                path.write_text(new)
    if behind and args.check:
        sys.exit(f"behind their results: {', '.join(behind)}; run python benchmarks/tables.py")
    print("written: " + ", ".join(behind) if behind else "all tables are as their results")


if __name__ == "__main__":
    main()
