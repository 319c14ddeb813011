"""bf16 products on the CPU: tensors in and out of ``halves.c``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .build import address, has, library

# Fewer rows than this do not pay for turning the weights into panels.
LEAST_ROWS = 48


def _ours(*tensors: Tensor) -> bool:
    return not torch.compiler.is_compiling() and all(
        x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad)
        for x in tensors
    )


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether ``multiply`` takes this product: bf16, of a shape that suits, without gradients."""
    columns, width = weight.shape
    return (
        weight.dtype == torch.bfloat16
        and weight.stride(1) == 1
        and width % 32 == 0
        and columns % 16 == 0
        and x.numel() >= LEAST_ROWS * width
        and _ours(x, weight)
        and not torch.is_autocast_enabled("cpu")
        and has("multiply_halves")
    )


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, activate: bool = False) -> Tensor:
    """(..., width) times (columns, width) bf16, plus (columns,) bias, through a GELU if asked.

    Returns:
        (..., columns) bf16; products and GELU are float32 inside.

    Raises:
        MemoryError: when there is no room for a panel of 64 columns a thread.
    """
    columns, width = weight.shape
    shape = (*x.shape[:-1], columns)
    x = x.to(torch.bfloat16).reshape(-1, width)
    if x.stride(1) != 1:
        x = x.contiguous()
    if bias is not None and bias.dtype not in (torch.float32, torch.bfloat16):
        bias = bias.float()
    y = torch.empty(shape, dtype=torch.bfloat16)
    failed = library().multiply_halves(
        address(x),
        *map(ctypes.c_int64, (x.stride(0), len(x), width)),
        address(weight),
        *map(ctypes.c_int64, (weight.stride(0), columns)),
        address(bias),
        int(bias is not None and bias.dtype == torch.bfloat16),
        int(activate),
        address(y),
    )
    if failed:
        raise MemoryError("no memory for a panel of weights")
    return y


def adds(x: Tensor, y: Tensor, gain: Tensor) -> bool:
    """Whether ``add_scaled`` takes these: x float32, y bf16, alike in memory, without gradients."""
    return (
        x.dtype == torch.float32
        and y.dtype == torch.bfloat16
        and len(gain) % 16 == 0
        and x.is_contiguous()
        and y.is_contiguous()
        and _ours(x, y, gain)
        and has("add_scaled")
    )


def add_scaled(x: Tensor, y: Tensor, gain: Tensor, out: Tensor | None = None) -> Tensor:
    """``x + gain * y`` of (..., width) x and y and (width,) gain, in float32; ``out`` may be x."""
    out = torch.empty_like(x) if out is None else out
    width, gain = len(gain), gain.float()
    sizes = map(ctypes.c_int64, (x.numel() // width, width))
    library().add_scaled(address(x), address(y), address(gain), *sizes, address(out))
    return out
