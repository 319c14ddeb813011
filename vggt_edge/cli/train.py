"""``vggt-edge train``: train a small VGGT on procedural worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, JsonOption, finish


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
    seed: Annotated[int, typer.Option(help="Seed of weights and data.", metavar="N", min=0)] = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a network on procedural worlds.

    Writes checkpoint.pt, log.jsonl, curves.png and model.safetensors, which reconstruct takes as
    --model. Ctrl-C stops it; the same command resumes from the last checkpoint.
    """
    from ..errors import InputError
    from ..files import check_writable
    from ..hardware import keep_heap, pick_device
    from ..model.config import PRESETS
    from ..model.vggt import VGGT
    from ..train import curves
    from ..train.curriculum import CURRICULUM
    from ..train.export import export
    from ..train.initialize import initialize
    from ..train.loop import TrainConfig, Trainer, run
    from ..weights import load

    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    if not batch > 0:
        raise InputError(f"--batch {batch}: give a number above 0")
    target = pick_device(device)
    keep_heap()
    curves.check()
    check_writable(folder)
    config = TrainConfig(
        steps=steps, batch=batch, learning_rate=learning_rate, decay=decay, every=every, seed=seed
    )
    if start is None:
        network = initialize(VGGT(PRESETS[preset]), seed)
    else:
        network = load(start, device="cpu", dtype="float32").requires_grad_(True)
    network = network.to(target)
    trainer = Trainer(network, config)
    if start is not None:
        trainer.step = CURRICULUM[0].steps  # trained weights need no single views
    seconds = None if minutes is None else 60 * minutes
    checkpoint = run(trainer, folder, typer.echo, stop_after=seconds)
    picture = curves.plot(folder / "log.jsonl", folder / "curves.png")
    weights = export(checkpoint, folder / "model.safetensors")
    lines = [f"step {trainer.step}", f"  weights  {weights}", f"  curves   {picture}"]
    data = {"step": trainer.step, "weights": str(weights), "curves": str(picture)}
    finish(lines, data, json)
