"""An export and its golden pictures to a bundle: a folder or zip, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ExportError, InputError, OutputError
from ..files import check_writable, file_digest, replacing
from . import schema
from .bundle import FORMAT, MANIFEST, VERSION, Bundle, is_bundle, read
from .exported import Exported, ExportedFile, ExportedMethod
from .golden import Golden
from .runner import run_stages
from .targets import Target

CONVENTIONS = {
    "camera_frame": "OpenCV: x right, y down, z forward, of the upright picture",
    "extrinsics": "camera_from_world: x_camera = R x_world + t",
    "pose": "9 numbers a view: translation t (3), quaternion x y z w of R (any length, 4), "
    "vertical and horizontal field of view in radians (2)",
    "pixels": "(u, v) = (column, row), integers are pixel centres; the principal point is "
    "(width / 2, height / 2)",
    "depth": "z in the camera frame, in the network's own unit",
    "world": "origin and axes of the first view's camera; one unknown unit for depth and "
    "translation alike",
    "confidence": "above 1, without a fixed scale: compare by rank",
}
OUTPUTS = {
    "depth": ("VHW1", "network units"),
    "confidence": ("VHW1", "none"),
    "pose": ("V9", "network units and radians"),
}
NOTICE = """{0}

Made by vggt-edge, Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0.
The weights are under a licence of their own: {1}.
The pictures in golden/ are drawn by vggt-edge or were given by whoever made this bundle.
Runtimes and vendors' libraries are not part of this bundle.
"""


def write(
    exported: Exported,
    golden: Golden,
    path: str | Path,
    *,
    name: str,
    network: str,
    patch: int = 14,
    weights_licence: str = "that of the weights' publisher",
) -> Bundle:
    """Make a bundle of an export, whole or not at all.

    The files are run on the golden pictures first; what they say is kept beside the reference.

    Args:
        exported: from ``export``.
        golden: from ``golden.make``, of the network that was exported, for the same shape.
        path: of the folder, or of a zip where it ends in ``.zip``. A bundle that is there already
            is replaced, anything else refused.
        name: of the bundle; letters, digits, ``_ . + -``, others become ``_``.
        network: text that identifies the network, ``model.identity.identity_of``.
        patch: its patch size.
        weights_licence: SPDX name or a few words.

    Raises:
        ExportError: the files do not run.
        MissingExtraError: their runtime is not installed.
        OutputError: the path cannot be written, or holds something else.
    """
    path = Path(path)
    if not exported.ran:
        raise ExportError(f"a bundle holds what its files answer, and these are {exported.status}")
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".bundle-", dir=path.parent))
    try:
        name = re.sub(r"[^\w.+-]+", "_", name, flags=re.ASCII)
        manifest = _describe(exported, _copy_files(scratch / "network", exported), name, network)
        manifest["patch"] = patch
        given = golden.given(exported.layout)
        found = [run_stages(manifest, scratch, images) for images in given]
        outputs = {key: np.stack([one[key] for one in found]) for key in exported.outputs}
        manifest["golden"] = _write_golden(scratch / "golden", replace(golden, outputs=outputs))
        manifest["licence"]["weights"] = weights_licence
        (scratch / "NOTICE").write_text(NOTICE.format(name, weights_licence), encoding="utf-8")
        manifest["files"] = {
            str(PurePosixPath(one.relative_to(scratch))): {
                "bytes": one.stat().st_size,
                "sha256": file_digest(one),
            }
            for one in sorted(scratch.rglob("*"))
            if one.is_file()
        }
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        if wrong := next(schema.problems(json.loads(text), schema.bundle_schema()), None):
            raise ExportError(f"the description of the export is not as it should be: {wrong}")
        (scratch / MANIFEST).write_text(text, encoding="utf-8")
        if path.suffix == ".zip":
            with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                for one in (MANIFEST, *manifest["files"]):
                    archive.write(scratch / one, one)
        else:
            _replace_folder(scratch, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return read(path)


def check_place(path: Path, files: Path | None = None) -> None:
    """Refuse, before the work, a path where no bundle can be written.

    Args:
        path: of the bundle.
        files: folder of what goes into it; a bundle there would take its place.

    Raises:
        OutputError: the folder cannot be written, or the path holds something else.
    """
    if files is not None and files.resolve().is_relative_to(path.resolve()):
        raise OutputError(f"cannot write {path}: the exported files go to {files}; choose another")
    check_writable(path.parent)
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not empty and not is_bundle(path):
        raise OutputError(f"cannot write {path}: it is there and no bundle; choose another name")


def check_fits(target: Target) -> None:
    """Refuse, before the work, an export that a bundle does not describe.

    Raises:
        InputError: with what to leave out.
    """
    if not target.runs_here:
        raise InputError(
            f"target {target.name} is lowered, not run, on this machine, and a bundle holds what "
            "its files answer: leave out --bundle"
        )


def _replace_folder(made: Path, path: Path) -> None:
    """Folders cannot be exchanged in one step: the old one waits aside, and returns on failure."""
    made.chmod(0o755)  # mkdtemp's are private
    old = path.with_name(f".{path.name}-{secrets.token_hex(4)}.old")
    was_there = path.exists()
    if was_there:
        os.replace(path, old)
    try:
        os.replace(made, path)
    except OSError:
        if was_there:
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _copy_files(folder: Path, exported: Exported) -> list[dict[str, Any]]:
    """The files into the folder; the stages that run them."""
    folder.mkdir()
    # ExecuTorch's may come with its weights in a file of their own.
    data = [_copy(file.path, folder) for file in exported.files if file.path.suffix == ".ptd"]
    stages = []
    for file in exported.files:
        if file.path.suffix == ".ptd":
            continue
        copied = _copy(file.path, folder)
        parts: Mapping[str, ExportedFile | ExportedMethod] = file.methods or {"": file}
        for method, part in parts.items():
            stage = {
                "name": part.stage,
                "file": copied,
                **({"method": method} if method else {}),
                **({"data": data[0]} if data else {}),
                "inputs": {key: asdict(port) for key, port in part.inputs.items()},
                "outputs": {key: asdict(port) for key, port in part.outputs.items()},
                "operators": dict(part.operators),
            }
            stages.append(stage)
    return stages


def _copy(source: Path, folder: Path) -> str:
    shutil.copyfile(source, folder / source.name)
    return f"{folder.name}/{source.name}"


def _describe(
    exported: Exported, stages: list[dict[str, Any]], name: str, network: str
) -> dict[str, Any]:
    """The description but for patch, golden pictures, notice and files."""
    ports = {key: port for stage in stages for key, port in stage["outputs"].items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "runtime": exported.target.partition("-")[0],
        "target": exported.target,
        "recipe": exported.recipe,
        **({"exceptions": dict(exported.exceptions)} if exported.exceptions else {}),
        "network": network,
        "input": {
            "name": "images",
            **stages[0]["inputs"]["images"],
            "layout": exported.layout,
            "channels": "RGB",
            "range": [0.0, 1.0],
        },
        "outputs": [
            {"name": key, **ports[key], "layout": OUTPUTS[key][0], "unit": OUTPUTS[key][1]}
            for key in exported.outputs
        ],
        "conventions": CONVENTIONS,
        "stages": stages,
        "made_by": {"vggt-edge": __version__, **exported.versions},
        "licence": {"software": "Apache-2.0", "notice": "NOTICE"},
    }


def _write_golden(folder: Path, golden: Golden) -> dict[str, Any]:
    folder.mkdir()

    def put(name: str, values: np.ndarray) -> str:
        kind = "u8" if values.dtype == np.uint8 else "f32"
        values.astype(np.uint8 if kind == "u8" else "<f4").tofile(folder / f"{name}.{kind}")
        return f"golden/{name}.{kind}"

    return {
        "images": put("images", golden.images),
        "sets": [
            {"name": name, "truth": bool(truth)}
            for name, truth in zip(golden.names, golden.has_truth, strict=True)
        ],
        "reference": {n: put(f"reference_{n}", v) for n, v in golden.reference.items()},
        "outputs": {n: put(f"output_{n}", v) for n, v in golden.outputs.items()},
        "depth": put("true_depth", golden.depth),
        "camera_from_world": put("true_camera_from_world", golden.camera_from_world),
    }
