"""``vggt-edge train``: train a small VGGT on procedural worlds, recordings and another VGGT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .report import DeviceOption, JsonOption, finish

if TYPE_CHECKING:
    from ..train.recorded import Recorded


def command(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of the run; one that has begun is resumed.", metavar="FOLDER"),
    ],
    preset: Annotated[
        str, typer.Option(help="Which network: pocket or vggt-1b.", metavar="NAME")
    ] = "pocket",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Begin with MODEL's weights, not with random ones, and with pairs.",
            metavar="MODEL",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(help="Optimiser steps in all.", metavar="N", min=1)
    ] = 200_000,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after so many minutes.", metavar="MINUTES", min=0),
    ] = None,
    batch: Annotated[
        float,
        typer.Option(help="Scale the batches of the curriculum by FACTOR.", metavar="FACTOR"),
    ] = 1.0,
    learning_rate: Annotated[
        float, typer.Option(help="Peak learning rate.", metavar="RATE", min=0)
    ] = 6e-4,
    decay: Annotated[
        int,
        typer.Option(
            help="Let the learning rate fall over the last N steps.",
            metavar="N",
            min=1,
        ),
    ] = 10_000,
    every: Annotated[
        int,
        typer.Option(help="Validate and write a checkpoint every N steps.", metavar="N", min=1),
    ] = 250,
    accumulate: Annotated[
        int,
        typer.Option(help="Batches whose mean gradient makes a step.", metavar="N", min=1),
    ] = 1,
    hold_out: Annotated[
        str | None,
        typer.Option(
            help="Kinds of worlds never shown, separated by commas, or none; a new run holds out "
            "terrace and depot, a resumed one what it began with.",
            metavar="KINDS",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Train on posed RGB-D recordings too.", metavar="FOLDER"),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="Layout of --data: a dataset of evaluate, perhaps with a split, NAME:SPLIT.",
            metavar="NAME",
        ),
    ] = "cameras",
    data_share: Annotated[
        float,
        typer.Option(help="Share of batches from --data.", metavar="SHARE", min=0, max=1),
    ] = 0.4,
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn from this VGGT's answers on --pictures.", metavar="MODEL"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Unlabelled pictures for --teacher; each folder in FOLDER is a scene.",
            metavar="FOLDER",
        ),
    ] = None,
    pictures_share: Annotated[
        float,
        typer.Option(help="Share of batches from --pictures.", metavar="SHARE", min=0, max=1),
    ] = 0.4,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that work ahead; by default 1 on a CPU, all spare cores beside a GPU.",
            metavar="N",
            min=0,
        ),
    ] = None,
    snapshots: Annotated[
        float | None,
        typer.Option(
            help="Every so many minutes, write weights in half precision as files of at most "
            "16 MB; a folder that holds nothing else is gone on from these.",
            metavar="MINUTES",
            min=0,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.", metavar="N", min=0)] = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a network on procedural worlds, and on recordings and a teacher's answers if given.

    Writes checkpoint.pt, log.jsonl, curves.png and model.safetensors, which reconstruct takes as
    --model. Ctrl-C stops it; the same command resumes from the last checkpoint.
    """
    from ..errors import InputError
    from ..files import check_writable
    from ..hardware import keep_heap, pick_device, spare_cores
    from ..model.config import PRESETS
    from ..model.vggt import VGGT
    from ..train import curves
    from ..train.curriculum import steps_of_beginners
    from ..train.distill import Distilled, scenes_of
    from ..train.export import export
    from ..train.feed import Source
    from ..train.initialize import initialize
    from ..train.loop import run
    from ..train.trainer import TrainConfig, Trainer
    from ..weights import load

    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    if not batch > 0:
        raise InputError(f"--batch {batch}: give a number above 0")
    target = pick_device(device)
    keep_heap()
    curves.check()
    check_writable(folder)
    if (teacher is None) != (pictures is None):
        raise InputError("--teacher and --pictures need each other: a VGGT, and what it looks at")
    sources: dict[str, Source] = {}
    if data is not None:
        sources["data"] = _recorded(data, layout)
    if teacher is not None and pictures is not None:
        scenes = scenes_of(pictures)
        labels = load(teacher, heads=("camera", "depth"), device=target)
        sources["pictures"] = Distilled(labels, scenes)
    data_share = data_share if "data" in sources else 0.0
    pictures_share = pictures_share if "pictures" in sources else 0.0
    if data_share + pictures_share > 1:
        raise InputError("--data-share and --pictures-share are more than 1 together")
    config = TrainConfig(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        decay=decay,
        every=every,
        seed=seed,
        accumulate=accumulate,
        kinds=_kinds(hold_out),
        data=data_share,
        pictures=pictures_share,
    )
    if start is None:
        network = initialize(VGGT(PRESETS[preset]), seed)
    else:
        network = load(start, device="cpu", dtype="float32").requires_grad_(True)
    network = network.to(target)
    trainer = Trainer(network, config, sources=sources)
    if start is not None:
        trainer.step = steps_of_beginners()
        trainer.warm_from = trainer.step
    seconds = None if minutes is None else 60 * minutes
    if workers is None:
        workers = 1 if target.type == "cpu" else max(1, spare_cores())
    checkpoint = run(
        trainer,
        folder,
        typer.echo,
        stop_after=seconds,
        workers=workers,
        snapshot_every=None if snapshots is None else 60 * snapshots,
    )
    picture = curves.plot(folder / "log.jsonl", folder / "curves.png")
    weights = export(checkpoint, folder / "model.safetensors")
    lines = [f"step {trainer.step}", f"  weights  {weights}", f"  curves   {picture}"]
    facts = {"step": trainer.step, "weights": str(weights), "curves": str(picture)}
    finish(lines, facts, json)


def _kinds(hold_out: str | None) -> tuple[str, ...] | None:
    """The kinds of worlds to draw from; None for the default."""
    from ..errors import InputError
    from ..worlds import KINDS

    if hold_out is None:
        return None
    held = {name for name in hold_out.split(",") if name not in ("", "none")}
    if unknown := held - set(KINDS):
        raise InputError(
            f"--hold-out {', '.join(sorted(unknown))}: choose from {', '.join(KINDS)}, or none"
        )
    if held == set(KINDS):
        raise InputError("--hold-out leaves no kind of world to train on")
    return tuple(kind for kind in KINDS if kind not in held)


def _recorded(folder: Path, layout: str) -> Recorded:
    """The recordings of ``--data``; says which cannot be used."""
    from ..evaluate.datasets import dataset
    from ..train.recorded import Recorded

    name, _, split = layout.partition(":")
    reader = dataset(name)
    recorded = Recorded(reader.read(folder, split or reader.splits[0]))
    if recorded.left_out:
        typer.echo(f"left out, without cameras or depth: {', '.join(recorded.left_out)}", err=True)
    return recorded
