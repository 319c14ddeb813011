"""A bundle names the licence its weights came with."""

from __future__ import annotations

import pytest
from networks import seeded

from vggt_edge import cli
from vggt_edge.export import bundle_write, golden, litert, run
from vggt_edge.weights import save


class _Runner:
    """In place of LiteRT, which is not installed here."""

    def __init__(self, path):
        self.inputs, self.outputs = {"images": litert.Port((2, 28, 42, 3), "float32", 0.0, 0)}, {}

    def operators(self):
        return {}


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0, as VGGT-1B", None])
def test_the_weights_licence_goes_into_the_bundle(tmp_path, monkeypatch, licence):
    path, told = tmp_path / "pocket.safetensors", {}
    save(seeded(), path, license=licence)
    monkeypatch.setattr(litert, "require_packages", lambda: None)
    monkeypatch.setattr(golden, "make", lambda *_: None)
    monkeypatch.setattr(litert, "convert", lambda *given: given[3].write_bytes(b"a file"))
    monkeypatch.setattr(litert, "LiteRTRunner", _Runner)
    monkeypatch.setattr(run, "run_files", lambda *_: {})
    monkeypatch.setattr(run, "_check_artefact", lambda *_: ())
    monkeypatch.setattr(bundle_write, "write", lambda *_, **options: told.update(options))
    arguments = ["export", path, "--size", "28x42", "--bundle", tmp_path / "made.zip",
                 "-o", tmp_path / "out"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["vggt-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    assert told["weights_licence"].startswith(licence or "not stated in the file")
