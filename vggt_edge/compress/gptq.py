"""Rounding one input after the other, the rest making good for each error.

With H = Z^T Z of the activations Z as the layer sees them, the output error of weight errors D is
``tr(D H D^T)``. When column j is rounded, the least increase is had by moving the columns still to
come by ``-(w_j - q_j) / U_jj * U_j,j+1:``, U the upper Cholesky factor of H^-1 (GPTQ, Frantar et
al., ICLR 2023; the order is by falling H_jj, as the authors' "act-order").

The grid is fixed beforehand by ``nearest.grid_of`` with diag(H) as importance: a group's integer
multiplier belongs to the row's scale, and a grid found group by group while weights move would not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..recipe import Scheme
from .layer import Choice, Problem, activations, divided, importance
from .nearest import Codes, Grid, bounds, grid_of

BLOCK = 128
DAMPING = 0.01


def _rounded(weight: Tensor, step: Tensor, scheme: Scheme) -> Tensor:
    """(outputs,) codes of one column, as floats."""
    if scheme.fp8:
        return (weight / step).to(torch.float8_e4m3fn).float()
    return (weight / step).round().clamp(*bounds(scheme.weight_bits))


def round_jointly(weight: Tensor, hessian: Tensor, scheme: Scheme, grid: Grid) -> Codes:
    """Codes of (outputs, inputs) weights on a grid, for (inputs, inputs) ``Z^T Z``."""
    inputs = weight.shape[1]
    hessian = hessian.double()
    diagonal = hessian.diagonal()
    mean = diagonal.mean().clamp(min=1e-12)
    order = diagonal.argsort(descending=True)
    hessian = hessian[order][:, order] + DAMPING * mean * torch.eye(inputs).to(hessian)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    weight, steps = weight[:, order], grid.steps(inputs)[:, order]
    codes = torch.empty_like(weight)
    for start in range(0, inputs, BLOCK):
        stop = min(start + BLOCK, inputs)
        errors = torch.empty_like(weight[:, start:stop])
        for j in range(start, stop):
            codes[:, j] = _rounded(weight[:, j], steps[:, j], scheme)
            error = (weight[:, j] - codes[:, j] * steps[:, j]) / upper[j, j]
            weight[:, j + 1 : stop] -= error[:, None] * upper[j, j + 1 : stop]
            errors[:, j - start] = error
        weight[:, stop:] -= errors @ upper[start:stop, stop:]
    restored = torch.empty_like(codes)
    restored[:, order] = codes
    kind = torch.float8_e4m3fn if scheme.fp8 else torch.int8
    return Codes(restored.to(kind), *grid)


@torch.no_grad()
def gptq(problem: Problem, start: Choice, grid: Grid | None = None) -> Choice:
    """GPTQ behind the gain and with the activation clip of another choice.

    Args:
        problem: of the layer.
        start: whose gain and clip are kept.
        grid: of the weights behind the gain; searched when None.
    """
    seen = activations(problem.rows, problem.scheme, start.gain, start.clip)
    weight = divided(problem, start.gain)
    if grid is None:
        grid = grid_of(weight, problem.scheme, importance(problem, start.gain))
    codes = round_jointly(weight, seen.T @ seen, problem.scheme, grid)
    return start._replace(codes=codes, note=f"{start.note}, gptq")
