"""What an app is handed: the exported files, a description of them, and pictures with answers.

A bundle is a folder, or the same as a ``.zip`` (stored, not deflated, so that files can be mapped
into memory). ``bundle.json`` obeys ``bundle.schema.json``; docs/BUNDLE.md explains it to whoever
writes the app.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BundleError
from ..files import file_digest
from . import schema
from .golden import Golden

FORMAT, VERSION = "vggt-edge-bundle", 1
MANIFEST = "bundle.json"
# A description is kilobytes; what is larger is no description.
MOST_MANIFEST = 16 << 20


class _Scratch:
    """A temporary folder that goes with this object, or with the process."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="vggt-edge-bundle-")
        self.cleanup = weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and whose every file has the size and hash it should have.

    Fields
        folder    where its files lie; for a zip a temporary one that goes with this object.
        manifest  ``bundle.json``.
        identity  SHA-256 of ``bundle.json``, and so of everything.
    """

    folder: Path
    manifest: Mapping[str, Any]
    identity: str
    _scratch: _Scratch | None = field(default=None, repr=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return tuple(entry["name"] for entry in self.manifest["outputs"])

    @property
    def recipes(self) -> tuple[str, ...]:
        """Every recipe in it, that of most layers first."""
        exceptions = self.manifest.get("exceptions", {})
        return tuple(dict.fromkeys((self.manifest["recipe"], *exceptions.values())))

    @property
    def layout(self) -> str:
        """Of the images: "VHWC" or "VCHW"."""
        return str(self.manifest["input"]["layout"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Views, height and width."""
        views, *rest = self.manifest["input"]["shape"]
        height, width = rest[:2] if self.layout == "VHWC" else rest[1:]
        return views, height, width

    def path(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / name

    def golden(self) -> Golden:
        """Its pictures and their answers."""
        entry = self.manifest["golden"]
        count, (views, height, width) = len(entry["sets"]), self.shape
        shapes = {e["name"]: tuple(e["shape"]) for e in self.manifest["outputs"]}

        def read(name: str, *shape: int) -> np.ndarray:
            dtype = np.uint8 if name.endswith(".u8") else np.dtype("<f4")
            found = np.fromfile(self.path(name), dtype)
            if found.size != int(np.prod(shape)):
                raise BundleError(f"{self.folder}: {name} holds {found.size} numbers, not {shape}")
            return found.reshape(shape)

        def answers(kind: str) -> dict[str, np.ndarray]:
            return {
                output: read(name, count, *shapes[output]) for output, name in entry[kind].items()
            }

        return Golden(
            read(entry["images"], count, views, height, width, 3),
            tuple(one["name"] for one in entry["sets"]),
            answers("reference"),
            np.array([one["truth"] for one in entry["sets"]]),
            read(entry["depth"], count, views, height, width),
            read(entry["camera_from_world"], count, views, 3, 4),
            answers("outputs"),
        )


def is_bundle(path: str | Path) -> bool:
    """Whether a path looks like a bundle: a folder or zip that holds ``bundle.json``."""
    path = Path(path)
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def read(path: str | Path) -> Bundle:
    """Open a bundle and check every file in it.

    Of a zip only what the description lists is unpacked, no byte more than it says, into a
    temporary folder; names that lead elsewhere are refused.

    Raises:
        BundleError: no bundle, of another version, corrupt, incomplete or mismatched.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, path, None)
    if not path.is_file():
        raise BundleError(f"{path}: no such bundle")
    if not zipfile.is_zipfile(path):
        raise BundleError(f"{path}: neither a folder nor a zip; a bundle is one of them")
    scratch = _Scratch()
    try:
        with zipfile.ZipFile(path) as archive:
            _unpack(path, archive, Path(scratch.name))
        return _read_folder(path, Path(scratch.name), scratch)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        scratch.cleanup()
        raise BundleError(f"{path}: a damaged zip ({error}); copy it again") from error
    except BundleError:
        scratch.cleanup()
        raise


def _unpack(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise BundleError(f"{path}: a zip with two files of one name; refused")
    if MANIFEST not in entries:
        raise BundleError(f"{path}: holds no {MANIFEST}: not a bundle")
    if entries[MANIFEST].file_size > MOST_MANIFEST:
        raise BundleError(f"{path}: {MANIFEST} is too large to be a description")
    content = archive.read(MANIFEST)
    (folder / MANIFEST).write_bytes(content)
    for name, wanted in _described(path, content)["files"].items():
        if name not in entries:
            raise BundleError(f"{path}: {name} is missing")
        if entries[name].file_size != wanted["bytes"]:
            raise BundleError(
                f"{path}: {name} has {entries[name].file_size} bytes, not {wanted['bytes']}"
            )
        target = folder / name  # the schema's pattern has no "..", no root and no backslash
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, target.open("xb") as out:
            left = wanted["bytes"]
            while left and (block := source.read(min(left, 1 << 20))):
                out.write(block)
                left -= len(block)


def _described(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is no JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path}: {MANIFEST} does not describe a bundle of vggt-edge")
    version = manifest.get("version")
    if version != VERSION:
        raise BundleError(
            f"{path}: a bundle of version {version!r}, and version {VERSION} is known here; "
            + (
                "update vggt-edge"
                if isinstance(version, int) and version > VERSION
                else "export it again"
            )
        )
    if wrong := next(schema.problems(manifest, schema.bundle_schema()), None):
        raise BundleError(f"{path}: {MANIFEST} is not as its schema says: {wrong}")
    _check_references(path, manifest)
    return manifest


def _check_references(path: Path, manifest: Mapping[str, Any]) -> None:
    """What a schema cannot say: files that are named exist, stages fit, outputs come out."""
    golden = manifest["golden"]
    named = [golden["images"], golden["depth"], golden["camera_from_world"]]
    named += [*golden["reference"].values(), *golden["outputs"].values()]
    named.append(manifest["licence"]["notice"])
    known = {manifest["input"]["name"]}
    for stage in manifest["stages"]:
        named += [stage["file"], *([stage["data"]] if "data" in stage else [])]
        if lacking := stage["inputs"].keys() - known:
            raise BundleError(f"{path}: stage {stage['name']} needs {', '.join(lacking)} too early")
        known |= stage["outputs"].keys()
    wanted = {entry["name"] for entry in manifest["outputs"]}
    if lacking := wanted - known:
        raise BundleError(f"{path}: no stage makes {', '.join(sorted(lacking))}")
    for kind in ("reference", "outputs"):
        if golden[kind].keys() != wanted:
            raise BundleError(f"{path}: golden.{kind} and outputs name different tensors")
    if lost := [name for name in named if name not in manifest["files"]]:
        raise BundleError(f"{path}: {lost[0]} is not among its files")


def _read_folder(path: Path, folder: Path, scratch: _Scratch | None) -> Bundle:
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: holds no {MANIFEST}: not a bundle") from error
    manifest = _described(path, content)
    root = folder.resolve()
    for name, wanted in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{path}: {name} is missing")
        if not file.resolve().is_relative_to(root):
            raise BundleError(f"{path}: {name} is a link that leads out of the bundle; refused")
        if file.stat().st_size != wanted["bytes"]:
            raise BundleError(
                f"{path}: {name} has {file.stat().st_size} bytes, not {wanted['bytes']}"
            )
        if file_digest(file) != wanted["sha256"]:
            raise BundleError(f"{path}: {name} is corrupt, its SHA-256 differs; copy it again")
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest(), scratch)
