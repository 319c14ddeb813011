"""What a target cannot run, found in the exported graph before a conversion is tried.

Converters fail late, after minutes, or not at all: the file is written and the accelerator then
refuses an operator, or silently hands the network to the CPU piece by piece. Each rule here is a
failure that was seen (docs/EXPORT.md lists them), with what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from ..errors import ExportError
from .targets import Target

MAXIMUM_RANK = 4
ELEMENTWISE = {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "eq", "lt", "gt", "where"}


@dataclass(frozen=True)
class Finding:
    """One thing a target does not run.

    ``error``: the conversion or the run fails, or results are wrong. ``warning``: it runs, but off
    the accelerator, slower or less exactly.
    """

    severity: Literal["error", "warning"]
    operator: str
    module: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        place = self.module or "the network itself"
        return f"{self.severity}: {self.operator} in {place}: {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Rule:
    """Operators (their names without overload), targets, and when it applies beyond that."""

    operators: tuple[str, ...]
    targets: tuple[str, ...]
    severity: Literal["error", "warning"]
    reason: str
    remedy: str
    applies: Callable[[Node], bool] = lambda _: True


def _value(node: Node) -> Any:
    return node.meta.get("val")


def _argument(node: Node, position: int, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else default


def _corners_aligned(node: Node) -> bool:
    return bool(_argument(node, 2, False))


def _transposed(node: Node) -> bool:
    # aten.convolution holds the flag seventh; conv_transpose2d is nothing else.
    return "transpose" in str(node.target) or bool(_argument(node, 6, False))


def _copies(node: Node) -> bool:
    """An expansion that more than elementwise operators use becomes a copy."""
    before, after = _value(node.all_input_nodes[0]), _value(node)
    if not isinstance(before, Tensor) or before.numel() == after.numel():
        return False
    return any(_name(user) not in ELEMENTWISE for user in node.users)


def _half(node: Node) -> bool:
    value = _value(node)
    value = value[0] if isinstance(value, (tuple, list)) else value
    return isinstance(value, Tensor) and value.dtype == torch.float16


def _many_axes(node: Node) -> bool:
    axes = _argument(node, 1)
    return isinstance(axes, Sequence) and len(axes) > 1


def _tanh(node: Node) -> bool:
    return node.kwargs.get("approximate") == "tanh"


LITERT = ("litert", "litert-gpu", "litert-npu")
EVERY = (*LITERT, "executorch", "executorch-coreml", "executorch-vulkan")

RULES = (
    Rule(
        ("_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"),
        EVERY,
        "error",
        "no runtime has antialiased resampling",
        "bake the result, or multiply by a constant matrix (vit.resize_matrix)",
    ),
    Rule(
        ("upsample_bicubic2d",),
        ("litert-gpu", "litert-npu"),
        "error",
        "bicubic resampling becomes 16 GATHER_ND, which accelerators lack",
        "multiply by a constant matrix",
    ),
    Rule(
        ("upsample_bilinear2d",),
        ("litert-gpu",),
        "error",
        "OpenCL refuses RESIZE_BILINEAR with aligned corners",
        'two constant matrices: Form(resize="matmul")',
        _corners_aligned,
    ),
    Rule(
        ("conv_transpose2d", "convolution"),
        ("litert-gpu",),
        "error",
        "OpenCL refuses TRANSPOSE_CONV on some phones",
        "a linear and a regrouping (decoder.Spread)",
        _transposed,
    ),
    Rule(
        ("grid_sampler", "grid_sampler_2d"),
        ("litert-gpu", "litert-npu"),
        "error",
        "sampling at computed places becomes gathers, which accelerators lack",
        "leave it to the app",
    ),
    Rule(
        ("embedding",),
        LITERT,
        "error",
        "a constant table converts, but its STABLEHLO_IOTA does not load",
        "bake the rows, or multiply by a one-hot matrix",
    ),
    Rule(
        ("topk", "sort", "argsort"),
        LITERT,
        "error",
        "it converts, but STABLEHLO_SORT does not load",
        "leave it to the app",
    ),
    Rule(
        ("linalg_inv", "linalg_inv_ex", "inverse", "linalg_svd", "linalg_qr"),
        EVERY,
        "error",
        "no runtime has it",
        "write the closed form, or leave it to the app",
    ),
    Rule(
        ("expand", "expand_as", "broadcast_to"),
        ("litert-gpu",),
        "error",
        "it stays a BROADCAST_TO, which the GPU refuses",
        "bake the repeated constant",
        _copies,
    ),
    Rule(
        ("group_norm", "native_group_norm", "unfold", "im2col"),
        ("litert-gpu",),
        "error",
        "it needs BROADCAST_TO or more than four dimensions",
        "write it with reshapes of four dimensions",
    ),
    Rule(
        ("pixel_shuffle", "pixel_unshuffle"),
        ("litert-gpu",),
        "warning",
        "it has six dimensions on some paths",
        "a regrouping of four dimensions (decoder.Spread)",
    ),
    Rule(
        ("mean", "sum", "var"),
        ("litert-gpu",),
        "warning",
        "over several axes of a large map it gives NaN in fp16",
        "one axis at a time",
        _many_axes,
    ),
    Rule(
        ("layer_norm", "native_layer_norm"),
        ("executorch",),
        "error",
        "fp16 LayerNorm is wrong from width 256 on in ExecuTorch 1.5.1",
        "keep it float32 (layers.Normalize)",
        _half,
    ),
    Rule(
        ("layer_norm", "native_layer_norm"),
        ("executorch",),
        "warning",
        "it runs on portable kernels, outside the delegate",
        "write it as means and products (layers.Normalize)",
    ),
    Rule(
        ("scaled_dot_product_attention", "_scaled_dot_product_attention_math"),
        ("executorch",),
        "warning",
        "its guard against empty rows runs on portable kernels, 3.5 times slower",
        "matmul, softmax, matmul",
    ),
    Rule(
        ("gelu",),
        ("executorch",),
        "warning",
        "XNNPACK's tanh form is off by 2e-4",
        "the exact form, which is off by 1e-7",
        _tanh,
    ),
)


def _name(node: Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[-1]
    return str(getattr(target, "__name__", target))


def _module(node: Node) -> str:
    """Path of the innermost module the node was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def _findings(node: Node, target: Target) -> Iterator[Finding]:
    name, module = _name(node), _module(node)
    for rule in RULES:
        if target.name in rule.targets and name in rule.operators and rule.applies(node):
            yield Finding(rule.severity, name, module, rule.reason, rule.remedy)
            break
    values = _value(node)
    for value in values if isinstance(values, (tuple, list)) else (values,):
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            yield Finding("error", name, module, "its result depends on the data", "fix the shape")
        if not isinstance(value, Tensor):
            continue
        if any(not isinstance(size, int) for size in value.shape):
            yield Finding("error", name, module, "its shape is not fixed", "fix the shape")
        if target.name == "litert-gpu" and value.ndim > MAXIMUM_RANK:
            yield Finding(
                "error",
                name,
                module,
                f"its result has {value.ndim} dimensions, the GPU takes {MAXIMUM_RANK}",
                "fold the batch into the views",
            )
        if target.name in LITERT and value.dtype in (torch.bfloat16, torch.float64):
            kind = str(value.dtype).removeprefix("torch.")
            yield Finding(
                "error", name, module, f"no kernel takes {kind}", "export float32 weights"
            )


def lint(
    program: torch.export.ExportedProgram, target: Target, weight_bits: int = 32
) -> list[Finding]:
    """Everything in a ``torch.export`` graph that a target does not run, errors first.

    ``weight_bits`` is what its float32 weights will be stored in.
    """
    found: list[Finding] = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            found += _findings(node, target)
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    size += sum(t.nbytes for t in program.constants.values() if isinstance(t, Tensor))
    size = size * weight_bits // 32
    if target.graph_limit is not None and size > target.graph_limit:
        found.append(
            Finding(
                "error",
                "graph",
                "",
                f"{size / 1e9:.1f} GB of weights, and one graph may hold "
                f"{target.graph_limit / 1e9:.1f} GB",
                "split it into stages",
            )
        )
    return sorted(dict.fromkeys(found), key=lambda finding: finding.severity)


def require(
    program: torch.export.ExportedProgram, target: Target, weight_bits: int = 32
) -> list[Finding]:
    """The warnings of ``lint``.

    Raises:
        ExportError: on any error, naming operator, module path and reason of the first.
    """
    found = lint(program, target, weight_bits)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ExportError(f"{target.name} cannot run this network: {errors[0]}{more}")
    return found
