"""A Ray cluster: joining it, and sharing out its machines."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from ..errors import InputError

logger = logging.getLogger(__name__)


def connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Join the cluster at an address, or start a Ray on this machine alone.

    Raises:
        InputError: there is none, or it is of another version.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        processors = max(workers or 1, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=processors, include_dashboard=False, **quiet)
        return
    way_out = "start one with `ray start --head`, or leave --address out"
    if "://" in address:
        raise InputError(
            f"{address}: join the cluster on one of its machines and give host:port of its head"
        )
    if address not in ("auto", "local"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"{address} is no address of Ray: give host:port of the head, or auto")
        try:
            # Ray itself would wait for half a minute before it said so, in many lines.
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"no Ray at {address} ({error}): {way_out}") from error
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray at {address} ({last_line(error)}): {way_out}") from error


def share_out(nodes: list[dict[str, Any]], workers: int | None, gpus: float) -> tuple[int, int]:
    """(workers, processors for each): as many as fit at once, by what the machines have.

    Args:
        nodes: as ``ray.nodes`` gives them.
        workers: how many; when None one for each machine, or as many as there are accelerators for.
        gpus: accelerators for each worker.

    Raises:
        InputError: no machine can hold a worker.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    able = [one for one in alive if one.get("CPU", 0) >= 1 and one.get("GPU", 0) >= gpus]
    if not able:
        need = "a free accelerator" if gpus else "a processor"
        raise InputError(f"no machine of the cluster has {need}: `ray status` says what is there")
    room = [int(one["GPU"] // gpus if gpus else one["CPU"]) for one in able]
    if workers is None:
        workers = sum(room) if gpus else len(able)
    threads = min(int(one["CPU"]) for one in able)
    while threads > 1 and workers > sum(
        min(most, int(one["CPU"]) // threads) for one, most in zip(able, room, strict=True)
    ):
        threads -= 1
    if workers > sum(room):
        logger.warning("%d workers, but room for %d: the others wait", workers, sum(room))
    return workers, threads


def last_line(error: BaseException) -> str:
    """The reason in what Ray says: its last line, without the advice that may follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1].split(" Some common causes")[0].split(". Please ")[0].rstrip(".")
