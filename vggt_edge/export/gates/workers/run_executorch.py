"""Run ``.pte`` stages through ExecuTorch."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def load(stage: dict[str, Any], runtime: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A stage; its method as a call from arrays by name to arrays by name."""
    import torch

    data = {"data_path": stage["data"]} if "data" in stage else {}
    program = runtime.load_program(stage["file"], **data)
    method = program.load_method(stage.get("method", "forward"))

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()]
        found = method.execute(given)
        return {n: v.numpy().copy() for n, v in zip(stage["outputs"], found, strict=True)}

    return call


def main(folder: Path) -> None:
    """One job."""
    job = json.loads((folder / "job.json").read_text())
    images = np.load(folder / "images.npy")
    facts: dict[str, Any] = {"runtime": f"executorch {importlib.metadata.version('executorch')}"}
    start = time.perf_counter()
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    calls = [load(stage, runtime) for stage in job["stages"]]
    facts["load_seconds"] = time.perf_counter() - start
    results: dict[str, list[np.ndarray]] = {name: [] for name in job["outputs"]}
    spent = []
    for one in images:
        values = {"images": one}
        start = time.perf_counter()
        for stage, call in zip(job["stages"], calls, strict=True):
            values.update(call({name: values[name] for name in stage["inputs"]}))
        spent.append(1000 * (time.perf_counter() - start))
        for name in job["outputs"]:
            results[name].append(np.array(values[name], dtype=np.float32))
    facts["milliseconds"] = spent
    stacked: dict[str, Any] = {name: np.stack(v) for name, v in results.items()}
    np.savez(folder / "result.npz", **stacked)
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
