"""Ahead of time: ``.tflite`` files for the NPU to one file for each chip, by the vendor's compiler.

    compiled = compile_files(exported.files, ("SM8750",), Path(".envs"), Path("out"))

LiteRT's plugin and Qualcomm's libraries, which are the user's under Qualcomm's licence and may not
be passed on, live in an environment of their own (``make npu``).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ExportError, InputError, MissingExtraError
from ..files import file_digest, replacing
from .exported import ExportedFile
from .gates import environments, worker
from .targets import Target

# Those that LiteRT 2.3's compiler knows.
CHIPS = ("SM8350", "SM8450", "SM8475", "SM8550", "SM8650", "SM8750", "SM8845", "SM8850")


@dataclass(frozen=True)
class CompiledFile:
    """A stage for one chip.

    Fields
        path, bytes, sha256  the file.
        stage, chip          what it is.
        compiled, operators  how many operators the NPU takes, of how many.
        partitions           pieces they are in; one is best.
        seconds              the compiler took.
    """

    path: Path
    bytes: int
    sha256: str
    stage: str
    chip: str
    compiled: int
    operators: int
    partitions: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"path": str(self.path)}


def parse_chips(names: Sequence[str]) -> tuple[str, ...]:
    """Chips of comma-separated names, each once.

    Raises:
        InputError: none, or an unknown one, with those there are.
    """
    chips = tuple(
        dict.fromkeys(
            part.strip().upper() for name in names for part in name.split(",") if part.strip()
        )
    )
    if unknown := [chip for chip in chips if chip not in CHIPS]:
        raise InputError(f"unknown chip {', '.join(unknown)}; known: {', '.join(CHIPS)}")
    if not chips:
        raise InputError(f"no chip to compile for; choose of {', '.join(CHIPS)}")
    return chips


def require(target: Target, folder: Path) -> None:
    """Refuse, before any work, what cannot be compiled here.

    Args:
        target: of the export.
        folder: of environments, as ``gates.environments.folder`` finds it.

    Raises:
        InputError: a target that is not for NPUs.
        MissingExtraError: without the environment that compiles.
    """
    if target.name != "litert-npu":
        raise InputError(f"compiling for a chip: target {target.name} has none; use litert-npu")
    if environments.npu(folder) is None:
        raise MissingExtraError(
            "Qualcomm's compiler (onnxruntime-qnn, fetched by pip under Qualcomm's licence)",
            "npu",
            f"compiling for a chip (in an environment of its own: `make npu`; none in {folder})",
        )


def compile_files(
    files: Sequence[ExportedFile],
    chips: Sequence[str],
    folder: Path,
    out: Path,
    timeout: float = 1800.0,
) -> tuple[CompiledFile, ...]:
    """Every stage for every chip, beside the files they are of, as NAME-CHIP.tflite.

    Args:
        files: of an export for litert-npu.
        chips: of ``CHIPS``.
        folder: of environments.
        out: folder for the results; nothing is in it unless all were compiled.
        timeout: seconds for all of them.

    Raises:
        MissingExtraError: without the environment that compiles.
        ExportError: a compiler that fails, naming chip and stage.
        OutputError: a file that cannot be written.
    """
    found = environments.npu(folder)
    if found is None:
        raise MissingExtraError("Qualcomm's compiler", "npu", "compiling for a chip (`make npu`)")
    python, variables = found
    with tempfile.TemporaryDirectory(prefix=".compile-", dir=out) as name:
        scratch = Path(name).absolute()
        stages = [{"name": file.stage, "file": str(file.path.absolute())} for file in files]
        job = {"stages": stages, "chips": list(chips), "keep": str(scratch)}
        (scratch / "job.json").write_text(json.dumps(job))
        script = worker.WORKERS / "compile_npu.py"
        facts, _ = worker.run(script, [python], scratch, variables, timeout)
        for chip, told in facts["chips"].items():
            for stage, fact in told.items():
                if "error" in fact or not (scratch / f"{stage}-{chip}.tflite").exists():
                    reason = fact.get("error", "the compiler wrote no file")
                    raise ExportError(f"compiling stage {stage} for {chip} failed: {reason}")
        made = []
        for chip in chips:
            for file in files:
                path = out / f"{file.path.stem}-{chip}.tflite"
                with replacing(path) as temporary:
                    (scratch / f"{file.stage}-{chip}.tflite").replace(temporary)
                fact = facts["chips"][chip][file.stage]
                made.append(
                    CompiledFile(
                        path,
                        path.stat().st_size,
                        file_digest(path),
                        file.stage,
                        chip,
                        fact["compiled"],
                        fact["operators"],
                        fact["partitions"],
                        fact["seconds"],
                    )
                )
    return tuple(made)
