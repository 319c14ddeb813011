"""The training loop: draw, step; checkpoint, validate, log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..model.vggt import VGGT
from .checkpoints import resume, save_checkpoint
from .feed import Feed
from .snapshot import INDEX, resume_snapshot, write_snapshot
from .trainer import Trainer
from .validate import Score, validate

SNAPSHOTS = "snapshot"
LOSSES = ("depth", "camera", "point", "look", "own", "match", "place", "motion", "size")


def summary(row: dict[str, Any]) -> str:
    """One line of the log for people; the baseline's scores in brackets."""
    taught = "".join(f"{key} {row[key]:.3f}  " for key in LOSSES if key in row)
    return (
        f"step {{step}}  {taught}{{views_per_second:.0f}} views/s  "
        "AbsRel {abs_rel:.3f} ({baseline_abs_rel:.3f})  AUC@30 {auc30:.3f} ({baseline_auc30:.3f})  "
        "rotation {rotation_auc30:.3f} ({baseline_rotation_auc30:.3f})"
    ).format(**row)


def run(
    trainer: Trainer,
    folder: Path,
    report: Callable[[str], None],
    stop_after: float | None = None,
    validator: Callable[[VGGT], Score] | None = None,
    workers: int = 1,
    snapshot_every: float | None = None,
) -> Path:
    """Train for the configured steps or ``stop_after`` seconds, resuming from the folder.

    Writes ``checkpoint.pt`` and appends to ``log.jsonl`` in ``folder``; every ``snapshot_every``
    seconds, and at the end, also the files of a ``snapshot`` in a folder of that name, from which a
    run goes on that has no checkpoint. Without a ``validator`` it
    is ``validate`` on the kinds of worlds that the run is trained on: what is held out must not
    choose between checkpoints.

    Returns:
        path of the last checkpoint.

    Raises:
        CheckpointError: the folder holds a checkpoint that cannot be gone on from.
        OutputError: a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        resume(trainer, checkpoint)
        report(f"resumed at step {trainer.step}")
    elif (folder / SNAPSHOTS / INDEX).exists():
        resume_snapshot(trainer, folder / SNAPSHOTS / INDEX)
        save_checkpoint(trainer, checkpoint)
        report(f"resumed the weights of step {trainer.step}, without the optimiser's memory")
    begin = mark = taken = time.monotonic()
    window: list[dict[str, float]] = []
    config = trainer.config
    if validator is None:
        validator = partial(validate, kinds=trainer.kinds)
    with Feed(trainer.plan, trainer.device, workers, trainer.sources) as feed:
        while trainer.step < config.steps:
            first = trainer.step * config.accumulate
            parts = range(first, first + config.accumulate)
            window.append(trainer.train_step(feed.get(index) for index in parts))
            now = time.monotonic()
            out_of_time = stop_after is not None and now - begin > stop_after
            at_end = out_of_time or trainer.step >= config.steps
            if snapshot_every is not None and (at_end or now - taken >= snapshot_every):
                write_snapshot(trainer, folder / SNAPSHOTS)
                taken = now
            if trainer.step % config.every and not at_end:
                continue
            elapsed = time.monotonic() - mark
            row: dict[str, Any] = {"step": trainer.step}
            for key in (*LOSSES, "norm", "rate"):
                found = [values[key] for values in window if key in values]
                if found:
                    row[key] = sum(found) / len(found)
            row["views_per_second"] = sum(values["images"] for values in window) / elapsed
            row.update(asdict(validator(trainer.mean)))
            save_checkpoint(trainer, checkpoint)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            report(summary(row))
            window, mark = [], time.monotonic()
            if out_of_time:
                break
    return checkpoint
