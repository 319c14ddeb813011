"""The course of a training run: validation scores over steps, as numbers and as a picture.

    python benchmarks/training.py RUN

RUN is a folder of ``vggt-edge train``. Writes ``results/training.json`` and
``docs/images/training.png``. What a doubling of the steps is worth is a least-squares line over the
logarithm of the step, from the step on from which both scores improve; its range is that of the
lines without one fifth of the validations each, in a row. Validation worlds are of the kinds the
run is trained on and none of those that models are tested on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import record

from vggt_edge.train.curves import plot

SHOWN = ("abs_rel", "auc30", "rotation_auc30")
BOTH_IMPROVE = 5000  # before that cameras stayed where they were
PARTS = 5


def slope(steps: np.ndarray, scores: np.ndarray) -> float:
    """Change of the scores with each doubling of the steps."""
    return float(np.polyfit(np.log2(steps), scores, 1)[0])


def per_doubling(steps: np.ndarray, scores: np.ndarray) -> list[float]:
    """The slope, and the least and the largest of those without one part each."""
    parts = np.arange(len(steps)) * PARTS // len(steps)
    some = [slope(steps[parts != part], scores[parts != part]) for part in range(PARTS)]
    return [slope(steps, scores), min(some), max(some)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    log = args.run / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    late = [row for row in rows if row["step"] >= BOTH_IMPROVE]
    steps = np.array([row["step"] for row in late], float)
    worth = {name: per_doubling(steps, np.array([row[name] for row in late])) for name in SHOWN}
    logs = per_doubling(steps, np.log([row["abs_rel"] for row in late]))
    worth["abs_rel_factor"] = np.exp(logs).tolist()
    data = {
        "per_doubling_since": BOTH_IMPROVE,
        "per_doubling": {name: np.round(line, 4).tolist() for name, line in worth.items()},
        "scenes": rows[-1]["scenes"],
        "baseline": {name: round(rows[-1][f"baseline_{name}"], 4) for name in SHOWN},
        "steps": [row["step"] for row in rows],
        **{name: [round(row[name], 4) for row in rows] for name in SHOWN},
    }
    print(record.write("training", data))
    print(plot(log, record.RESULTS.parent / "docs" / "images" / "training.png"))


if __name__ == "__main__":
    main()
