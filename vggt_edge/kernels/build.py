"""Kernels of our own for x86 CPUs with AVX512-VNNI, compiled once on the machine that runs them.

``integers.c``, ``halves.c`` and ``attention.c`` say what they compute. They need a C compiler (cc,
gcc or clang) the first time; the result is kept under the user's cache folder. Without a compiler
or without such a CPU callers fall back to torch, and ``reason`` says why.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.[ch]")))
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}


class _Built(NamedTuple):
    library: ctypes.CDLL | None
    reason: str


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "vggt-edge"


def _compile(compiler: str, cpu: str) -> Path:
    digest = hashlib.sha256(repr((FLAGS, compiler, cpu)).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    target = _cache() / f"kernels-{digest.hexdigest()[:16]}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may compile at once: each writes its own file, the last rename wins.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        units = [source for source in SOURCES if source.suffix == ".c"]
        command = [compiler, *FLAGS, *map(str, units), "-o", temporary, "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


@functools.cache
def _build() -> _Built:
    info = Path("/proc/cpuinfo")
    if sys.platform != "linux" or not info.exists():
        return _Built(None, "the kernels are for Linux")
    text = info.read_text()
    if missing := NEEDED - set(text.split()):
        return _Built(None, f"this CPU has no {', '.join(sorted(missing))}")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return _Built(None, "there is no C compiler (install gcc or clang)")
    model = next((line for line in text.splitlines() if line.startswith("flags")), "")
    try:
        return _Built(ctypes.CDLL(str(_compile(compiler, model))), "")
    except subprocess.CalledProcessError as error:
        return _Built(None, f"{compiler} failed: {error.stderr.strip().splitlines()[:1]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Built(None, f"the kernels cannot be built ({error})")


def available() -> bool:
    """Whether the kernels run here; builds them if they were not."""
    return _build().library is not None


def has(function: str) -> bool:
    """Whether a function of the kernels runs here; some need more of a CPU than others."""
    return available() and hasattr(_build().library, function)


def reason() -> str:
    """Why they do not run here, "" when they do."""
    return _build().reason


def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        RuntimeError: when they do not run here.
    """
    built = _build().library
    if built is None:
        raise RuntimeError(reason())
    return built


def address(tensor: Tensor | None) -> ctypes.c_void_p | None:
    """Where a tensor's numbers are, as the functions take it; null for None."""
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
