"""LiteRT: a rewritten network to a ``.tflite`` file, its quantization, and a run of either.

litert-torch, ai-edge-quantizer and ai-edge-litert pin packages that nothing else here wants: they
live in an environment of their own (``make litert``), in which this package and its command line
run as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..errors import ExportError, InputError, MissingExtraError
from ..files import replacing
from . import installed
from .litert_recipes import INT8, LiteRTRecipe, blocks_of, find_recipe, quantizer_rules, scoped
from .module import as_tuple
from .quiet import FAILURES, first_line, hushed, uninterrupted

PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert")
# Above this many bytes constants are handled lazily: slower folding, half the memory.
LARGE = 1 << 30
# ai-edge-quantizer 0.10 fails on convolutions of more float32 bytes; they stay float.
QUANTIZER_LIMIT = 32 << 20


def _require(module: str, purpose: str) -> ModuleType:
    try:
        with hushed(), uninterrupted():
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, purpose) from error


def require_packages() -> None:
    """Refuse, before any work, an environment that lacks LiteRT.

    Raises:
        MissingExtraError: naming the first package that is missing.
    """
    for module in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"):
        if importlib.util.find_spec(module) is None:
            raise _missing(module, "exporting to LiteRT")


def _missing(module: str, purpose: str) -> MissingExtraError:
    package = module.split(".")[0].replace("_", "-")
    return MissingExtraError(
        package, "litert", f"{purpose} (in an environment of its own: `make litert`)"
    )


def versions() -> dict[str, str]:
    """Versions of the packages that make and run the files, where installed."""
    return installed.versions(PACKAGES)


class _Named(nn.Module):
    """Gives a module, its inputs and outputs names, which the file keeps."""

    def __init__(self, module: nn.Module, outputs: Sequence[str], name: str):
        super().__init__()
        self.name, self.outputs = name, tuple(outputs)
        self.add_module(name, module)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs in the order given."""
        found = as_tuple(self.get_submodule(self.name)(*inputs.values()))
        return dict(zip(self.outputs, found, strict=True))


def convert(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    name: str = "model",
) -> Path:
    """A module as a float32 ``.tflite`` file, of any size.

    Args:
        module: takes ``inputs`` in their order, gives ``outputs``.
        inputs: name to an example.
        outputs: names.
        path: of the file; appears whole or not at all.
        name: of the module in the network; operators' names, and so exceptions, begin with it.

    Raises:
        MissingExtraError: without litert-torch.
        ExportError: when the converter fails.
        OutputError: when the file cannot be written.
    """
    litert_torch = _require("litert_torch", "exporting to LiteRT")
    importlib.import_module("litert_torch._config").config.show_progress = False
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    with replacing(path) as temporary, hushed():
        try:
            converted = litert_torch.convert(
                _Named(module, outputs, name).eval(),
                sample_kwargs=dict(inputs),
                lightweight_conversion=size > LARGE,
            )
            converted.export(str(temporary))
        except FAILURES as error:
            raise ExportError(f"LiteRT's converter failed: {first_line(error)}") from error
    return path


def quantize(
    source: Path,
    path: Path,
    recipe: str,
    *,
    exceptions: Mapping[str, str] | None = None,
    inputs: Sequence[Mapping[str, np.ndarray]] = (),
    threads: int = 2,
) -> Path:
    """A float32 ``.tflite`` file in another precision.

    Args:
        source: the float32 file.
        path: of the new file; appears whole or not at all.
        recipe: a name from ``litert_recipes.RECIPES``.
        exceptions: layer path to the recipe it gets instead; see ``quantizer_rules``.
        inputs: examples by name, for recipes that measure ranges.
        threads: for measuring ranges.

    Raises:
        MissingExtraError: without ai-edge-quantizer.
        InputError: an unknown recipe or exception, or no examples where ranges are measured.
        ExportError: when the quantizer fails.
    """
    chosen = check_recipe(recipe, bool(inputs))
    rules = quantizer_rules(chosen, exceptions)
    module = _require("ai_edge_quantizer.quantizer", "quantizing for LiteRT")
    large, odd = _exceptional_layers(source, blocks_of(rules))
    # A row that is no multiple of the block stays int8, as a convolution does.
    rules += [rule for name in odd for rule in scoped((INT8,), _exactly(name))]
    rules += [rule for name in large for rule in scoped((), _exactly(name))]
    with replacing(path) as temporary, hushed():
        # The quantizer makes executable files; keep the mode of any new file.
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            quantizer = module.Quantizer(str(source))
            quantizer.load_quantization_recipe(rules)
            measured = None
            if chosen.needs_pictures:
                examples = {"serving_default": list(inputs)}
                measured = quantizer.calibrate(examples, num_threads=threads)
            quantizer.quantize(
                measured, serialize_to_path=str(temporary), enable_progress_report=False
            )
            temporary.chmod(mode)
        except FAILURES as error:
            raise ExportError(f"LiteRT's quantizer failed: {first_line(error)}") from error
    return path


def check_recipe(recipe: str, has_pictures: bool) -> LiteRTRecipe:
    """A recipe by its name.

    Raises:
        InputError: an unknown one, or one that measures ranges without pictures to measure on.
    """
    chosen = find_recipe(recipe)
    if chosen.needs_pictures and not has_pictures:
        raise InputError(
            f"recipe {recipe} measures the ranges of activations: give a folder of pictures like "
            "those the network will see (--calibration)"
        )
    return chosen


class LiteRTRunner:
    """A ``.tflite`` file on this machine's CPU, through the kernels a phone's CPU uses.

    Takes and gives float32, whatever the file's inputs and outputs are: those of a static recipe
    are integers, which are scaled here as an app would.

    Attributes
        inputs, outputs   name to ``Port``: shape, type and scale in the file.
    """

    def __init__(self, path: Path, threads: int = 2):
        """Load a file.

        Raises:
            MissingExtraError: without ai-edge-litert.
            ExportError: when it cannot be loaded.
        """
        module = _require("ai_edge_litert.interpreter", "running a .tflite file")
        with hushed():
            try:
                self._interpreter = module.Interpreter(str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
                self._run = self._interpreter.get_signature_runner()
            except (RuntimeError, ValueError) as error:
                raise ExportError(f"{path} cannot be loaded: {first_line(error)}") from error
        self.inputs = _ports(self._run.get_input_details())
        self.outputs = _ports(self._run.get_output_details())

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run once on float32 inputs by their names.

        Raises:
            ExportError: an input of another shape, or a kernel that fails.
        """
        given = {}
        for name, value in inputs.items():
            port = self.inputs.get(name)
            if port is None or port.shape != value.shape:
                wanted = ", ".join(f"{n} {p.shape}" for n, p in self.inputs.items())
                raise ExportError(f"input {name} {value.shape}: the file takes {wanted}")
            # A strided array would be read as if it were not.
            given[name] = np.ascontiguousarray(port.encode(value))
        try:
            found = self._run(**given)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT failed: {first_line(error)}") from error
        return {name: self.outputs[name].decode(value) for name, value in found.items()}

    def operators(self) -> dict[str, int]:
        """How often each operator occurs, those a delegate took over included."""
        counts: dict[str, int] = {}
        for operator in self._interpreter._get_ops_details():
            name = operator["op_name"]
            if name != "DELEGATE":
                counts[name] = counts.get(name, 0) + 1
        return counts


def _exactly(name: str) -> str:
    return rf"^{re.escape(name)};?$"


def _exceptional_layers(path: Path, block: int) -> tuple[list[str], list[str]]:
    """Names of the convolutions too large for the quantizer, and of the linears whose number of
    inputs the block does not divide.
    """
    module = _require("ai_edge_litert.interpreter", "reading a .tflite file")
    with hushed():
        # Without kernels, which would pack a second copy of all weights.
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = module.Interpreter(str(path), experimental_op_resolver_type=plain)
    tensors = {entry["index"]: entry for entry in interpreter.get_tensor_details()}
    large, odd = [], []
    for operator in interpreter._get_ops_details():
        if operator["op_name"] not in ("CONV_2D", "FULLY_CONNECTED"):
            continue
        shape = tensors[operator["inputs"][1]]["shape"]
        name = tensors[operator["outputs"][0]]["name"]
        if len(shape) > 2 and 4 * int(np.prod(shape)) > QUANTIZER_LIMIT:
            large.append(name)
        elif len(shape) == 2 and shape[-1] % block:
            odd.append(name)
    return large, odd


@dataclass(frozen=True)
class Port:
    """One input or output of a file; ``value = scale * (stored - zero)`` where it is integer."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero: int

    def encode(self, value: np.ndarray) -> np.ndarray:
        """Float32 to what the file takes."""
        if self.dtype == "float32":
            return value.astype(np.float32, copy=False)
        info = np.iinfo(self.dtype)
        return np.clip(np.rint(value / self.scale) + self.zero, info.min, info.max).astype(
            self.dtype
        )

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """What the file gives to float32."""
        if self.dtype == "float32":
            return stored
        return ((stored.astype(np.float32) - self.zero) * self.scale).astype(np.float32)


def _ports(details: Mapping[str, Any]) -> dict[str, Port]:
    return {
        name: Port(
            tuple(int(n) for n in entry["shape"]),
            np.dtype(entry["dtype"]).name,
            float(entry["quantization"][0]),
            int(entry["quantization"][1]),
        )
        for name, entry in details.items()
    }
