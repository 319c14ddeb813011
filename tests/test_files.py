from __future__ import annotations

import errno
import os

import pytest

from vggt_edge.errors import OutputError
from vggt_edge.files import check_writable, replacing


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
