"""Tables of docs/EXPORT.md."""

from __future__ import annotations

from table_cells import markdown, read, source, spread

GATES = {
    "litert-cpu": "x86",
    "litert-arm64": "qemu-user, ARM64 kernels",
    "litert-gpu": "software Vulkan",
    "npu-partitions": "ahead of time",
    "npu-numerics": "emulated",
    "executorch-xnnpack": "x86",
}
JUDGED = ("abs_rel", "auc30")


def exported(name: str) -> list[str]:
    """Files of a runtime: size, what making them takes, latency beside torch's, deviation."""
    rows, title = [], ""
    for recipe, row in read(name)["recipes"].items():
        own, after = "milliseconds in a process of its own", "one after the other"
        title = "alone" if own in row else after
        alone = row.get(own) or row[after]
        spent = row.get("cpu seconds to quantize and lower")
        steps = row.get("seconds", {"quantize and lower, processor": spent})
        rows.append(
            [
                recipe,
                f"{row['bytes'] / 1e6:.1f} MB",
                ", ".join(f"{step} {seconds:.0f} s" for step, seconds in steps.items()),
                f"{row['peak_bytes'] / 1e9:.2f} GB",
                f"{spread(alone.get('milliseconds', alone), 0)} ms",
                *(spread(row[f"times faster than torch {p}"], 1) for p in ("float32", "bf16")),
                f"{row['worst image abs_rel']:.1e}",
            ]
        )
    header = ["recipe", "file", "made in", "peak memory", title, "x torch float32"]
    return [*markdown([*header, "x torch bf16", "deviation"], rows), *source(name)]


def gates() -> list[str]:
    rows = []
    for bundle, found in read("gates")["bundles"].items():
        title = f"{' '.join(bundle.split(':'))}, {found['shape']}, {found['network'][:4]}"
        for name, gate in found["gates"].items():
            if name == "torch" or gate["status"] == "skipped":
                continue
            cells = [title, f"`{name}` ({GATES[name]})", gate["status"]]
            worst, truth = gate.get("worst of each measure"), gate.get("against the truth")
            if worst and truth:
                cells += [f"{worst['abs_rel']:.1e}", f"{worst['delta1']:.4f}"]
                cells += [f"{worst['rotation']:.3f}°"]
                cells += [", ".join(f"{v:.4f}" for v in truth[m].values()) for m in JUDGED]
            else:
                chips = gate["facts"].get("chips", {})
                parts = {
                    f"{one['compiled']} of {one['operators']} operators in {one['partitions']}"
                    for chip in chips.values()
                    for one in chip.values()
                }
                cells += [f"{'; '.join(parts)}: {', '.join(chips)}" if chips else "", *[""] * 4]
            rows.append(cells)
            title = ""
    header = ["bundle, shape, network", "gate", "", "AbsRel", "delta1", "rotation"]
    header += ["AbsRel to the truth: network, export", "AUC@30: network, export"]
    return [*markdown(header, rows), *source("gates")]
