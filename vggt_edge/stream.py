"""Any number of views in constant memory: the anchors once, then all others a few at a time.

With anchors, no other view is ever a key. So the keys and values of the anchors are kept, in the
precision of the weights, and every other view is run on its own: what comes out is what one run
over all views would have given.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import attention, memory
from .distribute import Executor, LocalExecutor
from .errors import InputError
from .model.sparse import KeyCache
from .model.vggt import VGGT
from .predict import check_views, run, wanted_heads
from .sparse_plan import SparsePlan
from .types import Prediction, Views

WINDOW = 2  # times the number of anchors: so many views of a source without end choose them


def join_views(parts: Sequence[Views]) -> Views:
    """One set of several, in order; they must be of one size."""
    if len(parts) == 1:
        return parts[0]
    return Views(
        images=np.concatenate([part.images for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        sources=tuple(source for part in parts for source in part.sources),
        source_sizes=np.concatenate([part.source_sizes for part in parts]),
        source_from_view=np.concatenate([part.source_from_view for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
    )


def _named_once(source: Iterable[Views]) -> Iterator[Views]:
    """The source, refused where a name comes again: by names it is known what is finished."""
    seen: set[str] = set()
    for part in source:
        for name in part.names:
            if name in seen:
                raise InputError(
                    f"two views of the source are called {name}: give each a name of its own, for "
                    "example Views.from_images(images, names=(...))"
                )
            seen.add(name)
        yield part


def _check_size(views: Views, size: tuple[int, int]) -> None:
    if views.size != size:
        name = views.names[0] if views.names else "an empty set"
        raise InputError(
            f"{name} is a view of {views.size[1]}x{views.size[0]}, the stream is of "
            f"{size[1]}x{size[0]}; read all pictures alike, for example mode='pad'"
        )


class AnchorStream:
    """A model, the anchors it has seen, and their keys.

    Attributes
        anchors  names of the anchors; empty before they were run.
        cache    their keys and values; ``cache.tensors()`` can go to a file or another process,
                 where ``restore`` continues.
    """

    def __init__(
        self,
        model: VGGT,
        *,
        heads: Sequence[str] | None = None,
        batch: int | None = None,
        window: int | None = None,
    ):
        """See ``predict_stream`` for the arguments.

        Raises:
            InputError: a head the model does not have, or a model without anchors.
        """
        if model.sparsity is None or model.sparsity.mode not in ("anchors", "auto"):
            raise InputError(
                "streaming needs anchors, as other modes let every view be seen: "
                "make_sparse(model, 'anchors'), or --attention anchors"
            )
        if model.sparsity.camera != "anchors":
            raise InputError("streaming needs camera='anchors': the camera head sees all views")
        if batch is not None and batch < 1:
            raise InputError(f"batch must be at least 1, got {batch}")
        self.model = model
        self.heads = wanted_heads(model.config, heads)
        self.sparsity = replace(model.sparsity, mode="anchors")
        self.batch = batch
        self.window = WINDOW * self.sparsity.anchors if window is None else window
        self.anchors: tuple[str, ...] = ()
        self.size: tuple[int, int] | None = None
        self.cache = KeyCache()

    def __getstate__(self) -> dict[str, Any]:
        # To another process go the anchors' keys, and not the room for a batch's beside them; nor
        # the network that chose them.
        return {
            **self.__dict__,
            "model": attention.without_describer(self.model),
            "cache": KeyCache.from_tensors(self.cache.tensors()),
        }

    def restore(self, anchors: Sequence[str], size: tuple[int, int], cache: KeyCache) -> None:
        """Continue where another stream with the same model and options stands."""
        self.anchors, self.size, self.cache = tuple(anchors), size, cache

    def _plan(self, views: int, anchors: Sequence[int]) -> SparsePlan:
        return self.sparsity.plan(views, self.model.config.depth, anchors=anchors)

    def start(self, anchors: Views) -> Prediction:
        """Run the anchors; the first of them fixes the world frame.

        Raises:
            InputError: no views, or of a size the model cannot take.
            TooLargeError: they do not fit in memory.
        """
        check_views(self.model.config, anchors)
        plan = self._plan(len(anchors), range(len(anchors)))
        self._require(anchors, plan, plan)
        self.cache = KeyCache()
        prediction = run(self.model, anchors, self.heads, plan=plan, cache=self.cache)
        self.anchors, self.size = anchors.names, anchors.size
        return prediction

    def add(self, views: Views) -> Prediction:
        """Run further views, which are no anchors, in one go.

        Raises:
            InputError: of another size than the anchors, or before them.
            TooLargeError: they do not fit in memory.
        """
        if self.size is None:
            raise InputError("a stream needs its anchors first: call start")
        check_views(self.model.config, views)
        _check_size(views, self.size)
        plan = self._plan(len(views), ()).others(len(views))
        self._require(views, plan, None)
        return run(self.model, views, self.heads, plan=plan, cache=self.cache)

    def _require(self, views: Views, plan: SparsePlan, new: SparsePlan | None) -> None:
        parameter = next(self.model.parameters())
        itemsize, config = parameter.element_size(), self.model.config
        kept = memory.cache_bytes(config, new, *views.size, itemsize) if new else 0
        memory.require(
            replace(config, heads=self.heads),
            len(views),
            views.size,
            itemsize,
            parameter.device,
            plan=plan,
            kept=kept,
        )

    def run(
        self,
        views: Views | Iterable[Views],
        *,
        anchors: Sequence[int] | None = None,
        done: Collection[str] = (),
        executor: Executor | None = None,
    ) -> Iterator[Prediction]:
        """``predict_stream``; views named in ``done`` are left out."""
        coming = _named_once([views] if isinstance(views, Views) else views)
        first: list[Views] = []
        if not self.anchors:
            first = self._first(coming)
            known = join_views(first)
            check_views(self.model.config, known)
            plan = attention.plan_for(
                self.model, known, anchors=anchors, sparsity=self.sparsity, executor=executor
            )
            chosen = list(plan.anchors) if plan else [0]
            yield self.start(known[chosen])
        skip = {*self.anchors, *done}
        batches = (
            batch for part in itertools.chain(first, coming) for batch in self._batches(part, skip)
        )
        yield from (executor or LocalExecutor()).map(self.add, batches)

    def _first(self, coming: Iterator[Views]) -> list[Views]:
        parts: list[Views] = []
        for part in coming:
            parts.append(part)
            _check_size(part, parts[0].size)
            if sum(map(len, parts)) >= self.window:
                break
        if not parts:
            raise InputError("no views to predict from")
        return parts

    def _batches(self, views: Views, skip: set[str]) -> Iterator[Views]:
        left = [i for i, name in enumerate(views.names) if name not in skip]
        batch = self.batch or memory.aggregator_chunk(self.model.config, *views.size)
        for start in range(0, len(left), batch):
            yield views[left[start : start + batch]]


def predict_stream(
    model: VGGT,
    views: Views | Iterable[Views],
    *,
    heads: Sequence[str] | None = None,
    anchors: Sequence[int] | None = None,
    batch: int | None = None,
    window: int | None = None,
    executor: Executor | None = None,
) -> Iterator[Prediction]:
    """Predict without end: first the anchors, then all other views in order, as they come.

    Cameras are all in the frame of the first view. Device memory does not grow with the number of
    views, and the numbers are those of ``predict`` with the same anchors.

    Args:
        model: after ``make_sparse(model, "anchors")``.
        views: a set, or any source of sets of one view size: a camera, a growing folder. Of a set
            the anchors cover all views. Of a source they are chosen, by the same rule, among the
            first ``window`` views, and are never changed: what comes later should overlap them.
            Names must be unique.
        heads: which of the model's heads to run, all but "track" when None.
        anchors: indices of the anchors among the views, or the window's; the first view is added.
        batch: views at a time, as many as are in flight in ``predict`` when None. Views of a source
            are never held back to fill one.
        window: twice the number of anchors when None.
        executor: who describes views and runs batches, this process when None. The anchors are run
            here in any case, and their keys go to each worker once.

    Yields:
        A Prediction of the anchors, then one of each batch, in order if the executor keeps it.

    Raises:
        InputError: a model without anchors, no views, or views of different sizes or equal names.
        TooLargeError: the anchors or a batch do not fit in memory.
        WorkerError: the executor has no workers left.
    """
    stream = AnchorStream(model, heads=heads, batch=batch, window=window)
    yield from stream.run(views, anchors=anchors, executor=executor)
