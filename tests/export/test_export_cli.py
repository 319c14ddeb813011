"""``vggt-edge export``: what cannot be is refused before weights are loaded, in one line."""

from __future__ import annotations

import pytest

from vggt_edge import cli


def refused(monkeypatch, capsys, *arguments):
    """What an export that must not begin says."""

    def never(*_, **__):
        raise RuntimeError("weights were loaded")

    monkeypatch.setattr("vggt_edge.weights.load", never)
    monkeypatch.setattr("sys.argv", ["vggt-edge", "export", "pocket", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert stopped.value.code and not said.out
    (line,) = said.err.splitlines()
    return line


def test_several_methods_are_no_bundle(tmp_path, monkeypatch, capsys):
    options = ("--target", "executorch", "--split", "--bundle", tmp_path / "b")
    line = refused(monkeypatch, capsys, *options, "-o", tmp_path / "out")
    assert "leave out --split or --bundle" in line
    assert not list(tmp_path.iterdir())
