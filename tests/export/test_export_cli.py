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


@pytest.mark.parametrize("out", ["b", "b/files"])
def test_a_bundle_is_not_where_the_files_go(tmp_path, monkeypatch, capsys, out):
    line = refused(monkeypatch, capsys, "--bundle", tmp_path / "b", "-o", tmp_path / out)
    assert "exported files go to" in line and not list(tmp_path.iterdir())


def test_what_does_not_run_here_is_no_bundle(tmp_path, monkeypatch, capsys):
    options = ("--target", "executorch-coreml", "--bundle", tmp_path / "b")
    line = refused(monkeypatch, capsys, *options, "-o", tmp_path / "out")
    assert "lowered, not run" in line and "leave out --bundle" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, words",
    [
        (("--target", "litert-npu", "--compile", "SM8750,SM1"), ("SM1", "SM8650", "SM8850")),
        (("--target", "litert-npu", "--compile", " , "), ("no chip", "SM8750")),
        (("--target", "litert", "--compile", "SM8750"), ("target litert has none", "litert-npu")),
        (("--target", "litert-npu", "--compile", "sm8750"), ("make npu", "Qualcomm's licence")),
    ],
)
def test_what_cannot_be_compiled_for_a_chip_is_refused(
    tmp_path, monkeypatch, capsys, options, words
):
    places = ("--environments", tmp_path / "none", "-o", tmp_path / "out")
    line = refused(monkeypatch, capsys, *options, *places)
    assert all(word in line for word in words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["executorch-coreml", "executorch-vulkan"])
@pytest.mark.parametrize(
    "options, words",
    [
        (("--bundle", "b"), ("lowered, not run", "leave out --bundle")),
        (("--recipe", "int8"), ("'int8'", "fp16, float32")),
        (("--exception", "depth_head=float32"), ("one precision for the whole network",)),
        (("--external-weights",), ("has none such",)),
    ],
)
def test_what_is_lowered_and_not_run_has_less_to_choose(
    tmp_path, monkeypatch, capsys, target, options, words
):
    monkeypatch.chdir(tmp_path)
    line = refused(monkeypatch, capsys, "--target", target, *options)
    assert all(word in line for word in words)
    assert not list(tmp_path.iterdir())
