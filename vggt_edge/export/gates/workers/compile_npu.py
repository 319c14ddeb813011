"""Compile ``.tflite`` stages ahead of time for Snapdragon NPUs and count what was taken.

With ``keep`` in the job, a folder, the compiled files stay there as STAGE-CHIP.tflite.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHIPS = ("SM8650", "SM8750", "SM8850")


def compiled(path: str, chip: str, keep: Path | None) -> dict[str, Any]:
    """What the compiler made of one file for one chip; the file itself goes to ``keep``."""
    target = importlib.import_module("ai_edge_litert.aot.vendors.qualcomm.target")
    aot = importlib.import_module("ai_edge_litert.aot.aot_compile")
    start = time.perf_counter()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as sink:
        # The compiler plugin speaks to the descriptors, not to Python's streams.
        saved = os.dup(1), os.dup(2)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            with contextlib.redirect_stdout(said):
                result = aot.aot_compile(
                    path,
                    output_dir=folder,
                    target=[target.Target(getattr(target.SocModel, chip))],
                    keep_going=True,
                )
        finally:
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
            sink.seek(0)
            text = sink.read().decode(errors="replace") + said.getvalue()
        report = result.compilation_report()
        for model in result.models if keep else ():
            model.save(keep, export_only=True)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    text += str(report)
    counts = re.findall(r"(\d+)\s*/\s*(\d+)\s*(?:ops|op\(s\))\D*?(\d+)\s*partition", text)
    if not counts:
        lines = [line for line in text.splitlines() if "rror" in line] or text.splitlines()[-1:]
        return {"error": " ".join(lines[-1:])[:300] or "the compiler said nothing"}
    taken, operators, partitions = map(int, counts[-1])
    return {
        "compiled": taken,
        "operators": operators,
        "partitions": partitions,
        "bytes": size,
        "seconds": round(time.perf_counter() - start, 2),
    }


def main(folder: Path) -> None:
    """One job."""
    job = json.loads((folder / "job.json").read_text())
    keep = Path(job["keep"]) if "keep" in job else None
    facts = {
        "runtime": f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}, "
        f"onnxruntime-qnn {importlib.metadata.version('onnxruntime-qnn')}",
        "chips": {
            chip: {
                stage["name"]: compiled(
                    stage["file"], chip, keep and keep / f"{stage['name']}-{chip}.tflite"
                )
                for stage in job["stages"]
            }
            for chip in job.get("chips", CHIPS)
        },
    }
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
