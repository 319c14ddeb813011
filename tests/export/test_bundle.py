"""Bundles: whole or not at all, and nothing that was changed is believed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile

import bundles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import seeded

from vggt_edge.errors import BundleError, ExportError, OutputError
from vggt_edge.export import bundle, bundle_write, golden, schema
from vggt_edge.export.gates import gate
from vggt_edge.export.gates.measure import LIMITS


@pytest.fixture(scope="module")
def network():
    return seeded()


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    """A folder and the same as a zip."""
    place = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        bundles.write(network, place / "raw", place / "folder", patch)
        bundles.write(network, place / "raw", place / "tiny.zip", patch)
    return place


def copy_of(made, tmp_path, kind="folder"):
    """One that may be damaged."""
    if kind == "zip":
        target = tmp_path / "tiny.zip"
        target.write_bytes((made / "tiny.zip").read_bytes())
        return target
    return shutil.copytree(made / "folder", tmp_path / "folder")


def edit(folder, change):
    path = folder / bundle.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_exceptions_are_kept_and_the_loosest_recipe_sets_the_limits(network, tmp_path, monkeypatch):
    exceptions = {"depth_head": "int4", "camera_head": "float32"}
    found = bundles.write(
        network, tmp_path / "raw", tmp_path / "made", monkeypatch, exceptions=exceptions
    )
    assert bundle.read(tmp_path / "made").manifest["exceptions"] == exceptions
    assert found.recipes == ("float32", "int4")
    assert gate.Context(found, found.golden(), tmp_path).limits == LIMITS["int4"]
    plain = bundles.write(network, tmp_path / "raw", tmp_path / "plain", monkeypatch)
    assert "exceptions" not in plain.manifest and plain.recipes == ("float32",)
    assert gate.Context(plain, plain.golden(), tmp_path).limits == LIMITS["float32"]


def test_a_bundle_says_what_an_app_must_know(made, network):
    found = bundle.read(made / "folder")
    manifest = found.manifest
    assert found.shape == (2, 28, 42) and found.layout == "VHWC"
    assert found.outputs == ("depth", "confidence", "pose")
    assert manifest["name"] == "tiny_network" and manifest["runtime"] == "litert"
    assert manifest["input"]["range"] == [0.0, 1.0] and manifest["input"]["channels"] == "RGB"
    assert "OpenCV" in manifest["conventions"]["camera_frame"]
    assert manifest["made_by"].keys() == {"vggt-edge", "torch"}
    listed = set(manifest["files"]) | {"bundle.json"}
    there = {
        str(p.relative_to(made / "folder")) for p in (made / "folder").rglob("*") if p.is_file()
    }
    assert listed == there and "NOTICE" in there
    assert "licence of their own" in (made / "folder" / "NOTICE").read_text()


def test_folder_and_zip_are_the_same_bundle(made):
    folder, archive = bundle.read(made / "folder"), bundle.read(made / "tiny.zip")
    assert folder.identity == archive.identity
    place = archive.folder
    assert place != made and (place / "network").is_dir()
    with zipfile.ZipFile(made / "tiny.zip") as content:  # apps map the files into memory
        assert {entry.compress_type for entry in content.infolist()} == {zipfile.ZIP_STORED}
    del archive
    assert not place.exists()


def test_golden_pictures_come_back_as_they_were(made, network):
    known = golden.make(network, bundles.SHAPE, bundles.OUTPUTS, scenes=2)
    found = bundle.read(made / "folder").golden()
    assert found.names == known.names and list(found.has_truth) == list(known.has_truth)
    assert found.names[-1] == "world 1" and not found.has_truth[0] and found.has_truth[-1]
    np.testing.assert_array_equal(found.images, known.images)
    np.testing.assert_array_equal(found.depth, known.depth)
    np.testing.assert_array_equal(found.camera_from_world, known.camera_from_world)
    for name, value in known.reference.items():
        np.testing.assert_array_equal(found.reference[name], value)
        np.testing.assert_allclose(found.outputs[name], value, rtol=1e-4, atol=1e-5)
    assert found.depth[found.has_truth].max() > 0 and not found.depth[~found.has_truth].any()


def test_the_shipped_schema_is_wholly_understood():
    def keywords(node, inside_names=False):
        if isinstance(node, dict):
            for name, value in node.items():
                if not inside_names:
                    yield name
                yield from keywords(value, not inside_names and name in ("properties", "$defs"))
        elif isinstance(node, list):
            for value in node:
                yield from keywords(value)

    assert set(keywords(schema.bundle_schema())) <= schema.KEYWORDS


def test_the_schema_agrees_with_a_full_validator(made):
    jsonschema = pytest.importorskip("jsonschema")
    manifest = json.loads((made / "folder" / bundle.MANIFEST).read_text())
    jsonschema.validate(manifest, schema.bundle_schema())
    manifest["input"]["range"] = [0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema.bundle_schema())


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda m: m.pop("recipe"), "recipe is missing"),
        (lambda m: m.update(extra=1), "'extra' is not known"),
        (lambda m: m["input"].update(layout="HWC"), r"input.layout: 'HWC' is none of VHWC, VCHW"),
        (lambda m: m["input"]["shape"].pop(), r"input.shape: 3 entries"),
        (lambda m: m["outputs"][0].update(scale="x"), r"outputs\[0\].scale: 'x' is no number"),
        (lambda m: m.update(patch=True), "patch: True is no integer"),
        (lambda m: m.update(patch=0), "patch: 0 is below 1"),
        (lambda m: m.update(version=2), "version 2, and version 1.*update vggt-edge"),
        (lambda m: m.update(version="1"), "version '1'.*export it again"),
        (lambda m: m.update(format="zip"), "does not describe a bundle"),
        (lambda m: m["stages"][0].update(file="../../etc/passwd"), "does not match"),
        (lambda m: m["golden"].update(images="golden/none.u8"), "none.u8 is not among its files"),
        (lambda m: m["stages"][0]["inputs"].update(x=m["stages"][0]["inputs"]["images"]),
         "needs x too early"),
        (lambda m: m["stages"][0]["outputs"].pop("pose"), "no stage makes pose"),
        (lambda m: m["golden"]["reference"].pop("pose"), "different tensors"),
        (lambda m: m["golden"]["sets"].append({"name": "a", "truth": True}), "numbers, not"),
    ],
)  # fmt: skip
def test_a_description_that_is_wrong_is_refused_in_one_line(made, tmp_path, change, reason):
    folder = copy_of(made, tmp_path)
    edit(folder, change)
    with pytest.raises(BundleError, match=reason) as caught:
        bundle.read(folder).golden()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_description_that_is_none_is_refused(made, tmp_path, content):
    folder = copy_of(made, tmp_path)
    (folder / bundle.MANIFEST).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        bundle.read(folder)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(made, data):
    folder = made / "folder"
    names = sorted(bundle.read(folder).manifest["files"])
    path = folder / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        with pytest.raises(BundleError, match=f"{path.name} is corrupt"):
            bundle.read(folder)
    finally:
        path.write_bytes(content)


def test_missing_and_cut_files_are_named(made, tmp_path):
    folder = copy_of(made, tmp_path)
    path = folder / "golden" / "images.u8"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"images.u8 has \d+ bytes, not"):
        bundle.read(folder)
    path.unlink()
    with pytest.raises(BundleError, match="images.u8 is missing"):
        bundle.read(folder)
    with pytest.raises(BundleError, match="no such bundle"):
        bundle.read(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="neither a folder nor a zip"):
        bundle.read(tmp_path / "text")
    with pytest.raises(BundleError, match="not a bundle"):
        bundle.read(tmp_path)


def test_a_link_out_of_the_bundle_is_refused(made, tmp_path):
    folder = copy_of(made, tmp_path)
    path = folder / "NOTICE"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="NOTICE is a link that leads out"):
        bundle.read(folder)


def rezip(source, target, change):
    """The entries of a zip, changed, in another."""
    with zipfile.ZipFile(source) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "a\\..\\b", "."])
def test_a_zip_cannot_write_outside(made, tmp_path, name):
    def change(entries):
        manifest = json.loads(entries["bundle.json"])
        manifest["files"][name] = {"bytes": 4, "sha256": "0" * 64}
        entries["bundle.json"] = json.dumps(manifest).encode()
        entries[name] = b"evil"

    inner = tmp_path / "inner"
    inner.mkdir()
    rezip(made / "tiny.zip", inner / "evil.zip", lambda entries: change(entries))
    with pytest.raises(BundleError):
        bundle.read(inner / "evil.zip")
    assert [p.name for p in tmp_path.rglob("*")] == ["inner", "evil.zip"]


def test_what_a_zip_holds_beside_is_not_unpacked(made, tmp_path):
    more = {"../outside-of-it": b"1", "y": b"2"}
    rezip(made / "tiny.zip", tmp_path / "more.zip", lambda entries: entries.update(more))
    found = bundle.read(tmp_path / "more.zip")
    assert {p.name for p in found.folder.iterdir()} == {
        "bundle.json",
        "NOTICE",
        "golden",
        "network",
    }
    assert not (found.folder.parent / "outside-of-it").exists()


def test_names_of_files_that_are_no_objects_are_refused(made, tmp_path):
    folder = copy_of(made, tmp_path)
    edit(folder, lambda m: m["files"].update({"NOTICE": {"bytes": -1, "sha256": "x"}}))
    with pytest.raises(BundleError, match="files.NOTICE.bytes: -1 is below 0"):
        bundle.read(folder)


def test_a_damaged_zip_is_refused(made, tmp_path):
    path = copy_of(made, tmp_path, "zip")
    content = path.read_bytes()
    at = content.index(b"stands for a network")
    path.write_bytes(content[:at] + b"X" + content[at + 1 :])
    with pytest.raises(BundleError, match="damaged zip"):
        bundle.read(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="neither a folder nor a zip"):
        bundle.read(path)


def test_a_bundle_is_replaced_and_nothing_else_is(made, network, tmp_path, monkeypatch):
    first = bundles.write(network, tmp_path / "raw", tmp_path / "b", monkeypatch)
    second = bundles.write(network, tmp_path / "raw", tmp_path / "b", monkeypatch, recipe="fp16")
    assert first.identity != second.identity == bundle.read(tmp_path / "b").identity
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(OutputError, match="no bundle; choose another name"):
        bundles.write(network, tmp_path / "raw", tmp_path / "mine", monkeypatch)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "mine", "raw"]


@pytest.mark.parametrize("name", ["b", "b.zip"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left")])
def test_an_interrupted_bundle_leaves_nothing(network, tmp_path, monkeypatch, name, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(bundle_write, "_write_golden", fail)
    with pytest.raises((KeyboardInterrupt, MemoryError, OutputError)):
        bundles.write(network, tmp_path / "raw", tmp_path / "out" / name, monkeypatch)
    assert list((tmp_path / "out").iterdir()) == []


@given(st.text(max_size=40))
def test_only_plain_relative_paths_match_the_schema(name):
    pattern = schema.bundle_schema()["$defs"]["path"]["pattern"]
    if re.search(pattern, name) and not name.endswith("\n"):
        parts = name.split("/")
        assert all(parts) and ".." not in parts and "." not in parts and "\\" not in name
        assert name.isascii() and not name.startswith(("/", "."))


def test_files_that_were_not_run_make_no_bundle(network, tmp_path):
    lowered = dataclasses.replace(bundles.exported(tmp_path / "raw"), ran=False)
    known = golden.make(network, bundles.SHAPE, bundles.OUTPUTS, scenes=2)
    with pytest.raises(ExportError, match="lowered, not run"):
        bundle_write.write(lowered, known, tmp_path / "b", name="x", network="y")
    assert not (tmp_path / "b").exists()
    assert lowered.to_dict()["status"] == "lowered, not run" and not lowered.to_dict()["ran"]
