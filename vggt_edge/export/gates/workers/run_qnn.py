"""Run the network as ONNX on Qualcomm's emulated NPU, through onnxruntime's QNN provider."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    """One job."""
    runtime, package = (importlib.import_module(n) for n in ("onnxruntime", "onnxruntime_qnn"))
    job = json.loads((folder / "job.json").read_text())
    images = np.load(folder / "images.npy")
    libraries = Path(str(package.__file__)).parent
    runtime.register_execution_provider_library(
        "QNNExecutionProvider", str(libraries / "libonnxruntime_providers_qnn.so")
    )
    devices = [d for d in runtime.get_ep_devices() if d.ep_name == "QNNExecutionProvider"]
    options = runtime.SessionOptions()
    # Whatever the NPU does not take is an error, not a quiet run on the CPU.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(
        devices[:1],
        {
            "backend_path": str(libraries / "libQnnHtp.so"),
            "enable_htp_fp16_precision": "1",
            **job["chip"],
        },
    )
    start = time.perf_counter()
    session = runtime.InferenceSession(job["onnx"], options)
    loaded = time.perf_counter() - start
    results: dict[str, list[np.ndarray]] = {name: [] for name in job["outputs"]}
    name = session.get_inputs()[0].name
    for one in images:
        found = session.run(job["outputs"], {name: one})
        for output, value in zip(job["outputs"], found, strict=True):
            results[output].append(np.asarray(value, dtype=np.float32))
    facts: dict[str, Any] = {
        "runtime": f"onnxruntime {importlib.metadata.version('onnxruntime')}, "
        f"onnxruntime-qnn {importlib.metadata.version('onnxruntime-qnn')}",
        "device": "emulated on the host: numbers count, times do not",
        "load_seconds": loaded,
    }
    importlib.import_module("passes").write(folder, results, facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
