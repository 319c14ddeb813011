"""How much of each token's range the activations keep.

Integers of B bits over a share c of the range have steps of c (max - min) / (2^B - 1). At 4 bits a
smaller c is often worth the few values it clips. There is one c a layer, the one of least error of
the layer's *output* on calibration rows: what an outlier is worth depends on the weights it meets,
which the error of the activations themselves does not know. The error falls and then rises with c:
the search goes down from 1 until it rises.
"""

from __future__ import annotations

from .layer import Choice, Problem, output_error

RATIOS = (1.0, 0.98, 0.95, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5)


def clip_activations(problem: Problem, choice: Choice) -> Choice:
    """The choice with the best of ``RATIOS``; itself where activations are not integers."""
    if problem.scheme.fp8 or problem.scheme.activation_bits == 16:
        return choice
    best, least = choice, float("inf")
    for ratio in RATIOS:
        candidate = choice._replace(clip=ratio)
        error = output_error(problem, candidate)
        if error > least:
            break
        best, least = candidate, error
    return best if best.clip == 1 else best._replace(note=f"{choice.note}, clip {best.clip:g}")
