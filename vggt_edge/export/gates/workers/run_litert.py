"""Run ``.tflite`` stages through LiteRT: on x86, on ARM64, or on the GPU accelerator."""

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

Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def encode(value: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    """Float32 to what a file takes."""
    if port["dtype"] == "float32":
        return np.ascontiguousarray(value, dtype=np.float32)
    info = np.iinfo(port["dtype"])
    integers = np.clip(np.rint(value / port["scale"]) + port["zero"], info.min, info.max)
    return np.ascontiguousarray(integers.astype(port["dtype"]))


def decode(stored: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    """What a file gives to float32."""
    if port["dtype"] == "float32":
        return stored
    return ((stored.astype(np.float32) - port["zero"]) * np.float32(port["scale"])).astype(
        np.float32
    )


def on_cpu(stage: dict[str, Any], threads: int) -> Call:
    """A stage through the interpreter and XNNPACK."""
    module = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(stage["file"], num_threads=threads)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(run(**inputs))

    return call


def on_gpu(stage: dict[str, Any], precise: bool, patience: float, facts: dict[str, Any]) -> Call:
    """A stage through the GPU accelerator; whether all of it runs there is noted.

    ``precise`` calculates in float32 instead of fp16. A read waits at most two minutes for the GPU,
    which emulated shaders take longer than: it is repeated for ``patience`` seconds.
    """
    CompiledModel = importlib.import_module("ai_edge_litert.compiled_model").CompiledModel
    module = importlib.import_module("ai_edge_litert.options")
    HardwareAccelerator = module.HardwareAccelerator
    options = module.Options(
        HardwareAccelerator.GPU | HardwareAccelerator.CPU,
        gpu_options=module.GpuOptions(enforce_f32=precise),
    )
    model = CompiledModel.from_file(stage["file"], options=options)
    facts.setdefault("resident", {})[stage["name"]] = bool(model.is_fully_accelerated())
    names = model.get_signature_by_index(0)
    given, found = model.create_input_buffers(0), model.create_output_buffers(0)

    def read(buffer: Any, port: dict[str, Any], until: float) -> Any:
        while True:
            try:
                return buffer.read(int(np.prod(port["shape"])), np.dtype(port["dtype"]).type)
            except RuntimeError as error:
                if "lock" not in str(error) or time.perf_counter() > until:
                    raise

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, buffer in zip(names["inputs"], given, strict=True):
            buffer.write(inputs[name])
        model.run_by_index(0, given, found)
        until = time.perf_counter() + patience
        results = {}
        for name, buffer in zip(names["outputs"], found, strict=True):
            port = stage["outputs"][name]
            stored = read(buffer, port, until)
            results[name] = np.array(stored).reshape(port["shape"])
        return results

    return call


def main(folder: Path) -> None:
    """One job."""
    job = json.loads((folder / "job.json").read_text())
    images = np.load(folder / "images.npy")
    facts: dict[str, Any] = {
        "runtime": f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    }
    on = job.get("accelerator", "cpu")
    start = time.perf_counter()
    calls = [
        on_gpu(stage, job["precise"], job["patience"], facts)
        if on == "gpu"
        else on_cpu(stage, job["threads"])
        for stage in job["stages"]
    ]
    facts["load_seconds"] = time.perf_counter() - start
    results: dict[str, list[np.ndarray]] = {name: [] for name in job["outputs"]}
    spent = []
    for one in images:
        values = {"images": one}
        start = time.perf_counter()
        for stage, call in zip(job["stages"], calls, strict=True):
            ports = stage["inputs"]
            found = call({name: encode(values[name], ports[name]) for name in ports})
            values.update({n: decode(v, stage["outputs"][n]) for n, v in found.items()})
        spent.append(1000 * (time.perf_counter() - start))
        for name in job["outputs"]:
            results[name].append(np.array(values[name], dtype=np.float32))
    facts["milliseconds"] = spent
    stacked: dict[str, Any] = {name: np.stack(v) for name, v in results.items()}
    np.savez(folder / "result.npz", **stacked)
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
