"""One layer's problem: weights, what goes in, and what a choice of integers makes of it.

With z the inputs behind the rotation, W the weights behind it, g the gain, A the rounding of
activations with a share ``clip`` of each token's range, and V what the weight codes stand for, the
layer computes ``A(z * g) V^T`` for ``z W^T``. The error of a choice is

    E = |z W^T - A(z * g) V^T|^2 / |z W^T|^2

over the calibration rows: 0.01 is a signal-to-noise ratio of 20 dB. Every layer-wise method
minimises it, each over other unknowns, and starts from rounding to the nearest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..model.backends import token_integers
from ..model.layers import Linear
from ..model.quantized import hadamard_signs, rotate, seed_of
from ..recipe import Scheme
from .apply import behind
from .calibration import LayerInputs
from .nearest import FP8_MAX, Codes, nearest


class Problem(NamedTuple):
    """What has to be solved.

    path     of the layer.
    scheme   its precision.
    weight   (outputs, inputs) float32, behind the rotation.
    rows     (N, inputs) float32 inputs, behind the rotation.
    patches  (N,) bool: rows of patch tokens, not of camera or register tokens.
    target   (N, outputs) float32, what the float layer makes of the rows, without bias.
    """

    path: str
    scheme: Scheme
    weight: Tensor
    rows: Tensor
    patches: Tensor
    target: Tensor


class Choice(NamedTuple):
    """An answer.

    codes  of ``weight / gain``.
    gain   (inputs,) factors on the rotated inputs, or None.
    clip   share of each token's range that is kept.
    note   how it was found, for the report.
    shift  (outputs,) to add to the bias, or None.
    """

    codes: Codes
    gain: Tensor | None = None
    clip: float = 1.0
    note: str = "nearest"
    shift: Tensor | None = None


def make_problem(path: str, scheme: Scheme, linear: Linear, inputs: LayerInputs) -> Problem:
    """The problem of a float layer and its inputs."""
    weight = behind(linear.weight.detach(), scheme, path)
    rows = inputs.rows.float()
    if scheme.hadamard:
        rows = rotate(rows, hadamard_signs(rows.shape[1], seed_of(path)).to(rows.device))
    return Problem(path, scheme, weight, rows, ~inputs.special, rows @ weight.T)


def activations(rows: Tensor, scheme: Scheme, gain: Tensor | None, clip: float) -> Tensor:
    """(N, inputs) float32 that the layer really multiplies: scaled, then rounded token by token."""
    if gain is not None:
        rows = rows * gain
    if scheme.fp8:
        step = (rows.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=1e-12)
        return (rows / step).to(torch.float8_e4m3fn).float() * step
    if scheme.activation_bits == 16:
        return rows
    codes, step, zero = token_integers(rows, scheme.activation_bits, torch.tensor(clip))
    return (codes - zero).float() * step


def importance(problem: Problem, gain: Tensor | None) -> Tensor:
    """(inputs,) mean square of each input behind the gain: what a weight's error costs."""
    square = problem.rows.square().mean(0)
    return square if gain is None else square * gain.square()


def divided(problem: Problem, gain: Tensor | None) -> Tensor:
    """(outputs, inputs) weights behind the gain."""
    return problem.weight if gain is None else problem.weight / gain


def output_error(problem: Problem, choice: Choice) -> float:
    """Relative squared error of the layer's output; see above."""
    seen = activations(problem.rows, problem.scheme, choice.gain, choice.clip)
    lost = (seen @ choice.codes.weight().T).sub_(problem.target)
    if choice.shift is not None:
        lost += choice.shift
    return float(lost.square_().sum() / problem.target.square().sum().clamp(min=1e-30))


def simplest(problem: Problem, search: bool = True) -> Choice:
    """Rounding to the nearest without looking at the inputs: what every method starts from."""
    return Choice(nearest(problem.weight, problem.scheme, search=search))


def better(problem: Problem, *choices: Choice) -> Choice:
    """The choice of least output error, the first of equals."""
    return min(choices, key=lambda choice: output_error(problem, choice))
