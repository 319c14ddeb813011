"""The make targets of export: what they install and run, as ``make`` says without doing it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def steps(target):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_executorch_tests_that_lower_are_run_by_their_target():
    # Without it pytest's own options leave every slow test out.
    assert '-m "not gpu" tests/export' in steps("test-executorch")


def test_gates_install_what_makes_onnx_pinned():
    """The gate npu-numerics imports onnx and onnxscript in the environment that runs ``check``."""
    (line,) = [line for line in steps("gates").splitlines() if "[npu]" in line]
    assert line.startswith(".venv/bin/pip") and "--constraint constraints.txt" in line
    pins = (ROOT / "constraints.txt").read_text()
    assert "\nonnx==" in pins and "\nonnxscript==" in pins
