"""Attention on the CPU: tensors in and out of ``attention.c``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .build import address, has, library

WIDTH = 64  # of a head


def runs(x: Tensor) -> bool:
    """Whether the kernels take heads like these: bf16, 64 wide, on this CPU, without gradients."""
    return (
        x.dtype == torch.bfloat16
        and x.shape[-1] == WIDTH
        and x.device.type == "cpu"
        and not x.requires_grad
        and not torch.compiler.is_compiling()
        and has("attend")
    )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, N, 64) bf16 queries, keys and values.

    Returns:
        (B, heads, queries, 64), laid out so that joining the heads copies nothing.

    Raises:
        MemoryError: when there is no room for one head's keys and values a thread.
    """
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, queries, _ = q.shape
    steps = [x.stride(axis) for x in (q, k, v) for axis in range(3)]
    strides = (ctypes.c_int64 * 9)(*steps)
    y = torch.empty(batch, queries, heads, WIDTH, dtype=torch.bfloat16)
    sizes = map(ctypes.c_int64, (batch, heads, queries, k.shape[2]))
    if library().attend(address(q), address(k), address(v), strides, *sizes, address(y)):
        raise MemoryError("no memory for the keys and values of a head")
    return y.transpose(1, 2)


def turn(
    x: Tensor,
    heads: int,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float,
    tables: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Heads of (B, tokens, heads * 64) bf16, normalised and turned by position in float32.

    Args:
        x: queries or keys, heads side by side.
        heads: how many.
        gain, shift: (64,) float32 of the norm, or None for no norm.
        eps: of the norm.
        tables: cosines and sines (period, 64) float32, for token n in row n % period; or None.

    Returns:
        (B, heads, tokens, 64) bf16.
    """
    batch, tokens, _ = x.shape
    if x.stride(2) != 1 or (batch > 1 and x.stride(0) != tokens * x.stride(1)):
        x = x.contiguous()
    y = torch.empty(batch, heads, tokens, WIDTH, dtype=torch.bfloat16)
    cosine, sine = tables if tables is not None else (None, None)
    library().turn(
        address(x),
        ctypes.c_int64(x.stride(1)),
        *map(ctypes.c_int64, (batch, tokens, heads)),
        address(gain),
        address(shift),
        ctypes.c_float(eps),
        address(cosine),
        address(sine),
        ctypes.c_int64(1 if cosine is None else len(cosine)),
        address(y),
    )
    return y
