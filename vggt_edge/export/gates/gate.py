"""A gate: something that can be proven about a bundle on this machine, and what came of it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import VGGTEdgeError
from ...model.vggt import VGGT
from ..bundle import Bundle
from ..golden import Golden
from .measure import LIMITS, Limits, Measured, differs, measure, precision
from .worker import WORKERS
from .worker import run as run_worker

Status = Literal["passed", "failed", "skipped"]


class Skip(Exception):
    """A gate that cannot run here; the message says why and what it needs."""


@dataclass(frozen=True)
class Context:
    """What gates are given: the bundle, its golden pictures, and what was said on the command line.

    Fields
        bundle, golden  what is proven.
        environments    folder of environments.
        model           the network that was exported, where it was given.
        threads         for a runtime.
        timeout         seconds for one run.
    """

    bundle: Bundle
    golden: Golden
    environments: Path
    model: VGGT | None = None
    threads: int = 2
    timeout: float = 1800.0

    @property
    def limits(self) -> Limits:
        """The loosest of the precisions in the bundle."""
        found = (LIMITS[precision(recipe)] for recipe in self.bundle.recipes)
        return max(found, key=lambda limits: limits.abs_rel)


@dataclass(frozen=True)
class Outcome:
    """What a gate found out.

    Fields
        outputs   output to (N, ...) float32 on the golden pictures; empty where nothing was run.
        facts     what else is worth knowing, plain data.
        problems  why it fails, one line each.
        repeats   whether the outputs must also be what they were where the bundle was made.
        limits    others than those of the bundle's precision.
    """

    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    repeats: bool = False
    limits: Limits | None = None


@dataclass(frozen=True)
class Gate:
    """A name, what it proves, and how: ``prove`` raises ``Skip`` where it cannot run."""

    name: str
    proves: str
    prove: Callable[[Context], Outcome]


@dataclass(frozen=True)
class Result:
    """One line of a report. ``reasons`` are why it failed or was skipped, empty where it passed."""

    gate: str
    proves: str
    status: Status
    reasons: tuple[str, ...]
    measured: Measured | None
    facts: Mapping[str, Any]
    seconds: float
    outputs: Mapping[str, np.ndarray] = field(repr=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the outputs."""
        measured = None
        if self.measured is not None:
            measured = {
                "worst": vars(self.measured.worst),
                "images": [vars(one) for one in self.measured.images],
                "truth": {
                    name: {"network": before, "exported": after}
                    for name, (before, after) in self.measured.truth.items()
                },
            }
        return {
            "gate": self.gate,
            "proves": self.proves,
            "status": self.status,
            "reasons": list(self.reasons),
            "measured": measured,
            "facts": dict(self.facts),
            "seconds": round(self.seconds, 2),
        }


def run(gate: Gate, context: Context) -> Result:
    """Run one gate; what fails in it fails the gate alone, it does not end the report."""
    start = time.perf_counter()
    measured, outcome = None, Outcome()
    status: Status = "failed"
    try:
        outcome = gate.prove(context)
    except Skip as skip:
        status, reasons = "skipped", [str(skip)]
    except (VGGTEdgeError, OSError) as error:
        reasons = [str(error)]
    else:
        reasons, measured = judge(outcome, context)
        status = "failed" if reasons else "passed"
    return Result(
        gate.name,
        gate.proves,
        status,
        tuple(reasons),
        measured,
        outcome.facts,
        time.perf_counter() - start,
        outcome.outputs,
    )


def judge(outcome: Outcome, context: Context) -> tuple[list[str], Measured | None]:
    """Why an outcome fails, and what was measured of its outputs."""
    reasons, limits = list(outcome.problems), outcome.limits or context.limits
    if not outcome.outputs:
        return reasons, None
    golden = context.golden
    for name, wanted in golden.reference.items():
        found = outcome.outputs.get(name)
        if found is None or found.shape != wanted.shape:
            shape = None if found is None else found.shape
            return [*reasons, f"{name} has shape {shape}, not {wanted.shape}"], None
        if not np.isfinite(found).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
            return [*reasons, f"{name} is not finite, first at {place} (set, view, ...)"], None
    if outcome.repeats:
        found_differences = (
            differs(name, outcome.outputs[name], wanted, limits.repeat, golden.names)
            for name, wanted in golden.outputs.items()
        )
        reasons += [one for one in found_differences if one]
    measured = measure(outcome.outputs, golden)
    return reasons + measured.broken(limits), measured


def call(
    context: Context,
    worker: str,
    python: Sequence[str | Path],
    *,
    job: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Run a worker on the golden pictures in another environment.

    Args:
        context: of the gate.
        worker: a script of ``workers``.
        python: the command that runs it.
        job: what it is told beside the stages.
        environment: variables it gets in addition.

    Returns:
        Its outputs, its facts, and what it printed.

    Raises:
        ExportError: it failed; its last line is in the message.
    """
    manifest, folder = context.bundle.manifest, context.bundle.folder
    stages = []
    for stage in manifest["stages"]:
        paths = {
            key: str((folder / stage[key]).absolute()) for key in ("file", "data") if key in stage
        }
        stages.append({**stage, **paths})
    with tempfile.TemporaryDirectory(prefix="vggt-edge-gate-") as scratch:
        place = Path(scratch)
        content = {
            "stages": stages,
            "outputs": list(context.bundle.outputs),
            "threads": context.threads,
            **(job or {}),
        }
        (place / "job.json").write_text(json.dumps(content))
        np.save(place / "images.npy", context.golden.given(context.bundle.layout))
        facts, said = run_worker(WORKERS / worker, python, place, environment, context.timeout)
        outputs = {}
        if (place / "result.npz").exists():
            with np.load(place / "result.npz") as found:
                outputs = {name: found[name] for name in found.files}
    return outputs, facts, said
