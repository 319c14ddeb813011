"""What the workers share: stages over all images of a job, and where the results go.

It lies beside them as they are scripts of foreign environments, where this package is not.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# One stage: float32 arrays by name to float32 arrays by name.
Call = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]


def run(
    folder: Path,
    package: str,
    load: Callable[[dict[str, Any], dict[str, Any]], Sequence[Call]],
) -> None:
    """One job: all stages, one after the other, on each input of ``images.npy``.

    Args:
        folder: of the job.
        package: the runtime, whose version is noted.
        load: takes the job, and the facts, to which it may add; gives a call for each stage.
    """
    job = json.loads((folder / "job.json").read_text())
    images = np.load(folder / "images.npy")
    facts: dict[str, Any] = {"runtime": f"{package} {importlib.metadata.version(package)}"}
    start = time.perf_counter()
    calls = load(job, facts)
    facts["load_seconds"] = time.perf_counter() - start
    results: dict[str, list[np.ndarray]] = {name: [] for name in job["outputs"]}
    spent = []
    for one in images:
        values = {"images": one}
        start = time.perf_counter()
        for stage, call in zip(job["stages"], calls, strict=True):
            values.update(call({name: values[name] for name in stage["inputs"]}))
        spent.append(1000 * (time.perf_counter() - start))
        for name, kept in results.items():
            kept.append(np.array(values[name], dtype=np.float32))
    write(folder, results, {**facts, "milliseconds": spent})


def write(
    folder: Path, results: Mapping[str, Sequence[np.ndarray]], facts: Mapping[str, Any]
) -> None:
    """Outputs of every input, and what else is worth knowing."""
    stacked: dict[str, Any] = {name: np.stack(values) for name, values in results.items()}
    np.savez(folder / "result.npz", **stacked)
    (folder / "facts.json").write_text(json.dumps(facts))
