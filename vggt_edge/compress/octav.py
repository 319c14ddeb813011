"""The clipping of least expected error, without a search.

A grid of B bits that reaches to c has steps of about c / 2^(B-1). Values inside lose at most half a
step, noise of power ``c^2 4^-B / 3``; values outside lose |w| - c. The sum

    J(c) = 4^-B / 3 c^2 P(|w| <= c)  +  E[(|w| - c)^2 ; |w| > c]

has its minimum where Newton's recursion stands still (OCTAV, Sakr et al., "Optimal Clipping and
Magnitude-aware Differentiation for Improved Quantization-aware Training", ICML 2022):

    c' = E[|w| ; |w| > c] / ( 4^-B / 3 P(0 < |w| <= c) + P(|w| > c) ).
"""

from __future__ import annotations

from torch import Tensor

ITERATIONS = 8


def octav(weight: Tensor, bits: int) -> Tensor:
    """(rows,) values up to which the integers shall reach, for (rows, width) weights."""
    magnitude = weight.abs()
    largest = magnitude.amax(1).clamp(min=1e-12)
    reach = magnitude.mean(1).clamp(min=1e-12)
    noise = 4.0**-bits / 3
    for _ in range(ITERATIONS):
        outside = magnitude > reach[:, None]
        above = outside.sum(1)
        below = magnitude.shape[1] - above
        reach = (magnitude * outside).sum(1) / (noise * below + above)
        reach = reach.clamp(min=1e-12).minimum(largest)
    return reach
