"""Measure sensitivity: quantize one layer or block in place, score all scenes, put the floats back.

Block-wise sensitivity for selective mixed precision is QVGGT's (Pan et al., 2026).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ..errors import InputError, RecipeError
from ..model.identity import identity_of
from ..model.layers import Linear
from ..model.quantized import schemes
from ..model.quantized_conv import conv_scheme, conv_schemes
from ..model.swap import place
from ..model.vggt import VGGT
from ..recipe import Recipe, Scheme
from .apply import behind, quantized, quantized_conv
from .damage import Case, Judge
from .nearest import nearest
from .sensitivity import KINDS, Score, Sensitivity, read, write

_BLOCK = re.compile(r"(.*?\.(?:blocks|frame_blocks|global_blocks|trunk)\.\d+)\.")

Quantize = Callable[[nn.Module, str, Scheme], nn.Module]
"""A float layer, its path and a scheme to the layer that takes its place."""


def rounded(layer: nn.Module, path: str, scheme: Scheme) -> nn.Module:
    """A linear layer or a convolution rounded to nearest, without data.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(layer, Linear):
        weight = behind(layer.weight.detach(), scheme, path)
        return quantized(layer, path, scheme, nearest(weight, scheme))
    own = conv_scheme(scheme)
    if own is None or not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        raise TypeError(f"{path} is {type(layer).__name__}, which {scheme.name} cannot hold")
    return quantized_conv(layer, own)


def precisions_of(model: VGGT, recipe: Recipe) -> dict[str, Scheme]:
    """Path of every layer a recipe quantizes, linear or convolution, with its scheme."""
    return schemes(model, recipe) | conv_schemes(model, recipe)


def block_of(path: str) -> str:
    """The transformer block a layer belongs to, or else the part of a head."""
    found = _BLOCK.match(path)
    return found[1] if found else ".".join(path.split(".")[:2])


def units_of(model: VGGT, scheme: Scheme, kind: str) -> dict[str, list[str]]:
    """Unit to the paths of its layers that can be held in a scheme.

    Args:
        model: a float network.
        scheme: the precision in question.
        kind: "layer" or "block".

    Raises:
        InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of unit {kind!r}: use {' or '.join(KINDS)}")
    found: dict[str, list[str]] = {}
    for path in precisions_of(model, Recipe(scheme.name)):
        found.setdefault(path if kind == "layer" else block_of(path), []).append(path)
    return found


@contextmanager
def compressed(
    model: VGGT, precisions: Mapping[str, Scheme], quantize: Quantize = rounded
) -> Iterator[None]:
    """Layers quantized for as long as the context lasts; then the same modules stand there again.

    Args:
        model: a float network.
        precisions: path of a layer to its precision meanwhile.
        quantize: makes a quantized layer of a float one.
    """
    before: dict[str, nn.Module] = {}
    try:
        for path, scheme in precisions.items():
            layer = model.get_submodule(path)
            device = next(layer.parameters()).device
            with torch.no_grad():
                packed = quantize(layer, path, scheme).to(device)
            before[path] = layer
            place(model, path, packed)
        yield
    finally:
        for path, layer in before.items():
            place(model, path, layer)


def scan(
    model: VGGT,
    cases: Sequence[Case],
    names: Sequence[str] = ("w4a8-g32",),
    *,
    kinds: Sequence[str] = KINDS,
    against: str = "teacher",
    file: str | Path | None = None,
    quantize: Quantize = rounded,
    progress: bool = False,
) -> Sensitivity:
    """Score every unit of a float network, one at a time.

    Args:
        model: from ``load``; afterwards it is exactly what it was.
        cases: scenes of one or more sets.
        names: schemes, such as "w4a8-g32" and "w8a8".
        kinds: "block", "layer" or both.
        against: "teacher" for the deviation from this network, "truth" for the loss of accuracy.
        file: where scores are kept as they come; the same call goes on where it was interrupted.
        quantize: makes a quantized layer of a float one.
        progress: show a bar for work over two seconds.

    Raises:
        RecipeError: the network is compressed already, or a scheme is "float" or holds no layer.
        InputError: nothing to score on, or ``file`` holds scores of something else.
        OutputError: ``file`` cannot be written.
    """
    if model.recipe is not None:
        raise RecipeError(f"sensitivity is of a float network; this one is {model.recipe.name}")
    wanted = []
    for name in names:
        scheme = Scheme.parse(name)
        if scheme is None:
            raise RecipeError("float costs nothing: name a scheme that compresses")
        for kind in kinds:
            units = units_of(model, scheme, kind)
            if not units:
                raise RecipeError(f"{name} matches no layer of this network that it can hold")
            wanted += [(unit, kind, scheme, paths) for unit, paths in units.items()]
    result = Sensitivity(
        identity_of(model),
        against,
        {case.name: case.group for case in cases},
        {case.name: len(case.views) for case in cases},
        {case.name: zlib.crc32(case.views.images.tobytes()) for case in cases},
    )
    done = _resumed(result, file)
    missing = [one for one in wanted if (one[0], one[1], one[2].name) not in done]
    if missing:
        judge = Judge(model, cases, against)
        bar = tqdm(
            missing, desc="sensitivity", unit="unit", delay=2, leave=False, disable=not progress
        )
        for unit, kind, scheme, paths in bar:
            with compressed(model, dict.fromkeys(paths, scheme), quantize):
                drops = judge.drops(model)
            done[unit, kind, scheme.name] = Score(unit, kind, scheme.name, tuple(paths), drops)
            if file is not None:
                write(_with(result, done), file)
    return _with(result, done)


def _resumed(result: Sensitivity, file: str | Path | None) -> dict[tuple[str, str, str], Score]:
    """Scores of an interrupted run of the same things."""
    if file is None or not Path(file).exists():
        return {}
    before = read(file)
    for field in ("model", "against", "cases", "views", "pixels"):
        if getattr(before, field) != getattr(result, field):
            what = {"model": "model", "against": "target"}.get(field, "scenes")
            raise InputError(
                f"{file} holds sensitivities of other {what}: choose another folder, or remove it"
            )
    return {(one.unit, one.kind, one.scheme): one for one in before.scores}


def _with(result: Sensitivity, done: dict[tuple[str, str, str], Score]) -> Sensitivity:
    return replace(result, scores=tuple(done.values()))
