"""The stages of a network as one ExecuTorch program: quantized, lowered, run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import stages
from .executorch import ExecuTorchRunner, Method, as_arrays, described_ports, lower, operators
from .executorch_recipes import ExecuTorchRecipe, quantize_convolutions, quantize_linears
from .exported import ExportedMethod
from .stages import Stage


@dataclass(frozen=True)
class Program:
    """A ``.pte``, the ``.ptd`` its weights are in if any, and what goes in and comes out.

    A network of one stage is the method ``forward``; several are methods by their names, each of
    which an app loads when it needs it.
    """

    path: Path
    weights: Path | None
    plan: tuple[Stage, ...]

    def run(
        self, images: Tensor, threads: int = 2, profile: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Run all methods on (V, 3, H, W) float32 images in [0, 1]; every named tensor.

        ``profile`` is a file for what each part of the run took, as etdump.

        Raises:
            ExportError: a kernel that fails.
            OutputError: a profile that cannot be written.
        """
        runner = ExecuTorchRunner(self.path, self.weights, threads, profile is not None)

        def call(stage: Stage, inputs: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            given = [torch.from_numpy(value) for value in inputs.values()]
            found = as_arrays(runner(*given, method=method_of(self.plan, stage)))
            return dict(zip(stage.outputs, found, strict=True))

        found = stages.run(self.plan, call, images.numpy())
        if profile is not None:
            runner.write_profile(profile)
        return found

    def methods(self) -> dict[str, ExportedMethod]:
        """What each method takes, gives and is made of, in the order they run."""
        described, counted = described_ports(self.path), operators(self.path)
        found = {}
        for stage in self.plan:
            name = method_of(self.plan, stage)
            ins, outs = described[name]
            taken = dict(zip(stage.inputs, ins, strict=True))
            given = dict(zip(stage.outputs, outs, strict=True))
            found[name] = ExportedMethod(stage.name, taken, given, counted[name])
        return found


def method_of(plan: Sequence[Stage], stage: Stage) -> str:
    """Name of a stage's method."""
    return "forward" if len(plan) == 1 else stage.name


def build(
    plan: Sequence[Stage],
    recipe: ExecuTorchRecipe,
    values: Mapping[str, Tensor],
    samples: Sequence[Mapping[str, Tensor]],
    path: Path,
    weights: Path | None,
    notify: Callable[[str], None],
    delegate: str = "XnnpackBackend",
) -> Program:
    """Quantize stages, in place, and lower them to one program.

    Args:
        plan: from ``stages``.
        recipe: of its linears and convolutions.
        values: an example of every tensor between stages.
        samples: the same tensors for pictures, for recipes that measure ranges.
        path: of the ``.pte``.
        weights: of a ``.ptd`` that gets the weights instead.
        notify: receives the name of each step as it begins.
        delegate: what takes the graphs over; a name of ``executorch_delegates.DELEGATES``.

    Raises:
        MissingExtraError, ExportError, OutputError: see ``lower``.
    """
    if recipe.rules or recipe.static_convolutions:
        notify("quantize")
    made = []
    for stage in plan:
        # Rules are about paths in the network; a stage of it is one part.
        part = {"encoder": "encoder", "depth": "depth", "camera": "camera"}.get(
            stage.name, "" if stage.name == "model" else "trunk"
        )
        quantize_linears(stage.module, recipe, part)
        if recipe.static_convolutions:
            examples = [tuple(sample[name] for name in stage.inputs) for sample in samples]
            stage = replace(stage, module=quantize_convolutions(stage.module, examples))
        made.append(stage)
    notify("convert")
    methods = {
        method_of(plan, stage): Method(stage.module, tuple(values[n] for n in stage.inputs))
        for stage in made
    }
    lower(methods, path, weights, delegate, half=recipe.weight_bits == 16)
    return Program(path, weights, tuple(plan))
