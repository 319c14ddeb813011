"""A factor per input channel that moves range from activations, where it hurts, into weights.

    x W^T = (x * g) (W / g)^T        g_j = |W_j|^(1 - a) / |X_j|^a

"max" takes maxima, |X_j| = max_t |x_tj| and |W_j| = max_n |w_nj|: the channel's ranges meet in the
middle at a = 1/2 (SmoothQuant, Xiao et al., ICML 2023). "mean" takes |X_j| = mean_t |x_tj| and
leaves the weights out: large inputs make their weights' errors count, so these weights get the
finer grid (AWQ, Lin et al., MLSys 2024). Both search the exponent a for the least error of the
output.
Behind a rotation X and W are the rotated ones (post-rotation smoothing, Feng et al., "QuantVGGT",
2025), which holds of itself here, as ``Problem`` holds rotated rows and weights.

Special tokens have magnitudes of their own; "mean" may leave them out (QVGGT, Pan et al., 2026).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layer import Choice, Problem, better, divided, importance
from .nearest import nearest

EXPONENTS = (0.25, 0.5, 0.75)
FINER = 0.125


def gain_of(problem: Problem, kind: str, exponent: float, patches_only: bool = False) -> Tensor:
    """(inputs,) float32 gain, of geometric mean 1.

    Args:
        problem: of the layer.
        kind: "max" or "mean".
        exponent: 0 looks at the weights alone ("max") or at nothing ("mean"), 1 at the inputs.
        patches_only: leave special tokens out of the inputs' statistics, where there are others.
    """
    rows = problem.rows
    if patches_only and bool(problem.patches.any()):
        rows = rows[problem.patches]
    if kind == "max":
        inputs, weights = rows.abs().amax(0), problem.weight.abs().amax(0).clamp(min=1e-5)
        # A channel of dead weights must not take the whole range.
        logarithm = (1 - exponent) * weights.log() - exponent * inputs.clamp(min=1e-5).log()
    else:
        logarithm = -exponent * rows.abs().mean(0).clamp(min=1e-5).log()
    return (logarithm - logarithm.mean()).clamp(-10, 10).exp()


def smoothed(
    problem: Problem, kind: str, exponent: float, search: bool = True, patches_only: bool = False
) -> Choice:
    """Rounding to the nearest behind a gain; arguments as ``gain_of`` and ``nearest``."""
    gain = gain_of(problem, kind, exponent, patches_only)
    codes = nearest(divided(problem, gain), problem.scheme, importance(problem, gain), search)
    return Choice(codes, gain, 1.0, f"{kind} {exponent:g}")


@torch.no_grad()
def smooth(
    problem: Problem,
    kind: str = "max",
    exponents: tuple[float, ...] = EXPONENTS,
    search: bool = True,
    patches_only: bool = False,
) -> Choice:
    """The exponent of least output error; no gain where none is better.

    Args:
        problem: of the layer.
        kind: "max" (SmoothQuant) or "mean" (AWQ).
        exponents: to try; then ``FINER`` to either side of the best.
        search: search for clipping steps of the weights as well.
        patches_only: leave special tokens out of the statistics.
    """
    plain = Choice(nearest(problem.weight, problem.scheme, importance(problem, None), search))
    tried = {a: smoothed(problem, kind, a, search, patches_only) for a in exponents}
    best = better(problem, *tried.values())
    middle = next(a for a, choice in tried.items() if choice is best)
    beside = (
        smoothed(problem, kind, a, search, patches_only) for a in (middle - FINER, middle + FINER)
    )
    return better(problem, plain, best, *beside)
