"""``vggt-edge train``: train a small VGGT on procedural worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .report import DeviceOption, JsonOption, finish


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of the run; an existing one is resumed.")],
    preset: Annotated[str, typer.Option(help="Which network: a preset's name.")] = "pocket",
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.")] = 200_000,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.")] = None,
    budget: Annotated[int, typer.Option(help="Pixels per step over all views.")] = 24 * 112 * 112,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 6e-4,
    decay: Annotated[
        int, typer.Option(help="Steps over which the rate falls at the end.")
    ] = 10_000,
    every: Annotated[int, typer.Option(help="Steps between validations and checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train on procedural worlds; writes checkpoint, log, curves.png and model.safetensors."""
    from ..errors import InputError
    from ..hardware import pick_device
    from ..model.config import PRESETS
    from ..model.vggt import VGGT
    from ..train.curves import plot
    from ..train.export import export
    from ..train.initialize import initialize
    from ..train.loop import TrainConfig, Trainer, run

    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    config = TrainConfig(
        steps=steps, budget=budget, learning_rate=learning_rate, decay=decay, every=every, seed=seed
    )
    network = initialize(VGGT(PRESETS[preset]), seed).to(pick_device(device))
    trainer = Trainer(network, config)
    seconds = None if minutes is None else 60 * minutes
    checkpoint = run(trainer, folder, typer.echo, stop_after=seconds)
    curves = plot(folder / "log.jsonl", folder / "curves.png")
    weights = export(checkpoint, folder / "model.safetensors")
    lines = [f"step {trainer.step}", f"  weights  {weights}", f"  curves   {curves}"]
    data = {"step": trainer.step, "weights": str(weights), "curves": str(curves)}
    finish(lines, data, json)
