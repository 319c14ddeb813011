"""The course of a training run: validation scores over steps, as numbers and as a picture.

    python benchmarks/training.py RUN

RUN is a folder of ``vggt-edge train``. Writes ``results/training.json`` and
``docs/images/training.png``. Validation worlds are of the kinds the run is trained on and none of
those that models are tested on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import record

from vggt_edge.train.curves import plot

SHOWN = ("abs_rel", "auc30", "rotation_auc30")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    log = args.run / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    data = {
        "scenes": rows[-1]["scenes"],
        "baseline": {name: round(rows[-1][f"baseline_{name}"], 4) for name in SHOWN},
        "steps": [row["step"] for row in rows],
        **{name: [round(row[name], 4) for row in rows] for name in SHOWN},
    }
    print(record.write("training", data))
    print(plot(log, record.RESULTS.parent / "docs" / "images" / "training.png"))


if __name__ == "__main__":
    main()
