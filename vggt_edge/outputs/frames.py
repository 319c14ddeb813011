"""A folder that fills while views are streamed, and from which a stopped run goes on.

    manifest.jsonl         first line: what ran (network, attention, views' size) and its anchors;
                           then one line a finished view: name, place in the source, file, cameras.
    frames/NAME.npz        the Prediction of one view, as ``npz`` writes it.
    anchors.safetensors    keys and values of the anchors.

A view is finished when its line is there. Its file was whole before; of a torn last line, which a
kill can leave, nothing is taken.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..distribute import Executor
from ..errors import InputError, OutputError
from ..files import check_writable, replacing, write_tensors
from ..model.sparse import KeyCache
from ..model.vggt import VGGT
from ..stream import AnchorStream, join_views
from ..types import Cameras, Prediction, Views
from . import finite_json, npz

FORMAT = "vggt-edge frames 1"
MANIFEST = "manifest.jsonl"
ANCHORS = "anchors.safetensors"


def write_stream(
    model: VGGT,
    views: Views | Iterable[Views],
    folder: str | Path,
    *,
    heads: Sequence[str] | None = None,
    anchors: Sequence[int] | None = None,
    batch: int | None = None,
    window: int | None = None,
    executor: Executor | None = None,
) -> Iterator[Prediction]:
    """``predict_stream`` into a folder: each view's file is there before its Prediction is yielded.

    In a folder of the same network and options it goes on where it stopped: the anchors are read
    and no finished view is run, or yielded, again. Views are known by their names.

    Args:
        model: after ``make_sparse(model, "anchors")``.
        views: see ``predict_stream``, as for the other arguments.
        folder: made if need be.

    Raises:
        InputError: as ``predict_stream``.
        OutputError: the folder holds something else, cannot be written, or the disk is full.
        TooLargeError: the anchors or a batch do not fit in memory.
        WorkerError: the executor has no workers left.
    """
    folder = Path(folder)
    stream = AnchorStream(model, heads=heads, batch=batch, window=window)
    made_by = _settings(stream)
    done = _resume(stream, folder, made_by)
    place: dict[str, int] = {}

    def counted() -> Iterator[Views]:
        for part in (views,) if isinstance(views, Views) else views:
            for name in part.names:
                place.setdefault(name, len(place))
            yield part

    for prediction in stream.run(counted(), anchors=anchors, done=done, executor=executor):
        lines = [_write_frame(prediction, i, folder, place) for i in range(len(prediction.views))]
        if stream.anchors == prediction.views.names:
            _write_head(stream, folder, made_by, lines)
        else:
            _append(folder / MANIFEST, lines)
        yield prediction


def finished(folder: str | Path) -> set[str]:
    """Names of the views that are there; one whose file somebody removed is not."""
    _, rows = _read_manifest(Path(folder))
    return {name for name, row in rows.items() if (Path(folder) / row["file"]).exists()}


def size_of(folder: str | Path) -> tuple[int, int]:
    """(height, width) of the views a folder holds.

    Raises:
        InputError: it holds none.
    """
    head, _ = _read_manifest(Path(folder))
    if head is None:
        raise _no_stream(folder)
    height, width = head["size"]
    return height, width


def _no_stream(folder: str | Path) -> InputError:
    return InputError(f"{folder} holds no streamed views (no {MANIFEST}); give another folder")


def read_stream(folder: str | Path) -> Prediction:
    """All finished views of a folder as one Prediction, in the order of their source.

    Raises:
        InputError: no such folder, or a file in it has gone or is damaged.
    """
    folder = Path(folder)
    head, rows = _read_manifest(folder)
    if head is None:
        raise _no_stream(folder)
    parts = []
    for row in sorted(rows.values(), key=lambda row: row["index"]):
        part = npz.read(folder / row["file"])
        if not isinstance(part, Prediction):
            raise InputError(f"{folder / row['file']} holds a scene, not a view; stream it again")
        parts.append(part)
    return _join(parts)


def _join(parts: Sequence[Prediction]) -> Prediction:
    cameras = [part.cameras for part in parts if part.cameras is not None]

    def arrays(name: str) -> np.ndarray | None:
        found = [getattr(part, name) for part in parts if getattr(part, name) is not None]
        return np.concatenate(found) if found else None

    names = ("depth", "depth_confidence", "points", "points_confidence")
    return Prediction(
        join_views([part.views for part in parts]),
        Cameras(
            np.concatenate([one.intrinsics for one in cameras]),
            np.concatenate([one.camera_from_world for one in cameras]),
            np.concatenate([one.sizes for one in cameras]),
        )
        if cameras
        else None,
        **{name: arrays(name) for name in names},
    )


def _select(prediction: Prediction, index: int) -> Prediction:
    """The Prediction of one of its views."""
    one = slice(index, index + 1)

    def part(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[one]

    cameras = prediction.cameras
    return Prediction(
        prediction.views[one],
        None
        if cameras is None
        else Cameras(cameras.intrinsics[one], cameras.camera_from_world[one], cameras.sizes[one]),
        part(prediction.depth),
        part(prediction.depth_confidence),
        part(prediction.points),
        part(prediction.points_confidence),
    )


def _settings(stream: AnchorStream) -> dict[str, Any]:
    """What must be the same for a stream to go on."""
    checksum = 0
    for name, tensor in stream.model.state_dict().items():
        sample = tensor.detach().reshape(-1)[:1024].contiguous().cpu()
        checksum = zlib.crc32(sample.view(torch.uint8).numpy().tobytes(), checksum)
        checksum = zlib.crc32(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(), checksum)
    settings = {
        "config": stream.model.config.to_dict(),
        "weights": f"{checksum:08x}",
        "heads": stream.heads,
        "attention": asdict(stream.sparsity),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _resume(stream: AnchorStream, folder: Path, made_by: dict[str, Any]) -> set[str]:
    """Put the stream where the folder stands; the names of finished views."""
    check_writable(folder)
    head, _ = _read_manifest(folder)
    if head is None:
        return set()
    if head["made_by"] != made_by:
        raise OutputError(
            f"{folder} holds views of another network or of other options; choose another folder, "
            "or remove it to begin anew"
        )
    try:
        with safe_open(folder / ANCHORS, "pt") as file:
            device = next(stream.model.parameters()).device
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{folder / ANCHORS} cannot be read: {error}; remove {folder} to begin anew"
        ) from error
    manifest = folder / MANIFEST
    os.truncate(
        manifest, manifest.read_bytes().rfind(b"\n") + 1
    )  # a torn line would spoil the next
    stream.restore(head["anchors"], tuple(head["size"]), KeyCache.from_tensors(tensors))
    return finished(folder)


def _read_manifest(folder: Path) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The first line, None without a manifest, and the finished views by name."""
    path = folder / MANIFEST
    if not path.exists():
        return None, {}
    head: dict[str, Any] | None = None
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # torn by a kill
        row = json.loads(line)
        if head is None:
            head = row
        else:
            rows[row["name"]] = row
    if head is None or head.get("format") != FORMAT:
        raise OutputError(f"{path} is not of this version ({FORMAT}); choose another folder")
    return head, rows


def _write_frame(
    prediction: Prediction, index: int, folder: Path, place: dict[str, int]
) -> dict[str, Any]:
    one, name = _select(prediction, index), prediction.views.names[index]
    file = f"frames/{name}.npz"
    npz.write(one, folder / file)
    row: dict[str, Any] = {"name": name, "index": place[name], "file": file}
    if one.cameras is not None:
        row["intrinsics"] = one.cameras.intrinsics[0].tolist()
        row["camera_from_world"] = one.cameras.camera_from_world[0].tolist()
    return row


def _write_head(
    stream: AnchorStream, folder: Path, made_by: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    # The manifest comes last: without it a run begins anew, with it everything must be there.
    write_tensors(folder / ANCHORS, stream.cache.tensors())
    head = {
        "format": FORMAT,
        "made_by": made_by,
        "size": stream.size,
        "anchors": stream.anchors,
    }
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text("".join(_line(row, folder) for row in (head, *lines)))


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("ab") as file:
            file.write("".join(_line(row, path) for row in rows).encode())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space and run again: "
            "finished views are kept"
        ) from error


def _line(row: dict[str, Any], path: Path) -> str:
    return finite_json.encode(row, path) + "\n"
