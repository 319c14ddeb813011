"""Batches, ready when the loop asks for them.

On a CPU the renderer of worlds is twice as efficient on one thread as on two, so it works ahead in
processes of its own. On a GPU worlds are built ahead in such processes, which takes Python, and
photographed on the training device by a thread that is one batch ahead; nothing but the scenes has
to travel. What is read from files is read ahead by threads.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from .. import pictures
from ..hardware import keep_heap
from ..worlds import Built, WorldBatch, build, render, shoot
from .batch import Batch, make_batch, regroup
from .curriculum import Draw

READERS = 2

# What makes a batch on a device, once all that needs no device is done.
Ready = Callable[[torch.device], Batch]


class Source(Protocol):
    """What batches are drawn from besides worlds. ``digest`` tells one content from another."""

    digest: str

    def read(self, plan: Draw) -> Ready:
        """The sets of a step, in any thread; what is returned makes the batch in another."""
        ...


def photograph(plan: Draw, device: torch.device | str = "cpu") -> WorldBatch:
    """The views of one step, as ``regroup`` arranges them."""
    return regroup(render(*_size(plan), **_options(plan), device=device), plan.groups)


def _size(plan: Draw) -> tuple[int, int, int, int, int]:
    return plan.seed, plan.worlds, plan.groups * plan.views, plan.height, plan.width


def _options(plan: Draw) -> dict[str, Any]:
    return {"overlap": plan.overlap, "kinds": plan.kinds}


def _photograph_arrays(plan: Draw) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in photograph(plan)]


def _build_arrays(plan: Draw, device: str) -> list[Built]:
    """Built worlds with arrays for tensors, since each tensor would travel as an open file."""
    built = build(*_size(plan), **_options(plan), device=device)
    return [part.map(lambda value: value.numpy(), torch.Tensor) for part in built]


def _from_arrays(arrays: list[np.ndarray], device: torch.device) -> Batch:
    return make_batch(WorldBatch(*(torch.from_numpy(a).to(device) for a in arrays)))


def _shoot(built: list[Built], plan: Draw, device: torch.device) -> Batch:
    tensors = [part.map(torch.from_numpy, np.ndarray) for part in built]
    world = shoot(tensors, plan.worlds, plan.groups * plan.views, device)
    return make_batch(regroup(world, plan.groups))


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
    """Batches by number; a context manager, so that its processes end with it.

    Args:
        plan: the draw of any batch.
        device: of the training.
        workers: processes that work ahead; with 0 everything happens when it is asked for.
        sources: what ``Draw.source`` may name besides "worlds".
    """

    def __init__(
        self,
        plan: Callable[[int], Draw],
        device: torch.device,
        workers: int = 1,
        sources: Mapping[str, Source] | None = None,
    ):
        self.plan = plan
        self.device = device
        self.sources = dict(sources or {})
        self.ahead: dict[int, Future[Any]] = {}
        self.batches: dict[int, Future[Batch]] = {}
        self.pool: ProcessPoolExecutor | None = None
        self.readers: ThreadPoolExecutor | None = None
        self.shooter: ThreadPoolExecutor | None = None
        self.depth = 2 * workers
        if workers:
            # Not forked: a child would inherit locked thread pools.
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(workers, spawn, initializer=_prepare_worker)
            self.readers = ThreadPoolExecutor(READERS)
            if device.type != "cpu":
                self.shooter = ThreadPoolExecutor(1)
        self.quiet = pictures.quiet()

    def __enter__(self) -> Feed:
        self.quiet.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.quiet.__exit__(None, None, None)
        for pool in (self.shooter, self.readers, self.pool):
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def get(self, index: int) -> Batch:
        """The batch of that number; numbers are expected to follow each other."""
        if self.pool is None:
            plan = self.plan(index)
            if plan.source in self.sources:
                return self.sources[plan.source].read(plan)(self.device)
            return make_batch(photograph(plan, self.device))
        for ahead in range(index, index + 1 + self.depth):
            if ahead not in self.ahead and ahead not in self.batches:
                self.ahead[ahead] = self._begin(ahead)
        if self.shooter is None:
            return self._finish(index, self.ahead.pop(index))
        for near in (index, index + 1):
            if near not in self.batches:
                self.batches[near] = self.shooter.submit(self._finish, near, self.ahead.pop(near))
        return self.batches.pop(index).result()

    def _begin(self, index: int) -> Future[Any]:
        """What of a batch can be done elsewhere."""
        plan = self.plan(index)
        if self.pool is None or self.readers is None:
            raise ValueError("a feed without workers does nothing ahead")
        if plan.source in self.sources:
            return self.readers.submit(self.sources[plan.source].read, plan)
        if self.device.type == "cpu":
            return self.pool.submit(_photograph_arrays, plan)
        return self.pool.submit(_build_arrays, plan, self.device.type)

    def _finish(self, index: int, begun: Future[Any]) -> Batch:
        plan, result = self.plan(index), begun.result()
        if plan.source in self.sources:
            ready: Ready = result
        elif self.device.type == "cpu":
            ready = partial(_from_arrays, result)
        else:
            ready = partial(_shoot, result, plan)
        return ready(self.device)
