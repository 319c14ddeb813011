"""The methods as data: which parts of the mathematics each one uses.

A method never changes a recipe: whether inputs are rotated is the scheme's affair (``-hadamard``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Method:
    """How integers are found.

    Fields
        name              in reports.
        data              whether it looks at pictures.
        search            search for weight steps that clip (MSE and OCTAV); else min-max.
        fold              rotate attention's values where that folds into weights (``rotate``).
        smoothing         "", "max" (SmoothQuant) or "mean" (AWQ).
        exponent          of the smoothing; searched when None.
        patches_only      leave special tokens out of the smoothing's statistics.
        activation_clip   search the share of each token's range that is kept.
        gptq              round jointly.
        bias              take the mean error of a layer's output off its bias.
        epochs            of block-wise training; 0 for none.
        train_gains, train_weight_clips, train_activation_clips
                          what is trained.
        task              choose exponents by what comes out of the heads (``task_scale``).
        propagate         inputs of a block come from the quantized blocks before it.
    """

    name: str
    data: bool = True
    search: bool = True
    fold: bool = False
    smoothing: str = ""
    exponent: float | None = None
    patches_only: bool = False
    activation_clip: bool = False
    gptq: bool = False
    bias: bool = False
    epochs: int = 0
    train_gains: bool = True
    train_weight_clips: bool = True
    train_activation_clips: bool = True
    task: bool = False
    propagate: bool = True


METHODS = {
    method.name: method
    for method in (
        Method("minmax", data=False, search=False),
        Method("nearest", data=False),
        Method("smooth", smoothing="max"),
        Method("awq", smoothing="mean"),
        Method("clip", activation_clip=True),
        Method("gptq", gptq=True),
        Method("bias", bias=True),
        Method("qvggt", smoothing="mean", patches_only=True, task=True),
        Method("quantvggt", smoothing="max", epochs=15, propagate=False),
        Method("auto", fold=True, smoothing="max", activation_clip=True, gptq=True, bias=True),
    )
}


def method_of(name: str | Method, **changes: Any) -> Method:
    """A method by its name, with fields changed.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(name, Method):
        return replace(name, **changes)
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: use {', '.join(METHODS)}")
    return replace(METHODS[name], **changes)
