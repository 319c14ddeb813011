"""Position tables: pure functions of (rows, cols), so that an exporter sees constants.

Rotary embedding in two dimensions (Su et al. 2021; axial form). A head of width d is cut in half:
the first half turns with the token's row, the second with its column. Within a half, channel i is
paired with channel i + d/4 and the pair is rotated by ``position * base^(-4 i / d)``.
Special tokens sit at position 0, patches at 1 + (row, column).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import TokenLayout

BASE_FREQUENCY = 100.0


def rotary_tables(
    layout: TokenLayout, head_width: int, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, sin), each (per_view, head_width) float32, for the tokens of one view in order."""
    half = head_width // 2
    exponents = torch.arange(0, half, 2, device=device, dtype=torch.float32) / half
    frequencies = 1.0 / BASE_FREQUENCY**exponents
    rows = torch.arange(1, layout.rows + 1, device=device, dtype=torch.float32)
    cols = torch.arange(1, layout.cols + 1, device=device, dtype=torch.float32)
    special = torch.zeros(layout.special, device=device)
    row_of = torch.cat([special, rows[:, None].expand(layout.rows, layout.cols).reshape(-1)])
    col_of = torch.cat([special, cols[None, :].expand(layout.rows, layout.cols).reshape(-1)])
    angles = torch.cat(
        [
            row_of[:, None] * frequencies,
            row_of[:, None] * frequencies,
            col_of[:, None] * frequencies,
            col_of[:, None] * frequencies,
        ],
        dim=-1,
    )
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (..., tokens, head_width) by tables that broadcast against it."""
    a, b, c, d = x.chunk(4, dim=-1)
    return x * cos + torch.cat([-b, a, -d, c], dim=-1) * sin
