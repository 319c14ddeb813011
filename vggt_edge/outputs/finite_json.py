"""JSON that every reader takes: NaN and infinity, which Python would write, are no JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import OutputError


def encode(value: object, path: str | Path, *, indent: int | None = None) -> str:
    """``value`` as JSON for the file ``path``, compact unless ``indent`` is given.

    Raises:
        OutputError: a number in it is NaN or infinite; the message names ``path``.
    """
    separators = (",", ":") if indent is None else None
    try:
        return json.dumps(value, indent=indent, separators=separators, allow_nan=False)
    except ValueError as error:
        raise OutputError(
            f"cannot write {path}: a number of the prediction is NaN or infinite; "
            "predict again in float32"
        ) from error
