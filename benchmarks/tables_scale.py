"""Tables of docs/SCALE.md."""

from __future__ import annotations

from table_cells import markdown, read, source


def retrieval() -> list[str]:
    found = read("retrieval_overlap")["overlap"]["redkitchen"]
    counts = ("5", "10", "25")
    rows = [
        [name, f"{one['roc_auc']:.3f}", f"{one['overlap_of_nearest_5']:.3f}"]
        + [f"{one['overlap_with_best_anchor'][k]:.3f}" for k in counts]
        for name, one in found.items()
        if isinstance(one, dict) and "roc_auc" in one
    ]
    for name in ("evenly_in_time", "random"):
        chosen = found["reference"][name]
        rows.append([name.replace("_", " "), "", "", *(f"{chosen[k]:.3f}" for k in counts)])
    header = ["", "ROC AUC", "nearest 5", *(f"best of {k} anchors" for k in counts)]
    return [*markdown(header, rows), *source("retrieval_overlap")]


def separation() -> list[str]:
    """Pairs of sets that are tied, and sets that fall apart, before and after verification."""
    rows = []
    for name, one in read("retrieval_worlds")["worlds"].items():
        for step, glued in one["views_astray_of_glued_pairs"].items():
            astray = ", ".join(map(str, sorted(glued.values(), reverse=True)))
            rows.append(
                [f"{name} each", step, f"{len(glued)} of {one['pairs_of_sets']}", astray]
                + [f"{len(one['sets_in_pieces'][step])} of {one['sets']}"]
                + [f"{one['exactly_two_components'][step]} of {one['pairs_of_sets']}"]
            )
    header = ["sets of", "", "pairs that are tied", "views astray in them", "sets in pieces"]
    header += ["pairs exactly apart"]
    return [*markdown(header, rows), *source("retrieval_worlds")]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def modes(name: str) -> list[str]:
    data = read(name)
    rows = [
        [
            str(row["views"]), row["mode"], f"{row['attention TFLOP']:.3f}",
            f"{row['dense over this, attention FLOP']:.1f}", f"{row['processor seconds']:.0f}",
            f"{row['peak over loaded MB']}", _decimals(row["ATE over spread"]),
            f"{row['AUC@30']:.3f}", f"{row['rotation AUC@30']:.3f}", f"{row['AbsRel']:.3f}",
        ]
        if "failed" not in row
        else [str(row.get("views", "")), row["mode"], row["failed"], *[""] * 7]
        for row in data["rows"]
    ]  # fmt: skip
    header = ["views", "mode", "attention TFLOP", "dense over this", "processor s"]
    header += ["peak beyond weights, MB", "ATE / spread", "AUC@30", "rotation AUC@30", "AbsRel"]
    return [*markdown(header, rows), *source(name)]
