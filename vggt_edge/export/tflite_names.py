"""Names of a ``.tflite`` file's tensors, without LiteRT: a table walk through its flatbuffer.

LiteRT's benchmark binary knows inputs by the names of their tensors, apps by those of the
signature. Field numbers are those of ``schema.fbs`` (tensorflow/compiler/mlir/lite/schema).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from ..errors import ExportError


class Names(NamedTuple):
    """Names in a signature to names of tensors, in the order the file has them."""

    inputs: dict[str, str]
    outputs: dict[str, str]


class _Table:
    """One flatbuffer table: fields by number."""

    def __init__(self, data: mmap.mmap, place: int):
        self._data, self._place = data, place
        self._fields = place - struct.unpack_from("<i", data, place)[0]

    def _field(self, number: int) -> int | None:
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        entry = 4 + 2 * number
        if entry >= size:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + entry)[0]
        return self._place + offset if offset else None

    def _target(self, place: int) -> int:
        return place + struct.unpack_from("<I", self._data, place)[0]

    def integer(self, number: int) -> int:
        place = self._field(number)
        return 0 if place is None else struct.unpack_from("<I", self._data, place)[0]

    def integers(self, number: int) -> list[int]:
        place = self._field(number)
        if place is None:
            return []
        start = self._target(place)
        count = struct.unpack_from("<I", self._data, start)[0]
        return list(struct.unpack_from(f"<{count}i", self._data, start + 4))

    def text(self, number: int) -> str:
        place = self._field(number)
        if place is None:
            return ""
        start = self._target(place)
        size = struct.unpack_from("<I", self._data, start)[0]
        return self._data[start + 4 : start + 4 + size].decode()

    def tables(self, number: int) -> list[_Table]:
        place = self._field(number)
        if place is None:
            return []
        start = self._target(place)
        count = struct.unpack_from("<I", self._data, start)[0]
        places = (start + 4 + 4 * index for index in range(count))
        return [_Table(self._data, self._target(one)) for one in places]


def tensor_names(path: Path) -> Names:
    """Inputs and outputs of a file's first signature.

    Raises:
        ExportError: no ``.tflite`` file, or one without a signature.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] != b"TFL3":
                raise ExportError(f"{path} is no .tflite file")
            model = _Table(data, struct.unpack_from("<I", data, 0)[0])
            signatures = model.tables(7)
            if not signatures:
                raise ExportError(f"{path} has no signature")
            signature = signatures[0]
            graph = model.tables(2)[signature.integer(4)]
            tensors = [table.text(3) for table in graph.tables(0)]
            found = []
            for kind, order in ((0, graph.integers(1)), (1, graph.integers(2))):
                named = {one.integer(1): one.text(0) for one in signature.tables(kind)}
                found.append({named[index]: tensors[index] for index in order if index in named})
            return Names(*found)
    except (struct.error, IndexError, ValueError) as error:
        raise ExportError(f"{path} is damaged: {error}") from error
