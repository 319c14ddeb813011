"""Tables of docs/COMPRESSION.md."""

from __future__ import annotations

from table_cells import bold_if_clear, interval, markdown, read, source


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


def float_scores() -> list[str]:
    """Of the float network on the scenes of ``compressed``."""
    names = {"abs_rel": "AbsRel", "auc30": "AUC@30, points", "rotation": "mean rotation error, °"}
    rows = [
        [views, *(interval(found[metric], ".2f") for metric in names)]
        for views, found in read("compress_methods")["float"].items()
    ]
    return markdown(["views", *names.values()], rows)


def sizes() -> list[str]:
    found = read("compress_size")["vggt-1b"]
    rows = [
        [
            recipe,
            f"{row['file'] / 1e9:.3f} GB",
            f"{row['goals']['file'] / 1e9:.2f}",
            f"{row['peak'] / 1e9:.2f} GB",
            f"{row['goals']['peak'] / 1e9:.1f}",
            f"{row['load over file']:.2f}",
        ]
        for recipe, row in found.items()
    ]
    header = ["recipe", "file", "goal", "peak", "goal", "loading over file"]
    return [*markdown(header, rows), *source("compress_size")]


def pocket_sizes() -> list[str]:
    rows = [
        [recipe, f"{row['file'] / 1e6:.1f} MB", f"{row['peak'] / 1e6:.0f} MB"]
        for recipe, row in read("compress_size")["pocket"].items()
    ]
    return markdown(["recipe", "file", "peak of a process"], rows)


def layer_errors() -> list[str]:
    """Relative error of a layer's output at VGGT-1B's shapes."""
    found = read("compress_size")["layer output error"]
    recipes = list(next(iter(found.values())))
    rows = [
        [recipe, *(f"{100 * layer[recipe]['all']:.1f} %" for layer in found.values())]
        for recipe in recipes
    ]
    return markdown(["recipe", *found], rows)


def tokens() -> list[str]:
    data = read("token_filter")
    columns = {
        "depth, against the float network": ("teacher", "depth"),
        "depth, against the truth": ("truth", "depth"),
        "pose, against the truth": ("truth", "pose"),
    }
    rows = [
        [recipe, title, *(interval(row[by][metric], "+.2f") for by, metric in columns.values())]
        for recipe, titles in data["gains"].items()
        for title, row in titles.items()
    ]
    return [*markdown(["recipe", "part", *columns], rows), *source("token_filter")]


def budget() -> list[str]:
    """Mixed recipes under budgets, beside single ones, on scenes the choice did not see."""
    data = read("budget_pocket")
    metrics = list(data["budgets"][0]["measured on other scenes"])
    rows = [
        (
            row["MB"],
            row["recipe"] if len(row["recipe"]) < 20 else "chosen, mixed",
            row["measured on other scenes"],
            row["random recipes, mean"],
        )
        for row in data["budgets"]
    ]
    named = {name for _, name, *_ in rows}
    uniform = {name: row for name, row in data["uniform"].items() if name not in named}
    rows += [(row["MB"], name, row, None) for name, row in uniform.items()]
    cells = [
        [
            f"{size:.1f}",
            name,
            *(interval(found[metric], ".2f") for metric in metrics),
            ", ".join(f"{value:.2f}" for value in blind.values()) if blind else "",
        ]
        for size, name, found, blind in sorted(rows, key=lambda row: row[0])
    ]
    header = ["MB", "recipe", *metrics, f"random choice: {', '.join(metrics)}"]
    return [*markdown(header, cells), *source("budget_pocket")]


def fragile(count: int = 5) -> list[str]:
    """The blocks that suffer most in each precision, by each measure."""
    data = read("budget_pocket")
    rows = []
    for precision, blocks in data["blocks"].items():
        for metric in next(iter(blocks.values())):
            worst = sorted(blocks, key=lambda one: -blocks[one][metric][0])[:count]
            said = ", ".join(f"{one} {blocks[one][metric][0]:.2f}" for one in worst)
            same = data["rank correlation of sets"][precision].get(metric, {})
            rows.append([precision, metric, said, ", ".join(f"{v:.2f}" for v in same.values())])
    header = ["precision", "measure", "drop of one block alone, percent points"]
    return markdown([*header, "rank correlation, indoor and outdoor"], rows)
