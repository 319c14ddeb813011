"""Run ``.tflite`` stages through LiteRT: on x86, on ARM64, or on the GPU accelerator."""

from __future__ import annotations

import importlib
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


def in_float32(stage: dict[str, Any], call: Call) -> Call:
    """A stage that takes and gives float32, whatever its file does."""

    def coded(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = call({n: encode(value, stage["inputs"][n]) for n, value in inputs.items()})
        return {n: decode(value, stage["outputs"][n]) for n, value in found.items()}

    return coded


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


def load(job: dict[str, Any], facts: dict[str, Any]) -> list[Call]:
    """All stages on the accelerator of the job."""
    gpu = job.get("accelerator", "cpu") == "gpu"
    return [
        in_float32(
            stage,
            on_gpu(stage, job["precise"], job["patience"], facts)
            if gpu
            else on_cpu(stage, job["threads"]),
        )
        for stage in job["stages"]
    ]


if __name__ == "__main__":
    importlib.import_module("passes").run(Path(sys.argv[1]), "ai-edge-litert", load)
