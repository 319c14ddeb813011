"""What every benchmark writes: its numbers with the command, the machine and the commit inside."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent.parent / "results"
POCKET = RESULTS.parent / "vggt_edge" / "assets" / "pocket.safetensors"


def machine() -> dict[str, Any]:
    """The processor, its cores and vector units, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line), ""
    )
    flags = set(text.split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "bf16")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": model or platform.processor(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in wanted if flag in flags],
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """The commit the numbers belong to, with a mark when the tree is not clean."""
    git = ["git", "-C", str(RESULTS.parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
    )
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }


def weights_of(model: Any) -> str | None:
    """Which state of the embedded network it is, which is trained on; None for any other model."""
    return hashlib.sha256(POCKET.read_bytes()).hexdigest()[:8] if model == "pocket" else None


def write(name: str, data: dict[str, Any]) -> Path:
    """Write ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    entry = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        **data,
    }
    if weights := weights_of(data.get("model")):
        entry["weights"] = weights
    path.write_text(json.dumps(entry, indent=1) + "\n")
    return path
