"""Rendered worlds, ready when the loop asks for them.

On a CPU the renderer is twice as efficient on one thread as on two, so it works ahead in processes
of its own; on a GPU it draws on the training device, and nothing has to travel.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType

import numpy as np
import torch

from ..hardware import keep_heap
from ..worlds import WorldBatch, render
from .batch import regroup
from .curriculum import Draw


def photograph(plan: Draw, device: torch.device | str = "cpu") -> WorldBatch:
    """The views of one step, as ``regroup`` arranges them."""
    world = render(
        plan.seed,
        plan.worlds,
        plan.groups * plan.views,
        plan.height,
        plan.width,
        overlap=plan.overlap,
        device=device,
    )
    return regroup(world, plan.groups)


def _photograph_arrays(plan: Draw) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in photograph(plan)]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _prepare_worker() -> None:
    keep_heap()
    torch.set_num_threads(1)
    # Ctrl-C on a terminal reaches every process; the parent ends this one, or dies itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


class Feed:
    """Worlds by step; a context manager, so that its processes end with it.

    Args:
        plan: the draw of any step.
        device: of the training.
        workers: rendering processes on the CPU; 0 renders in this process.
    """

    def __init__(self, plan: Callable[[int], Draw], device: torch.device, workers: int = 1):
        self.plan = plan
        self.device = device
        self.ahead: dict[int, Future[list[np.ndarray]]] = {}
        self.pool: ProcessPoolExecutor | None = None
        self.depth = 2 * workers
        if workers and device.type == "cpu":
            # Not forked: a child would inherit locked thread pools.
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(workers, spawn, initializer=_prepare_worker)

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int) -> WorldBatch:
        """The worlds of ``step``; steps are expected to follow each other."""
        if self.pool is None:
            return photograph(self.plan(step), self.device)
        for ahead in range(step, step + 1 + self.depth):
            if ahead not in self.ahead:
                self.ahead[ahead] = self.pool.submit(_photograph_arrays, self.plan(ahead))
        arrays = self.ahead.pop(step).result()
        return WorldBatch(*(torch.from_numpy(array) for array in arrays))
