"""What goes into every linear layer of a block, over all calibration scenes.

Linear layers see rows; where a row comes from matters twice. Inputs of global blocks are the S * P
tokens of a scene after attention over all of them, never those of single views. And camera and
register tokens, whose magnitudes are of another kind, are marked, so that statistics can be
reported and taken with or without them.

A layer keeps at most ``rows`` rows, drawn evenly from all scenes by a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .walk import CAMERA, Stage, Tokens, run


class LayerInputs(NamedTuple):
    """Rows that went into one linear layer.

    rows     (N, inputs) float32.
    special  (N,) bool: camera or register tokens.
    """

    rows: Tensor
    special: Tensor

    def magnitudes(self) -> dict[str, float]:
        """Largest absolute input of patch and of special tokens; 0 where there are none."""
        peak = self.rows.abs().amax(1)
        apart = {"patch": peak[~self.special], "special": peak[self.special]}
        return {name: float(part.max()) if len(part) else 0.0 for name, part in apart.items()}


class Collected(NamedTuple):
    """What a stage did.

    inputs   of each of its layers, by path.
    outputs  of the stage, one a scene.
    """

    inputs: dict[str, LayerInputs]
    outputs: list[Tensor]


def drawn(count: int, wanted: int, seed: int) -> Tensor:
    """Indices of ``wanted`` of ``count`` rows, in order; all of them if there are no more."""
    if count <= wanted:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:wanted].sort().values


@torch.no_grad()
def collect(
    model: nn.Module,
    stage: Stage,
    scenes: Sequence[Tokens],
    paths: Sequence[str],
    rows: int = 4096,
    seed: int = 0,
) -> Collected:
    """Run a stage on every scene and keep what went into its layers.

    Args:
        model: that the paths are of.
        stage: to run.
        scenes: tokens before it.
        paths: of linear layers inside the stage.
        rows: at most, of each layer, of all scenes together.
        seed: of the choice among rows.
    """
    caught: dict[str, list[Tensor]] = {path: [] for path in paths}
    marks: dict[str, list[Tensor]] = {path: [] for path in paths}
    share = max(1, rows // max(1, len(scenes)))

    def watch(path: str, index: int, tokens: Tokens) -> RemovableHandle:
        # The camera head runs its layers once for each refinement.
        times = model.get_submodule("camera_head").iterations if stage.kind == CAMERA else 1
        part = max(1, share // int(times))  # type: ignore[arg-type]

        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0].detach().flatten(0, -2)
            chosen = drawn(len(x), part, seed + index).to(x.device)
            caught[path].append(x[chosen].float())
            if stage.kind == CAMERA:
                marks[path].append(torch.ones_like(chosen, dtype=torch.bool))
            else:
                marks[path].append(chosen % tokens.x.shape[2] < tokens.special)

        return model.get_submodule(path).register_forward_pre_hook(hook)

    outputs = []
    for index, tokens in enumerate(scenes):
        handles = [watch(path, index, tokens) for path in paths]
        try:
            outputs.append(run(stage, tokens))
        finally:
            for handle in handles:
                handle.remove()
    inputs = {
        path: LayerInputs(torch.cat(caught[path]), torch.cat(marks[path]))
        for path in paths
        if caught[path]
    }
    return Collected(inputs, outputs)
