from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from vggt_edge.errors import OutputError
from vggt_edge.files import check_writable, replacing, write_tensors


def test_the_file_appears_whole_with_its_suffix_and_ordinary_rights(tmp_path):
    path = tmp_path / "new" / "scene.glb"
    with replacing(path) as temporary:
        assert temporary.suffix == ".glb" and temporary.parent == path.parent
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert os.listdir(path.parent) == ["scene.glb"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.ply"
    path.write_text("old")
    with pytest.raises(failure), replacing(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.ply"]


def test_a_full_disk_is_an_output_error(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(OutputError, match=r"a\.ply: No space left"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "file" / "a.npz"):
        pytest.fail("must not get here")


def test_a_path_that_is_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "a.npz") as name:
        name.write_text("x")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_a_folder_that_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(OutputError, match="file is no folder; choose another"):
            check_writable(place)
    monkeypatch.setattr("os.access", lambda *_: False)  # we may be root
    with pytest.raises(OutputError, match=f"{tmp_path} is read-only; choose another"):
        check_writable(tmp_path / "new")


def test_tensors_have_the_rights_of_any_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_tensors(tmp_path / "new" / "t.safetensors", {"a": torch.arange(3)}, {"key": "value"})
    path = tmp_path / "new" / "t.safetensors"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"key": "value"}
        assert file.get_tensor("a").tolist() == [0, 1, 2]


# A limit of the process on the size of a file: the same error from the library as of a full disk.
FULL = """
import resource, sys
import torch
from vggt_edge.compress.resume import Journal
from vggt_edge.errors import OutputError
from vggt_edge.files import write_tensors

network = torch.nn.Sequential(torch.nn.Linear(4, 4))
journal = Journal(sys.argv[1], network, {}, "", [])
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
for write in (
    lambda: write_tensors(f"{sys.argv[1]}/big.safetensors", {"a": torch.zeros(1000)}),
    lambda: journal.write("stage", network, {}),
):
    try:
        write()
    except OutputError as error:
        print(error)
"""


def test_tensors_on_a_full_disk_are_an_output_error(tmp_path):
    (tmp_path / "big.safetensors").write_text("old")
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    said = subprocess.check_output(command, text=True).splitlines()
    assert len(said) == 2
    assert f"cannot write {tmp_path}/big.safetensors: " in said[0]
    assert f"cannot write {tmp_path}/stage.safetensors: " in said[1]
    assert all("File too large" in line and "free some space" in line for line in said)
    assert os.listdir(tmp_path) == ["big.safetensors"]
    assert (tmp_path / "big.safetensors").read_text() == "old"
