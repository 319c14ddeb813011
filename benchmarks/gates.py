"""Every gate on bundles of a network, in every precision of every target.

    python benchmarks/gates.py [MODEL] [--bundles litert:int8 litert-gpu:fp16 ...] [--scratch DIR]

Runs in the package's own environment with vggt-edge[npu]; ``make gates ENVS=FOLDER`` makes those
the bundles are made and proven in (--environments FOLDER). Bundles carry depth, confidence and
cameras of two views. What a bundle's check found is kept in --scratch, so that a run that was
stopped goes on where it was; --again BUNDLE ... repeats some of it. The seconds are those of a
shared machine, and of emulators: they say what a check costs, not what a phone does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

# Of all gates, emulated ARM64 is asked only of what a phone's CPU would run; it takes minutes.
ACCELERATED = "torch,litert-cpu,litert-gpu,npu-partitions,npu-numerics"
BUNDLES = (
    "litert:float32",
    "litert:fp16",
    "litert:int8",
    "litert:int4",
    "litert-gpu:float32",
    "litert-gpu:fp16",
    "litert-npu:fp16",
    "executorch:float32",
    "executorch:int8",
    "executorch:int4",
)


def run(command: list[str]) -> tuple[dict[str, Any] | None, float, str]:
    """The JSON of a command's last line, its seconds, and what it said where there is none."""
    begin = time.perf_counter()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    spent = round(time.perf_counter() - begin, 1)
    last = (done.stdout.splitlines() or [""])[-1]
    if not last.startswith("{"):
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        return None, spent, lines[-1] if lines else f"exit {done.returncode}"
    return json.loads(last), spent, ""


def extremes(images: list[dict[str, Any]]) -> dict[str, float]:
    """The worst of each measure over all images, which need not be of one image."""
    worst = {"abs_rel": max, "delta1": min, "rotation": max, "translation": max}
    found = {n: [image[n] for image in images if image[n] is not None] for n in worst}
    return {name: worst[name](values) for name, values in found.items() if values}


def line(gate: dict[str, Any]) -> dict[str, Any]:
    """One gate's result without every image's."""
    kept = {name: gate[name] for name in ("status", "reasons", "facts", "seconds")}
    if gate["measured"] is not None:
        kept["worst of each measure"] = extremes(gate["measured"]["images"])
        kept["worst image"] = gate["measured"]["worst"]
        kept["against the truth"] = gate["measured"]["truth"]
    return kept


def prove(args: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    """Make one bundle and run every gate on it."""
    target, _, recipe = name.partition(":")
    runtime = target.partition("-")[0]
    tool = args.environments / runtime / "bin" / "vggt-edge"
    bundle = folder / "bundle"
    row: dict[str, Any] = {}
    if not (folder / "export.json").exists():
        made, seconds, said = run(
            [str(tool), "export", args.model, "--target", target, "--recipe", recipe]
            + ["--views", str(args.views), "--size", args.size]
            + ["--outputs", "depth,confidence,pose"]
            + ["--bundle", str(bundle), "--out", str(folder / "out")]
        )
        if made is None:
            return {"error": f"export: {said}", "seconds to export": seconds}
        kept = {"shape": f"{args.views}x{args.size}", "bytes": made["bytes"]}
        kept |= {"seconds": made["seconds"], "all": seconds}
        (folder / "export.json").write_text(json.dumps(kept))
    made = json.loads((folder / "export.json").read_text())
    row |= {"shape": made["shape"], "bytes": made["bytes"]}
    row |= {"seconds to export": made["all"], "steps": made["seconds"]}
    gates = args.gates or (ACCELERATED if target in ("litert-gpu", "litert-npu") else "all")
    found, seconds, said = run(
        [sys.executable, "-m", "vggt_edge", "check", str(bundle), "--gates", gates]
        + ["--model", args.model, "--environments", str(args.environments)]
        + ["--timeout", str(args.timeout), "--out", str(folder / "check")]
    )
    if found is None:
        return {**row, "error": f"check: {said}"}
    row |= {name: found[name] for name in ("passed", "failed", "skipped")}
    row["seconds to check"] = seconds
    row["gates"] = {gate["gate"]: line(gate) for gate in found["gates"]}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--bundles", nargs="+", default=list(BUNDLES), help="TARGET:RECIPE")
    parser.add_argument("--again", nargs="+", default=[], help="of those, check these anew")
    parser.add_argument("--gates", help="by default all that a target is for")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--size", default="224x224", help="HEIGHTxWIDTH")
    parser.add_argument("--environments", type=Path, default=Path(".envs"))
    parser.add_argument("--timeout", type=float, default=1200, help="seconds one gate may take")
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    args.environments = args.environments.absolute()
    scratch = args.scratch or Path(tempfile.mkdtemp(prefix="gates-"))
    rows = {}
    for name in args.bundles:
        folder = scratch / name.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "row.json"
        if name in args.again or not kept.exists():
            row = prove(args, name, folder)
            if "error" not in row:
                kept.write_text(json.dumps(row))
        else:
            row = json.loads(kept.read_text())
        made = folder / "bundle" / "bundle.json"
        if made.exists():
            # Rows of several days need not be of the same weights.
            row["network"] = json.loads(made.read_text())["network"]
        rows[name] = row
        told = row.get("error") or {gate: one["status"] for gate, one in row["gates"].items()}
        print(name, told, flush=True)
    data = {
        "model": args.model,
        "load average at the end": os.getloadavg()[0],
        "bundles": rows,
    }
    print(record.write("gates" if args.model == "pocket" else f"gates_{args.model}", data))


if __name__ == "__main__":
    main()
