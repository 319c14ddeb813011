"""Tables of docs/ACCURACY.md and the model card."""

from __future__ import annotations

from table_cells import interval, markdown, read, source

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
    """About fifteen of the validations."""
    data = read("training")
    step = max(1, round(len(data["steps"]) / 15))
    rows = [
        [str(data["steps"][i]), *(f"{data[m][i]:.3f}" for m in ("abs_rel", "auc30"))]
        + [f"{data['rotation_auc30'][i]:.3f}"]
        for i in range(len(data["steps"]) - 1, -1, -step)
    ][::-1]
    worth = data["per_doubling"]
    rows.append(
        [f"a doubling, from {data['per_doubling_since']} on"]
        + ["× {:.3f} ({:.3f} to {:.3f})".format(*worth["abs_rel_factor"])]
        + ["{:+.3f} ({:+.3f} to {:+.3f})".format(*worth[m]) for m in ("auc30", "rotation_auc30")]
    )
    none = data["baseline"]
    rows.append(["no network", *(f"{none[m]:.3f}" for m in ("abs_rel", "auc30", "rotation_auc30"))])
    return [
        f"{data['scenes']} validation worlds, two views of 112x112:",
        "",
        *markdown(["step", "AbsRel", "AUC@30", "rotation AUC@30"], rows),
        *source("training"),
    ]
