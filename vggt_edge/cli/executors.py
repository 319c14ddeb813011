"""``--executor``, ``--address`` and ``--workers``."""

from __future__ import annotations

import torch
import typer

from ..distribute import Executor, LocalExecutor, RayExecutor
from ..errors import InputError

NAMES = ("local", "ray")


def check(name: str, address: str | None, workers: int | None, parted: bool) -> None:
    """Refuse options that do not go together.

    Args:
        name: of the executor.
        address: of the cluster.
        workers: how many.
        parted: whether the work has parts that can be handed out.

    Raises:
        InputError: saying which.
    """
    if name not in NAMES:
        raise InputError(f"unknown executor {name!r}: use {', '.join(NAMES)}")
    if name == "local" and (address is not None or workers is not None):
        raise InputError("--address and --workers are for --executor ray")
    if name == "ray" and not parted:
        raise InputError(
            "--executor ray hands out parts of the work: add --stream, --clusters or --cluster-size"
        )


def open_executor(
    context: typer.Context,
    name: str,
    address: str | None,
    workers: int | None,
    device: torch.device,
) -> Executor:
    """An executor that is closed when the command ends.

    Raises:
        MissingExtraError: ray is not installed.
        InputError: no Ray at the address.
    """
    if name == "local":
        return LocalExecutor()
    gpus = 1.0 if device.type == "cuda" else 0.0
    ray = RayExecutor(address, workers=workers, gpus=gpus)
    return context.with_resource(ray)
