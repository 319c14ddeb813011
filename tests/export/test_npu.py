"""Compiling ahead of time; a script stands for the compiler where its environment is missing."""

from __future__ import annotations

import sys

import bundles
import pytest

from vggt_edge.errors import ExportError, InputError, MissingExtraError
from vggt_edge.export import npu
from vggt_edge.export.gates import environments, worker

WORKER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
told = {}
for chip in job["chips"]:
    for stage in job["stages"]:
        content = pathlib.Path(stage["file"]).read_bytes() + chip.encode()
        (pathlib.Path(job["keep"]) / f"{stage['name']}-{chip}.tflite").write_bytes(content)
        fact = {"compiled": 3, "operators": 3, "partitions": 1, "bytes": 1, "seconds": 0.1}
        told[chip] = {stage["name"]: {"error": "no graph"} if chip == FAILS else fact}
(folder / "facts.json").write_text(json.dumps({"chips": told}))
"""


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Takes the compiler's place; fails for one chip where told to."""

    def put(fails=None):
        (tmp_path / "compile_npu.py").write_text(f"FAILS = {fails!r}\n{WORKER}")
        monkeypatch.setattr(worker, "WORKERS", tmp_path)
        monkeypatch.setattr(environments, "npu", lambda _: (sys.executable, {}))

    return put


def test_chips_are_parsed_once_each():
    assert npu.parse_chips(["sm8750, SM8650", "SM8750"]) == ("SM8750", "SM8650")
    for bad in (["SM8751"], [], [","]):
        with pytest.raises(InputError, match="SM8350.*SM8850"):
            npu.parse_chips(bad)


def test_every_chip_gets_its_file_beside_the_export(tmp_path, compiler):
    compiler()
    out = tmp_path / "out"
    exported = bundles.exported(out, target="litert-npu")
    made = npu.compile_files(exported.files, ("SM8650", "SM8750"), tmp_path, out)
    assert [one.path.name for one in made] == [
        "tiny-2x28x42-float32-SM8650.tflite",
        "tiny-2x28x42-float32-SM8750.tflite",
    ]
    plain = exported.files[0].path.read_bytes()
    assert made[1].path.read_bytes() == plain + b"SM8750"
    assert made[1].bytes == len(plain) + 6 and len(made[1].sha256) == 64
    assert made[1].to_dict()["partitions"] == 1 and made[1].to_dict()["path"] == str(made[1].path)
    assert len(list(out.iterdir())) == 3


def test_a_chip_that_fails_leaves_nothing(tmp_path, compiler):
    compiler("SM8750")
    out = tmp_path / "out"
    exported = bundles.exported(out, target="litert-npu")
    with pytest.raises(ExportError, match="stage model for SM8750 failed: no graph"):
        npu.compile_files(exported.files, ("SM8650", "SM8750"), tmp_path, out)
    assert list(out.iterdir()) == [exported.files[0].path]


def test_without_the_environment_the_way_to_it_is_said(tmp_path):
    with pytest.raises(MissingExtraError, match="make npu"):
        npu.compile_files((), ("SM8750",), tmp_path, tmp_path)
