"""The executor of a Ray cluster: what the function holds is sent once, then items flow.

Each worker is a Ray actor that holds the function, and with it a network and its anchors' keys.
Which worker runs what is decided here and not by Ray's own retries: an actor whose node is gone
waits for its resources, and its items would wait with it.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, LostItemsError, MissingExtraError, WorkerError
from .cluster import connect, last_line, share_out
from .drawn import Drawn
from .executor import Item, Result
from .packing import Packed, pack, unpack

logger = logging.getLogger(__name__)

QUEUED = 2  # items a worker has: one it runs, one that travels meanwhile
LISTEN = 0.1  # seconds for which a silent source keeps finished results waiting


class Worker:
    """What runs on other machines: a function, unpacked once, and items as they come."""

    def __init__(self, packed: Packed, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._function = unpack(packed)

    def version(self) -> str:
        """Of the package and of torch, on which the last bits of a result depend."""
        import torch

        from .. import __version__

        return f"vggt-edge {__version__}, torch {torch.__version__}"

    def run(self, item: bytes) -> bytes:
        """The pickled result for a pickled item."""
        return pickle.dumps(self._function(pickle.loads(item)), protocol=5)


@dataclass(eq=False)
class _Task:
    number: int
    item: Any  # a reference into the object store
    losses: int = 0
    alone: bool = False  # of a lost worker: what shares one with it would share the blame


@dataclass(eq=False)
class _Crew:
    """Actors, those that are ready, and who has which tasks, first given first."""

    ray: Any
    make: Callable[[], Any]
    starting: dict[Any, Any] = field(default_factory=dict)
    ready: dict[Any, deque[tuple[Any, _Task]]] = field(default_factory=dict)

    def hire(self) -> None:
        actor = self.make()
        self.starting[actor.version.remote()] = actor

    def free(self, alone: bool = False) -> Any | None:
        """The worker with least to do that can take one more task, or one that has none."""
        able = [
            worker
            for worker, queue in self.ready.items()
            if len(queue) < (1 if alone else QUEUED) and not any(task.alone for _, task in queue)
        ]
        return min(able, key=lambda one: len(self.ready[one]), default=None)

    def give(self, worker: Any, task: _Task) -> None:
        self.ready[worker].append((worker.run.remote(task.item), task))

    def running(self) -> dict[Any, tuple[Any, _Task]]:
        return {
            reference: (worker, task)
            for worker, queue in self.ready.items()
            for reference, task in queue
        }

    def finish(self, worker: Any, reference: Any) -> None:
        self.ready[worker] = deque(pair for pair in self.ready[worker] if pair[0] != reference)

    def bury(self, worker: Any) -> list[_Task]:
        """Forget a lost worker; the tasks it had."""
        self.ray.kill(worker)  # out of reach, it may live on and hold its processors
        return [task for _, task in self.ready.pop(worker)]

    def dismiss(self) -> None:
        for actor in (*self.starting.values(), *self.ready):
            self.ray.kill(actor)


class RayExecutor:
    """Workers on a Ray cluster; a context manager that lets go of them.

    The function goes into the object store once and is mapped into every worker; of the items a few
    are under way at a time. A result is exactly what this machine would have computed with as many
    threads as a worker has processors, where processors and torch are the same.

    A lost worker's items are run again by others, and a new worker is asked for in its place. An
    item whose workers were lost ``attempts`` times is given up, after all others are done.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        gpus: float = 0.0,
        attempts: int = 4,
        patience: float = 60.0,
    ) -> None:
        """Connect.

        Args:
            address: host:port of a cluster's head, or "auto" for the one this machine belongs to.
                When None the one in RAY_ADDRESS, or else a Ray on this machine alone that ends with
                the executor.
            workers: how many; when None one for each machine of the cluster, or, with ``gpus``, as
                many as its accelerators allow.
            gpus: accelerators, or a share of one, for each worker.
            attempts: how often an item is given to a worker that is then lost.
            patience: seconds to wait while there is no worker at all.

        Raises:
            MissingExtraError: ray is not installed.
            InputError: no Ray at the address, or of another version; impossible numbers.
        """
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray", "RayExecutor") from error
        self._ray: Any = ray
        self._attempts, self._gpus = attempts, gpus
        self.patience = patience
        self._shared: tuple[Any, Any] | None = None
        self._owns = not ray.is_initialized()
        if self._owns:
            connect(ray, address or os.environ.get("RAY_ADDRESS"), workers)
        self.workers, self.threads = share_out(ray.nodes(), workers, gpus)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, or stop the Ray that this executor started."""
        self._shared = None
        if self._owns:
            self._ray.shutdown()
            self._owns = False

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order in which they are finished, each once.

        A further item is drawn, by a thread, as soon as a worker has room; a silent source holds
        no result back.

        Raises:
            WorkerError: no worker could be had; LostItemsError: items were given up.
        """
        # The object store keeps the function while a reference to it lives.
        if self._shared is None or self._shared[0] is not function:
            self._shared = (function, self._ray.put(pack(function)))
        shared = self._shared[1]
        make = self._ray.remote(Worker).options(
            num_cpus=self.threads, num_gpus=self._gpus, scheduling_strategy="SPREAD"
        )
        crew = _Crew(self._ray, lambda: make.remote(shared, self.threads))
        source = Drawn(items)
        try:
            yield from self._work(crew, source)
        finally:
            source.close()
            crew.dismiss()

    def _work(self, crew: _Crew, source: Drawn) -> Iterator[Any]:
        again: deque[_Task] = deque()
        given_up: list[_Task] = []
        drawn = finished = stillborn = 0
        last_word = "none became ready: are processors or accelerators of the cluster free?"
        for _ in range(self.workers):
            crew.hire()
        alone_since = time.monotonic()
        while True:
            while again and (worker := crew.free(alone=True)) is not None:
                crew.give(worker, again.popleft())
            silent = False
            while not (again or silent) and (worker := crew.free()) is not None:
                silent = True
                for item in source.take(LISTEN):
                    reference = self._ray.put(pickle.dumps(item, protocol=5))
                    crew.give(worker, _Task(drawn, reference))
                    drawn += 1
                    silent = False
            running = crew.running()
            if source.exhausted and not running and not again:
                break
            if crew.ready:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self.patience or stillborn > self._attempts:
                raise WorkerError(
                    f"no worker is left, {finished} items are done: {last_word}; run it again, "
                    "what was written is kept"
                )
            if not (running or crew.starting):
                continue  # all is done that has come; listen again
            seconds = 0.0 if silent and not source.exhausted else 1.0
            awaited = [*running, *crew.starting]
            done, _ = self._ray.wait(awaited, num_returns=1, timeout=seconds)
            for reference in done:
                try:
                    value = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError as error:
                    # The function's own error: no other worker would do better.
                    if isinstance(error.cause, Exception):
                        raise error.cause from error
                    raise
                except self._ray.exceptions.RayError as error:
                    last_word = last_line(error)
                    if crew.starting.pop(reference, None) is not None:
                        stillborn += 1
                        if stillborn <= self._attempts:
                            crew.hire()
                        continue
                    worker = running[reference][0]
                    if worker not in crew.ready:
                        continue  # another of its tasks said so already
                    crew.hire()
                    first, *others = tasks = crew.bury(worker)
                    first.losses += 1
                    for task in tasks:
                        task.alone = True
                    logger.warning("a worker was lost, its items go to others: %s", last_word)
                    again.extend(others)
                    (given_up if first.losses >= self._attempts else again).append(first)
                    continue
                if reference in crew.starting:
                    crew.ready[crew.starting.pop(reference)] = deque()
                    stillborn = 0
                    _compare(value)
                elif running[reference][0] in crew.ready:
                    crew.finish(running[reference][0], reference)
                    finished += 1
                    yield pickle.loads(value)
        if given_up:
            raise LostItemsError(
                f"{len(given_up)} of {drawn} items were given up, the first number "
                f"{min(task.number for task in given_up)}: their workers were lost "
                f"{self._attempts} times: {last_word}"
            )


def _compare(theirs: str) -> None:
    import torch

    from .. import __version__

    ours = f"vggt-edge {__version__}, torch {torch.__version__}"
    if theirs != ours:
        logger.warning("a worker has %s, this machine %s: last digits may differ", theirs, ours)
