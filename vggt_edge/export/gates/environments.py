"""Where the gates' runtimes live: environments of their own, as ``make gates`` makes them."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path

VARIABLE = "VGGT_EDGE_ENVS"


def folder(chosen: Path | None = None) -> Path:
    """The folder of environments: the one given, ``$VGGT_EDGE_ENVS``, or ``.envs`` here."""
    return chosen or Path(os.environ.get(VARIABLE) or ".envs")


def python_with(module: str, name: str, environments: Path) -> Path | None:
    """A Python that has a module: this one, or that of environment ``name``; None where neither."""
    if util.find_spec(module) is not None:
        return Path(sys.executable)
    found = environments / name / "bin" / "python"
    ready = any(
        (place / module).is_dir()
        for place in (environments / name).glob("lib/python3*/site-packages")
    )
    return found.absolute() if found.exists() and ready else None


def npu(environments: Path) -> tuple[Path, dict[str, str]] | None:
    """Python and variables of the NPU environment; None where it was not made."""
    python = (environments / "npu" / "bin" / "python").absolute()
    site = next((environments / "npu").glob("lib/python3*/site-packages"), None)
    if not python.exists() or site is None or not (site / "onnxruntime_qnn").is_dir():
        return None
    site = site.absolute()
    places = [site / "onnxruntime_qnn", site / "onnxruntime_qnn.libs", site / "qnn_stand_in"]
    found = os.environ.get("LD_LIBRARY_PATH", "")
    return python, {"LD_LIBRARY_PATH": ":".join([*map(str, places), *([found] if found else [])])}
