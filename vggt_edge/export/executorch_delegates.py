"""What takes a graph over inside an ExecuTorch program, and how it is lowered for it.

XNNPACK lowers and runs on this machine. Core ML and Vulkan lower here and run elsewhere: Core ML's
packages are compiled on the device that loads them (its compiler is macOS's), and the wheel has no
Vulkan runtime.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Lowering:
    """Arguments of ``to_edge_transform_and_lower``."""

    partitioner: Any
    transform_passes: Any = None
    compile_config: Any = None


def _xnnpack(half: bool) -> Lowering:
    configs = importlib.import_module("executorch.backends.xnnpack.utils.configs")
    # An expansion to the same shape is not XNNPACK's and would cut the graph.
    passes = configs.get_transform_passes()
    return Lowering(_whole_xnnpack(), passes, configs.get_xnnpack_edge_compile_config())


def _whole_xnnpack() -> Any:
    """XNNPACK's partitioner, which first tries everything that XNNPACK runs as one piece.

    Its own way is to start from single operators and merge them pair by pair, each time searching
    the graph for cycles: hours for the 10,000 nodes of VGGT-1B, and gigabytes for who depends on
    whom.
    """
    xnnpack = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    Partition = importlib.import_module("torch.fx.passes.infra.partitioner").Partition
    fuser = importlib.import_module("torch.fx.passes.utils.fuser_utils")

    class Whole(xnnpack.XnnpackPartitioner):  # type: ignore[misc, name-defined]
        def generate_partitions(self, ep: torch.export.ExportedProgram) -> Any:
            groups = self.get_matched_nodes_from_configs(ep)
            nodes = [node for group in groups for node in group]
            if nodes and fuser.validate_partition(nodes):
                return [Partition(id=0, nodes=nodes)]
            return super().generate_partitions(ep)

    return Whole()


def _core_ml(half: bool) -> Lowering:
    coremltools = importlib.import_module("coremltools")
    partition = importlib.import_module("executorch.backends.apple.coreml.partition")
    compiler = importlib.import_module("executorch.backends.apple.coreml.compiler")
    specs = compiler.CoreMLBackend.generate_compile_specs(
        # An ML program; the first that iPhones of 2022 and later all have.
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=getattr(coremltools.precision, "FLOAT16" if half else "FLOAT32"),
    )
    return Lowering(partition.CoreMLPartitioner(compile_specs=specs))


def _vulkan(half: bool) -> Lowering:
    module = importlib.import_module("executorch.backends.vulkan.partitioner.vulkan_partitioner")
    return Lowering(module.VulkanPartitioner({"force_fp16": True} if half else {}))


# By the ids that programs call them by.
DELEGATES: dict[str, Callable[[bool], Lowering]] = {
    "XnnpackBackend": _xnnpack,
    "CoreMLBackend": _core_ml,
    "VulkanBackend": _vulkan,
}
