"""What this machine can do: the one policy that picks device and precision."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import math
import os
import sys
from pathlib import Path

import psutil
import torch

from .errors import InputError

CGROUP = Path("/sys/fs/cgroup")
CPU = torch.device("cpu")
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
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {chosen.type}: use auto, cpu, cuda or mps")
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
        if dtype not in (*DTYPES.values(), torch.float64):
            raise InputError(f"dtype {dtype}: use auto, {', '.join(DTYPES)}")
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise InputError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    kind = (device or CPU).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if kind == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def spare_cores() -> int:
    """Cores that this process may use, without the one it runs on."""
    may = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return (len(may) if may is not None else os.cpu_count() or 1) - 1


def available_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device before trouble starts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(min(psutil.virtual_memory().available, _left_in_container(CGROUP)))


def _left_in_container(group: Path) -> float:
    """Bytes below a container's limit, which is smaller than the host's memory; inf without one."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return math.inf
    if limit == "max":
        return math.inf
    # Files that were read once count as used, but give way to whoever needs the memory.
    return int(limit) - used + int(parts["inactive_file"])


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c") if sys.platform == "linux" else None
    libc = ctypes.CDLL(name) if name else None
    return libc if libc is not None and hasattr(libc, "gnu_get_libc_version") else None


def keep_heap() -> None:
    """Let glibc keep freed memory instead of handing it back page by page.

    Every tensor above 128 kB is otherwise mapped anew and its pages are faulted in again, which
    made training steps here up to eight times slower (docs/LOG.md). For programs, not for
    libraries: the setting holds for the whole process. Elsewhere than on glibc it does nothing.
    """
    libc = _glibc()
    if libc is None:
        return
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, (1 << 31) - 1)
    libc.mallopt(m_top_pad, 64 << 20)


def release_heap() -> None:
    """Hand freed memory in the middle of glibc's heap back to the system; elsewhere do nothing."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)
