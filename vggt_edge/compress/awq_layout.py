"""AWQ's packed 4-bit weights (llm-awq's "new" CUDA layout), as QVGGT's files hold them.

A layer of N outputs and K inputs is stored as

    qweight       (N / 4, K) int16, each of four codes from 0 to 15
    scales        (G', N) float16, one row for each group of inputs, padded with zeros
    scaled_zeros  (G', N) float16, minus scale times zero point

and stands for ``w[n, k] = scales[k / group, n] * code[n, k] + scaled_zeros[k / group, n]``. Four
outputs and 64 inputs share a tile; inside it the codes are in the order the kernel reads them.
Lin et al., "AWQ", 2024; https://github.com/mit-han-lab/llm-awq.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, COLUMNS = 4, 64  # of a tile
GROUPS = (128, 64, 32)


def unpack(qweight: Tensor) -> Tensor:
    """(N / 4, K) int16 to (N, K) int8 codes from 0 to 15.

    Raises:
        ValueError: another type, or a shape that is no whole number of tiles.
    """
    if qweight.ndim != 2 or qweight.dtype != torch.int16 or qweight.shape[1] % COLUMNS:
        raise ValueError(f"qweight of {tuple(qweight.shape)} {qweight.dtype} is no AWQ weight")
    quarter, width = qweight.shape
    words = qweight.to(torch.int32) & 0xFFFF
    codes = torch.stack([(words >> shift) & 15 for shift in (0, 4, 8, 12)], dim=-1)
    # Tiles back to rows: the codes of a tile run through its four rows, one after the other.
    codes = codes.view(quarter, width // COLUMNS, ROWS, COLUMNS).transpose(1, 2)
    codes = codes.reshape(quarter * ROWS, width // 32, 4, 2, 4)
    # Eight neighbours were dealt out even and odd; before that, pairs of four stretches of eight.
    codes = codes.transpose(3, 4).reshape(-1, width // 32, 4, 4, 2)
    return codes.transpose(2, 3).reshape(-1, width).to(torch.int8)


def scale_rows(width: int, group: int) -> int:
    """Rows that scales are padded to."""
    multiple = {128: 1, 64: 2, 32: 4}[group]
    words = -(-(width // group) // 8)
    return -(-words // multiple) * multiple * 8


def dequantize(qweight: Tensor, scales: Tensor, scaled_zeros: Tensor) -> tuple[Tensor, int]:
    """(N, K) float32 weights, exactly what the file says, and the size of its groups.

    Raises:
        ValueError: shapes that do not belong together.
    """
    codes = unpack(qweight)
    outputs, width = codes.shape
    shape = tuple(scales.shape)
    fitting = [g for g in GROUPS if width % g == 0 and shape == (scale_rows(width, g), outputs)]
    if not fitting or shape != tuple(scaled_zeros.shape):
        raise ValueError(
            f"scales of {shape} and zeros of {tuple(scaled_zeros.shape)} do not belong to a "
            f"weight of {outputs}x{width} with groups of {', '.join(map(str, GROUPS))}"
        )
    group = fitting[0]
    count = width // group
    step = scales[:count].float().t().repeat_interleave(group, dim=1)
    zero = scaled_zeros[:count].float().t().repeat_interleave(group, dim=1)
    return codes * step + zero, group
