"""Accuracy of a model on held-out procedural worlds and on real scenes, beside the baselines.

    python benchmarks/accuracy.py [MODEL] [--data shared/data/posed] [--sizes 224 112]
        [--only worlds|real] [--keep FOLDER]

Writes ``results/accuracy_worlds_<size>.json`` and ``results/accuracy_real_<size>.json``, named
after the model as well unless it is "pocket". Worlds are the split "test-<size>" of the dataset
"worlds": seeds that neither training nor validation draws, scenes rendered into FOLDER. Real scenes
are folders with a ``cameras.json`` (``--data``); each is scored by itself, with the frames that the
project's goals name. The real scenes are there to report on: nothing may be chosen by them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import record

import vggt_edge as ve
from vggt_edge import api
from vggt_edge.evaluate import table
from vggt_edge.evaluate.evaluation import Evaluation, prepare

# Scene to the step between its 8 frames; None spreads them over the whole scene.
REAL: dict[str, int | None] = {
    "rgbd_7scenes_redkitchen": 10,
    "rgbd_icl_nuim_5": None,
    "rgbd_sun3d_lounge_5": None,
    "pose_instantngp_fox": None,
    "synth_nerf_lego": None,
    "pose_strecha_fountain_p11": None,
}
VIEWS = 8


def run(name: str, model: Any, size: int, out: Path, **what: Any) -> Evaluation:
    """Evaluate into a folder of its own; prints the table."""
    task = prepare(views=VIEWS, **what)
    method = api.method(model, name, size=size)
    found = api.finish_evaluation(task, [method], out, report=True, progress=sys.stderr.isatty())
    print("\n".join([*table.lines(found), f"  {out}", ""]), flush=True)
    return found


def rounded(value: Any) -> Any:
    """Numbers to five digits; the last ones of a score say nothing."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write(stem: str, model: str, data: dict[str, Any]) -> None:
    suffix = "" if model == "pocket" else f"_{Path(model).stem}"
    print(record.write(f"accuracy_{stem}{suffix}", rounded({"model": model, **data})), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket")
    parser.add_argument("--data", type=Path, help="folder of the real scenes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 112])
    parser.add_argument("--only", choices=("worlds", "real"))
    parser.add_argument("--limit", type=int, help="at most so many of the worlds")
    parser.add_argument("--keep", type=Path, help="keep scenes, predictions and reports here")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.only != "worlds" and args.data is None:
        parser.error("--data names the real scenes; --only worlds goes without")
    model = ve.load(args.model, dtype="float32", device=args.device)
    name = Path(args.model).stem
    with tempfile.TemporaryDirectory() as temporary:
        keep = args.keep or Path(temporary)
        for size in args.sizes:
            if args.only != "worlds":
                scenes = {}
                for scene, stride in REAL.items():
                    what = {"dataset": "cameras", "root": args.data / scene, "stride": stride}
                    scenes[scene] = run(name, model, size, keep / f"{scene}-{size}", **what)
                methods = {
                    scene: {one.method.name: one.scores[scene] for one in found.results}
                    for scene, found in scenes.items()
                }
                sampling = {s: asdict(found.task.protocol.sampling) for s, found in scenes.items()}
                write(
                    f"real_{size}",
                    args.model,
                    {"size": size, "views": VIEWS, "sampling": sampling, "scenes": methods},
                )
            if args.only != "real":
                found = run(
                    name,
                    model,
                    size,
                    keep / f"worlds-{size}",
                    dataset="worlds",
                    root=keep / "worlds",
                    split=f"test-{size}",
                    limit=args.limit,
                )
                write(f"worlds_{size}", args.model, {"size": size, **found.to_dict()})


if __name__ == "__main__":
    main()
