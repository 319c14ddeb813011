"""What executes an integer product, and which of it this machine has.

avx512-vnni  our kernels: 8-bit and 4-bit weights, 8- and 4-bit activations (x86 CPUs)
onednn       torch's prepacked 8-bit product (x86 CPUs with VNNI, without a C compiler or AVX512)
int-mm       ``torch._int_mm``: 8-bit products on CUDA
scaled-mm    ``torch._scaled_mm``: fp8 on CUDA of compute capability 8.9 and up
expanded     weights expanded to floats while the layer runs, in any precision, anywhere; with
             integer activations this is exact but saves memory only, never time
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.build import available
from ..recipe import Scheme

EXPAND_ROWS = 1024  # outputs expanded at a time, which bounds memory


@functools.cache
def _onednn() -> bool:
    """Whether oneDNN's product is there, and exact.

    Without VNNI it adds pairs of unsigned times signed bytes in 16 bits, which saturate. What it
    uses depends on the CPU and on ONEDNN_MAX_CPU_ISA, so largest codes are multiplied and looked
    at.
    """
    if not (
        torch.backends.mkldnn.is_available()
        and "onednn" in torch.backends.quantized.supported_engines
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    ):
        return False
    weights = torch.full((64, 64), 127, dtype=torch.int8)
    return all(
        bool((_eight_bit("onednn", torch.full((rows, 64), 127), weights) == 64 * 127 * 127).all())
        for rows in (1, 64)
    )


@functools.cache
def choose(scheme: Scheme, device: torch.device) -> str:
    """The fastest backend that executes a scheme on a device."""
    integers = not scheme.fp8 and scheme.activation_bits < 16
    if device.type == "cpu" and integers:
        if available():
            return "avx512-vnni"
        return "onednn" if _onednn() and scheme.activation_bits == 8 else "expanded"
    if device.type == "cuda" and integers and scheme.activation_bits == 8:
        return "int-mm"
    if device.type == "cuda" and scheme.fp8:
        return "scaled-mm" if torch.cuda.get_device_capability(device) >= (8, 9) else "expanded"
    return "expanded"


def simulates(scheme: Scheme, device: torch.device) -> bool:
    """Whether integers or 8-bit floats are multiplied as floats there: exact, but no faster."""
    stated = scheme.fp8 or scheme.activation_bits < 16
    return stated and choose(scheme, device) == "expanded"


def token_integers(x: Tensor, bits: int, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, width) to signed codes as int32, scale (rows, 1) and zero point (rows, 1) per row."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    x = x.float()
    least = x.amin(-1, keepdim=True).clamp(max=0) * clip
    most = x.amax(-1, keepdim=True).clamp(min=0) * clip
    scale = (most - least) / (high - low)
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (low - least / scale).round().clamp(low, high)
    codes = ((x / scale).round() + zero).clamp(low, high)
    return codes.int(), scale, zero.int()


def _expanded(
    x: Tensor, weights: Tensor, scale: Tensor, bias: Tensor, dtype: torch.dtype
) -> Tensor:
    parts = []
    for start in range(0, len(weights), EXPAND_ROWS):
        part = slice(start, start + EXPAND_ROWS)
        weight = (weights[part].float() * scale[part, None]).to(dtype)
        parts.append(F.linear(x.to(dtype), weight, bias[part].to(dtype)))
    return torch.cat(parts, dim=-1)


def _eight_bit(backend: str, codes: Tensor, weights: Tensor) -> Tensor:
    """(rows, width) signed codes times (outputs, width) int8, exact, as float32 or int32."""
    if backend == "int-mm":
        rows = len(codes)
        # cuBLASLt takes 17 rows and more.
        padded = F.pad(codes, (0, 0, 0, max(0, 17 - rows))).to(torch.int8)
        return torch._int_mm(padded, weights.t())[:rows]
    packed = torch.ops.onednn.qlinear_prepack(weights, list(codes.shape))
    ones = torch.ones(len(weights))
    zeros = torch.zeros(len(weights), dtype=torch.int32)
    unsigned = (codes + 128).to(torch.uint8)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        unsigned, 1.0, 128, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


def product(
    backend: str,
    x: Tensor,
    weights: Tensor,
    scale: Tensor,
    bias: Tensor,
    scheme: Scheme,
    clip: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """(rows, width) times (outputs, width) in a scheme, by any backend but our own kernels.

    Args:
        backend: from ``choose``.
        x: activations.
        weights: int8 codes times multipliers, or 8-bit floats.
        scale: (outputs,) of the weights.
        bias: (outputs,).
        scheme: says how activations are held.
        clip: () share of a token's range that is kept.
        dtype: of the result.
    """
    if scheme.fp8:
        row = (x.float().abs().amax(-1, keepdim=True) / 448).clamp(min=1e-12)
        eighth = (x.float() / row).to(torch.float8_e4m3fn)
        if backend == "scaled-mm":
            y: Tensor = torch._scaled_mm(
                eighth, weights.t(), row, scale[None], out_dtype=torch.bfloat16
            )
            return (y.float() + bias).to(dtype)
        y = _expanded(eighth.float(), weights, scale, torch.zeros_like(bias), torch.float32)
        return (y * row + bias).to(dtype)
    if scheme.activation_bits == 16:
        return _expanded(x, weights, scale, bias, dtype)
    codes, row, zero = token_integers(x, scheme.activation_bits, clip)
    if backend == "expanded":
        centered = (codes - zero).float()
        y = _expanded(centered, weights, scale, torch.zeros_like(bias), torch.float32)
        return (y * row + bias).to(dtype)
    y = _eight_bit(backend, codes, weights).float()
    y = y - zero * weights.sum(1, dtype=torch.int32)
    return (y * (row * scale) + bias).to(dtype)
