"""ExecuTorch: a rewritten network to a ``.pte`` program, and a run of those for XNNPACK.

    program = lower({"forward": Method(module, (images,))}, Path("vggt.pte"))
    (depth,) = ExecuTorchRunner(program)(images)

A program has one or more methods, which share weights: the stages of a network, or one network for
several numbers of views. Its packages live in an environment of their own (``make executorch``).

What makes lowering slow is the number of pieces a graph is cut into: every piece goes through
XNNPACK's 17 passes, some of which build their patterns each time. A graph that XNNPACK takes whole
(``Form(mean="matmul")``, expansions that do nothing removed) is lowered as one delegate.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ExportError, MissingExtraError
from ..files import replacing
from . import installed
from .executorch_delegates import DELEGATES
from .litert import Port
from .quiet import FAILURES, first_line, hushed, uninterrupted

PACKAGES = ("executorch", "torchao")
WEIGHTS = "weights"


def _require(module: str, purpose: str) -> ModuleType:
    try:
        with _silence(), uninterrupted():
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(purpose) from error


def _missing(purpose: str) -> MissingExtraError:
    return MissingExtraError(
        "executorch", "executorch", f"{purpose} (in an environment of its own: `make executorch`)"
    )


def require_packages() -> None:
    """Refuse, before any work, an environment that lacks ExecuTorch.

    Raises:
        MissingExtraError: when it does.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise _missing("exporting to ExecuTorch")


def versions() -> dict[str, str]:
    """Versions of the packages that make and run the files, where installed."""
    return installed.versions(PACKAGES)


@contextmanager
def _silence() -> Iterator[None]:
    """Without what its packages print, log and warn of each other."""
    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@dataclass(frozen=True)
class Method:
    """A module and an example of its inputs."""

    module: nn.Module
    inputs: tuple[Tensor, ...]


def lower(
    methods: Mapping[str, Method],
    path: Path,
    weights: Path | None = None,
    delegate: str = "XnnpackBackend",
    half: bool = False,
) -> Path:
    """Modules as the methods of one program for a delegate; equal weights are stored once.

    Args:
        methods: name to module and example inputs, shapes fixed.
        path: of the ``.pte``; appears whole or not at all.
        weights: of a ``.ptd`` that gets all weights instead; the program then needs it to load.
            XNNPACK only.
        delegate: a name of ``executorch_delegates.DELEGATES``.
        half: arithmetic in fp16, by delegates other than XNNPACK.

    Raises:
        MissingExtraError: without ExecuTorch.
        ExportError: when its compiler fails.
        OutputError: when a file cannot be written.
    """
    exir = _require("executorch.exir", "exporting to ExecuTorch")
    try:
        with _silence(), uninterrupted():
            how = DELEGATES[delegate](half)
    except ImportError as error:
        raise _missing(f"lowering for {delegate}") from error
    with _silence(), torch.no_grad():
        try:
            programs = {name: _program(m, weights is not None) for name, m in methods.items()}
            edge = exir.to_edge_transform_and_lower(
                programs,
                transform_passes=how.transform_passes,
                partitioner=[how.partitioner],
                compile_config=how.compile_config,
            )
            del programs
            # Constants that XNNPACK takes as inputs stay in the program, which loads one .ptd only.
            program = edge.to_executorch()
            del edge
        except FAILURES as error:
            raise ExportError(f"ExecuTorch's compiler failed: {first_line(error)}") from error
    with replacing(path) as temporary, temporary.open("wb") as file:
        program.write_to_file(file)
    if weights is not None:
        _write_weights(program, weights)
    return path


def _program(method: Method, external: bool) -> torch.export.ExportedProgram:
    program = torch.export.export(method.module, method.inputs)
    if not external:
        return program
    passes = importlib.import_module("executorch.exir.passes.external_constants_pass")
    graph = program.module()
    passes.delegate_external_constants_pass_unlifted(graph, gen_tag_fn=lambda _: WEIGHTS)
    return torch.export.export(graph, method.inputs)


def _write_weights(program: Any, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        program._tensor_data[WEIGHTS].write_to_file(file)


class ExecuTorchRunner:
    """A ``.pte`` program on this machine's CPU, through the kernels a phone's CPU uses.

    Attributes
        methods   names, in no order.
    """

    def __init__(
        self, path: Path, weights: Path | None = None, threads: int = 2, profile: bool = False
    ):
        """Load a program, and the ``.ptd`` its weights are in.

        ``threads`` holds for every program of the process. With ``profile`` it measures itself,
        for ``write_profile``.

        Raises:
            MissingExtraError: without ExecuTorch.
            ExportError: when it cannot be loaded.
        """
        module = _require("executorch.runtime", "running a .pte program")
        bindings = _require("executorch.extension.pybindings.portable_lib", "running a .pte")
        with _silence():
            if bindings._threadpool_get_thread_count() != threads:
                bindings._unsafe_reset_threadpool(threads)
            try:
                self._program = module.Runtime.get().load_program(
                    path, data_path=weights, enable_etdump=profile
                )
            except FAILURES as error:
                raise ExportError(f"{path} cannot be loaded: {first_line(error)}") from error
        self.methods = frozenset(self._program.method_names)

    def _method(self, name: str) -> Any:
        if name not in self.methods:
            raise ExportError(f"no method {name!r}; the program has {', '.join(self.methods)}")
        with _silence():
            try:
                return self._program.load_method(name)
            except FAILURES as error:
                raise ExportError(f"method {name} cannot be loaded: {first_line(error)}") from error

    def ports(self, method: str = "forward") -> tuple[list[Port], list[Port]]:
        """Inputs and outputs of a method."""
        about = self._method(method).metadata
        ins = [about.input_tensor_meta(i) for i in range(about.num_inputs())]
        outs = [about.output_tensor_meta(i) for i in range(about.num_outputs())]
        made = [[Port(tuple(info.sizes()), "float32", 0.0, 0) for info in s] for s in (ins, outs)]
        return made[0], made[1]

    def __call__(self, *inputs: Tensor, method: str = "forward") -> list[Tensor]:
        """Run once on float32 inputs; the outputs in their order.

        Raises:
            ExportError: an input of another shape, or a kernel that fails.
        """
        wanted = [port.shape for port in self.ports(method)[0]]
        given = [tuple(value.shape) for value in inputs]
        if given != wanted:
            raise ExportError(f"inputs {given}: method {method} takes {wanted}")
        try:
            # A strided tensor would be read as if it were not.
            found = self._method(method).execute([value.contiguous() for value in inputs])
        except FAILURES as error:
            raise ExportError(f"ExecuTorch failed: {first_line(error)}") from error
        return list(found)

    def write_profile(self, path: Path) -> Path:
        """What the runs since loading took, as an etdump file for ExecuTorch's Inspector.

        Raises:
            ExportError: it was not measured.
            OutputError: when it cannot be written.
        """
        with replacing(path) as temporary, _silence():
            try:
                self._program.write_etdump_result_to_file(str(temporary), "")
            except FAILURES as error:
                raise ExportError(f"ExecuTorch has no profile: {first_line(error)}") from error
        return path


def _plans(path: Path) -> list[Any]:
    serialize = _require("executorch.exir._serialize._program", "reading a .pte program")
    with _silence():
        return list(serialize.deserialize_pte_binary(path.read_bytes()).program.execution_plan)


def operators(path: Path) -> dict[str, dict[str, int]]:
    """Of each method, how often each operator outside a delegate occurs, and each delegate."""
    methods: dict[str, dict[str, int]] = {}
    for plan in _plans(path):
        counts = methods.setdefault(plan.name, {})
        for instruction in (i.instr_args for chain in plan.chains for i in chain.instructions):
            if hasattr(instruction, "delegate_index"):
                name = plan.delegates[instruction.delegate_index].id
            elif hasattr(instruction, "op_index"):
                name = plan.operators[instruction.op_index].name
            else:
                continue
            counts[name] = counts.get(name, 0) + 1
    return methods


def described_ports(path: Path) -> dict[str, tuple[list[Port], list[Port]]]:
    """Inputs and outputs of each method as the file describes them, without loading it."""

    def port(value: Any) -> Port:
        kind = value.scalar_type.name.lower()
        return Port(
            tuple(value.sizes), {"float": "float32", "half": "float16"}.get(kind, kind), 0.0, 0
        )

    return {
        plan.name: (
            [port(plan.values[i].val) for i in plan.inputs],
            [port(plan.values[i].val) for i in plan.outputs],
        )
        for plan in _plans(path)
    }


def as_arrays(values: Sequence[Tensor]) -> list[np.ndarray]:
    """Copies of outputs, which the next run of the program would overwrite."""
    return [value.numpy().copy() for value in values]
