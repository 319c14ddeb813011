"""Run ``.pte`` stages through ExecuTorch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def loaded(stage: dict[str, Any], runtime: Any) -> Call:
    """A stage; its method as a call from arrays by name to arrays by name."""
    import torch

    data = {"data_path": stage["data"]} if "data" in stage else {}
    program = runtime.load_program(stage["file"], **data)
    method = program.load_method(stage.get("method", "forward"))

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()]
        found = method.execute(given)
        return {n: v.numpy().copy() for n, v in zip(stage["outputs"], found, strict=True)}

    return call


def load(job: dict[str, Any], _: dict[str, Any]) -> list[Call]:
    """All stages, on as many threads as the job says."""
    # ExecuTorch's own way, whose name warns of programs that run meanwhile: none is loaded yet.
    bindings = importlib.import_module("executorch.extension.pybindings.portable_lib")
    if bindings._threadpool_get_thread_count() != job["threads"]:
        bindings._unsafe_reset_threadpool(job["threads"])
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    return [loaded(stage, runtime) for stage in job["stages"]]


if __name__ == "__main__":
    importlib.import_module("passes").run(Path(sys.argv[1]), "executorch", load)
