"""A worker: a script that runs in another environment, with a folder for its job and its facts."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ExportError

WORKERS = Path(__file__).parent / "workers"


def run(
    script: Path,
    python: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 1800.0,
) -> tuple[dict[str, Any], str]:
    """Run a worker on ``job.json`` in its folder.

    Args:
        script: of ``workers``.
        python: the command that runs it.
        folder: holds its job, gets its ``facts.json``.
        environment: variables it gets in addition.
        timeout: seconds it may take.

    Returns:
        Its facts, and what it printed.

    Raises:
        ExportError: it failed, its last line is in the message; or it was not done in time.
    """
    # The environments' own packages, not those of this process.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [*map(str, python), str(script), str(folder)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**variables, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"{script.name} was not done after {timeout:.0f} s; give it more (--timeout)"
        ) from None
    said = done.stdout + done.stderr
    if done.returncode != 0:
        lines = [line for line in said.splitlines() if line.strip()] or ["nothing was said"]
        # Runtimes go on talking after Python's last line.
        lines = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception)\b", line)] or lines
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        raise ExportError(f"{script.name} failed ({how}): {lines[-1].strip()[:400]}")
    return json.loads((folder / "facts.json").read_text()), said
