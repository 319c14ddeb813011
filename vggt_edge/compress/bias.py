"""The mean error of a layer's output, taken off its bias.

Rounded weights and clipped activations make errors that do not average out: inputs behind a GELU or
with strong channels have a mean, and what a weight lost times that mean is the same for every
token.

    b' = b + mean_t( z_t W^T - A(z_t g) V^T )

costs nothing while the network runs (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019). Of all constants it is the one of least squared error
on the calibration rows, so the layer's error cannot rise.
"""

from __future__ import annotations

from .layer import Choice, Problem, activations


def correct_bias(problem: Problem, choice: Choice) -> Choice:
    """The choice with the constant that its output lacks."""
    seen = activations(problem.rows, problem.scheme, choice.gain, choice.clip)
    shift = (problem.target - seen @ choice.codes.weight().T).mean(0)
    return choice._replace(shift=shift, note=f"{choice.note}, bias")
