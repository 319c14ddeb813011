"""The part of ``vggt-edge reconstruct --stream`` that runs views and keeps count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..distribute import Executor
from ..model.vggt import VGGT
from ..outputs.frames import finished, size_of, write_stream
from ..types import Views


class Streamed(NamedTuple):
    """How many views a folder holds, how many of them this run added, and their (height, width)."""

    views: int
    new: int
    size: tuple[int, int]


def run(
    network: VGGT,
    source: Views | Iterable[Views],
    out: Path,
    heads: Sequence[str],
    progress: bool,
    executor: Executor,
) -> Streamed:
    """Stream a source into a folder, going on where it was stopped."""
    total = len(source) if isinstance(source, Views) else None
    new = 0
    with tqdm(
        total=total, desc="stream", unit="view", delay=2, leave=False, disable=not progress
    ) as bar:
        for prediction in write_stream(network, source, out, heads=heads, executor=executor):
            new += len(prediction.views)
            bar.update(len(prediction.views))
    return Streamed(len(finished(out)), new, size_of(out))
