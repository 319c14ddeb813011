"""A rewritten network in stages, for targets whose graphs are limited and apps that load in parts.

    images -> encoder -> patches -> trunk -> tap0 .. tap3 -> depth -> depth, confidence
                                          -> camera_tokens -> camera -> pose

A trunk that is too large is cut between pairs of blocks; the token matrix goes from piece to piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from ..errors import ExportError
from .module import as_tuple
from .reauthor import Rewritten

Array = TypeVar("Array")


@dataclass(frozen=True)
class Stage:
    """A module with named tensors in and out."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def part(self) -> str:
        """Path in the rewrite of what it is, or is a piece of; "model" is the whole."""
        return self.name.rstrip("0123456789")


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def size_of(stage: Stage) -> int:
    """Bytes of its weights and tables in float32."""
    return _bytes(stage.module)


def whole(rewritten: Rewritten) -> list[Stage]:
    """The network as one stage."""
    return [Stage("model", rewritten, ("images",), rewritten.outputs)]


def split(rewritten: Rewritten, limit: int | None = None, weight_bits: int = 32) -> list[Stage]:
    """Encoder, trunk in as many pieces as needed, and heads.

    Args:
        rewritten: from ``reauthor``.
        limit: bytes of weights a stage may hold, None for any.
        weight_bits: what its float32 weights will be stored in.

    Raises:
        ExportError: when a single part is larger than the limit.
    """
    trunk = rewritten.trunk
    room = float("inf") if limit is None else limit * 32 / weight_bits
    stages = [Stage("encoder", rewritten.encoder, ("images",), ("patches",))]
    start, source = 0, "patches"
    while start < trunk.depth:
        stop = start + 1
        while stop < trunk.depth and _bytes(trunk.piece(start, stop + 1)) <= room:
            stop += 1
        piece = trunk.piece(start, stop)
        alone = start == 0 and stop == trunk.depth
        name = "trunk" if alone else f"trunk{start}"
        stages.append(Stage(name, piece, (source,), piece.output_names))
        start, source = stop, f"tokens{stop}"
    if rewritten.dense:
        taps = tuple(f"tap{index}" for index in range(4))
        dense = ("depth", "confidence") if rewritten.depth.confidence else ("depth",)
        stages.append(Stage("depth", rewritten.depth, taps, dense))
    if rewritten.cameras:
        stages.append(Stage("camera", rewritten.camera, ("camera_tokens",), ("pose",)))
    for stage in stages:
        if size_of(stage) > room:
            size = size_of(stage) * weight_bits / 32e6
            raise ExportError(
                f"stage {stage.name} alone has {size:.1f} MB of weights, more than the "
                f"{(limit or 0) / 1e6:.1f} MB of a graph; use a recipe of fewer bits"
            )
    return stages


def run(
    stages: Sequence[Stage],
    call: Callable[[Stage, dict[str, Array]], Mapping[str, Array]],
    images: Array,
) -> dict[str, Array]:
    """Run stages one after the other; every named tensor that came up.

    ``call`` runs one stage on its inputs; tensors are whatever it takes and gives.
    """
    values = {"images": images}
    for stage in stages:
        values.update(call(stage, {name: values[name] for name in stage.inputs}))
    return values


def call_torch(stage: Stage, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a stage in torch, for ``run``."""
    found = as_tuple(stage.module(*inputs.values()))
    return dict(zip(stage.outputs, found, strict=True))
