"""What this machine can do: the one policy that picks device and precision."""

from __future__ import annotations

import functools
from pathlib import Path

import psutil
import torch

from .errors import InputError

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` is CUDA, else Apple MPS, else the CPU.

    Raises:
        InputError: when the asked device is not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: use auto, cpu, cuda or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: this torch sees no CUDA GPU; use --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps: this torch sees no Apple GPU; use --device cpu")
    return chosen


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX512-BF16, AMX or Arm BF16)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    flags = set(info.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def pick_dtype(
    dtype: str | torch.dtype = "auto", device: torch.device | None = None
) -> torch.dtype:
    """``auto`` is bf16 where the hardware multiplies it, fp16 on older CUDA GPUs, else float32.

    Raises:
        InputError: on an unknown name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise InputError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    kind = (device or torch.device("cpu")).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if kind == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def available_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device before trouble starts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    # A container's limit is smaller than the host's memory.
    for name, used in (("memory.max", "memory.current"),):
        limit = Path("/sys/fs/cgroup") / name
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            current = Path("/sys/fs/cgroup") / used
            available = min(available, int(text) - int(current.read_text()))
    return available
