"""The gates themselves, in the order they run: cheapest first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...model.identity import identity_of
from ...model.vggt import VGGT
from ..golden import as_float
from ..module import TensorModule, as_tuple
from . import environments
from .gate import Context, Gate, Outcome, Skip, call
from .measure import LIMITS, precision


def _require_runtime(context: Context, runtime: str) -> None:
    made = context.bundle.manifest["runtime"]
    if made != runtime:
        raise Skip(f"the bundle is for {made}; export with a target of {runtime}")


def _require_target(context: Context, target: str) -> None:
    made = context.bundle.manifest["target"]
    if made != target:
        raise Skip(f"the bundle is for target {made}; export with --target {target}")


def _another_network(model: VGGT, context: Context) -> tuple[str, ...]:
    """What is wrong with a network that is not the one that was exported."""
    network, wanted = identity_of(model), context.bundle.manifest["network"]
    if network == wanted:
        return ()
    return (f"another network: its hash is {network[:12]}..., not {wanted[:12]}...",)


def _ratio(context: Context, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with the median time of a run."""
    spent = facts.get("milliseconds", [])
    return {**facts, "median_milliseconds": float(np.median(spent)) if spent else None}


@torch.inference_mode()
def torch_reference(context: Context) -> Outcome:
    """The network that was exported still says what the bundle's reference says."""
    if context.model is None:
        raise Skip("needs the network that was exported: give --model")
    if problems := _another_network(context.model, context):
        return Outcome(problems=problems)
    module = TensorModule(context.model, context.bundle.outputs)
    found: dict[str, list[np.ndarray]] = {name: [] for name in module.outputs}
    for one in as_float(context.golden.images):
        given = torch.from_numpy(one).permute(0, 3, 1, 2).contiguous()
        for name, value in zip(module.outputs, as_tuple(module(given)), strict=True):
            found[name].append(value.float().numpy())
    outputs = {name: np.stack(values) for name, values in found.items()}
    return Outcome(outputs, {"runtime": f"torch {torch.__version__}"}, limits=LIMITS["float32"])


def _on_this_machine(context: Context, runtime: str, package: str, worker: str) -> Outcome:
    """A runtime on the CPU of this machine, in its environment."""
    _require_runtime(context, runtime)
    python = environments.python_with(package, runtime, context.environments)
    if python is None:
        raise Skip(f"needs {package.replace('_', '-')}: make {runtime}")
    outputs, facts, _ = call(context, worker, [python])
    return Outcome(outputs, _ratio(context, facts), repeats=True)


def litert_cpu(context: Context) -> Outcome:
    """torch against LiteRT's CPU kernels on this machine."""
    return _on_this_machine(context, "litert", "ai_edge_litert", "run_litert.py")


def litert_arm64(context: Context) -> Outcome:
    """torch against LiteRT's ARM64 kernels, under qemu."""
    _require_runtime(context, "litert")
    python = (context.environments / "arm64" / "bin" / "python").absolute()
    if not python.exists():
        raise Skip("needs qemu-user 10 and an ARM64 Python: make arm64")
    outputs, facts, _ = call(context, "run_litert.py", [python], job={"threads": 1})
    emulated = {"emulated": "qemu-user, -cpu max: numbers count, times do not"}
    return Outcome(outputs, {**facts, **emulated}, repeats=True)


def litert_gpu(context: Context) -> Outcome:
    """Every operator on LiteRT's GPU accelerator, and its numbers, on a software Vulkan."""
    _require_target(context, "litert-gpu")
    python = environments.python_with("ai_edge_litert", "litert", context.environments)
    vulkan = (context.environments / "vulkan").absolute()
    if python is None:
        raise Skip("needs ai-edge-litert: make litert")
    if not (vulkan / "lavapipe.json").exists():
        raise Skip("needs Mesa's software Vulkan 25: make vulkan")
    libraries = str(vulkan / "usr" / "lib" / "x86_64-linux-gnu")
    variables = {
        "VK_ICD_FILENAMES": str(vulkan / "lavapipe.json"),
        "VK_DRIVER_FILES": str(vulkan / "lavapipe.json"),
        "LD_LIBRARY_PATH": libraries,
        # Most of the time is LLVM's, which compiles every shader: a tenth of it without optimizing.
        "GALLIVM_PERF": "nopt",
        "LP_NATIVE_VECTOR_WIDTH": "128",
    }
    precise = precision(context.bundle.manifest["recipe"]) == "float32"
    job = {"accelerator": "gpu", "precise": precise, "patience": context.timeout}
    outputs, facts, said = call(context, "run_litert.py", [python], job=job, environment=variables)
    left = [name for name, resident in facts["resident"].items() if not resident]
    refused = dict.fromkeys(re.findall(r"^.*(?:not supported|unsupported).*$", said, re.M | re.I))
    problems = tuple(f"stage {name} is not wholly on the GPU" for name in left)
    facts = {
        **facts,
        "arithmetic": "float32" if precise else "fp16",
        "device": "lavapipe, a software Vulkan: times say nothing of a phone",
    }
    return Outcome(outputs, {**facts, "refused": list(refused)[:20]}, problems)


def executorch_xnnpack(context: Context) -> Outcome:
    """torch against ExecuTorch's XNNPACK on this machine."""
    return _on_this_machine(context, "executorch", "executorch", "run_executorch.py")


def _npu(context: Context) -> tuple[Path, dict[str, str]]:
    """Python and variables of the NPU environment."""
    found = environments.npu(context.environments)
    if found is None:
        raise Skip(
            "needs Qualcomm's compiler, which pip fetches under Qualcomm's licence "
            "(onnxruntime-qnn): make npu"
        )
    return found


def npu_partitions(context: Context) -> Outcome:
    """LiteRT's ahead-of-time compiler for Snapdragon puts each graph into one partition."""
    _require_target(context, "litert-npu")
    python, variables = _npu(context)
    _, facts, _ = call(context, "compile_npu.py", [python], environment=variables)
    problems = [
        f"{chip}, stage {stage}: {told['partitions']} partitions, "
        f"{told['compiled']} of {told['operators']} operators"
        if "error" not in told
        else f"{chip}, stage {stage}: {told['error']}"
        for chip, stages in facts["chips"].items()
        for stage, told in stages.items()
        if "error" in told or told["partitions"] != 1 or told["compiled"] != told["operators"]
    ]
    return Outcome(facts=facts, problems=tuple(problems))


def npu_numerics(context: Context) -> Outcome:
    """The network on Qualcomm's emulated NPU, fp16, through onnxruntime's QNN provider."""
    _require_target(context, "litert-npu")
    if context.bundle.recipes != ("fp16",):
        raise Skip(
            f"it proves fp16 alone, and the bundle is {', '.join(context.bundle.recipes)}; export "
            "with --recipe fp16"
        )
    if context.model is None:
        raise Skip("onnxruntime needs the network as ONNX, made from its weights: give --model")
    if problems := _another_network(context.model, context):
        return Outcome(problems=problems)
    if util.find_spec("onnx") is None or util.find_spec("onnxscript") is None:
        raise Skip("needs onnx and onnxscript beside torch: pip install 'vggt-edge[npu]'")
    python, variables = _npu(context)
    from .onnx_export import as_onnx

    with as_onnx(context) as path:
        job = {"onnx": str(path), "chip": {"htp_arch": "75", "soc_model": "57"}}
        outputs, facts, _ = call(context, "run_qnn.py", [python], job=job, environment=variables)
    return Outcome(outputs, facts, limits=LIMITS["fp16"])


GATES = {
    gate.name: gate
    for gate in (
        Gate("torch", "the reference is this network's, recomputed", torch_reference),
        Gate("litert-cpu", "LiteRT's CPU kernels, x86", litert_cpu),
        Gate("litert-arm64", "LiteRT's CPU kernels, ARM64 under qemu", litert_arm64),
        Gate("litert-gpu", "all on LiteRT's GPU accelerator, software Vulkan", litert_gpu),
        Gate("executorch-xnnpack", "ExecuTorch with XNNPACK", executorch_xnnpack),
        Gate("npu-partitions", "one NPU partition a graph, Snapdragon", npu_partitions),
        Gate("npu-numerics", "Snapdragon's NPU emulated, fp16", npu_numerics),
    )
}


def find_gates(names: str) -> list[Gate]:
    """Gates by comma-separated names, or all of them for "all".

    Raises:
        InputError: with the names there are.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(GATES.values())
    if unknown := [name for name in wanted if name not in GATES]:
        raise InputError(f"unknown gate {', '.join(unknown)}; known: all, {', '.join(GATES)}")
    if not wanted:
        raise InputError(f"no gate named; choose all, or of {', '.join(GATES)}")
    return [gate for name, gate in GATES.items() if name in wanted]
