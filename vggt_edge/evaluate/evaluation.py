"""A whole evaluation: what is scored on what, by which rules, and what came out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError, MissingExtraError
from ..files import replacing
from ..outputs import finite_json
from ..recording import Recording
from . import baselines, bootstrap, protocols
from .bootstrap import Interval
from .datasets import Dataset
from .datasets import dataset as dataset_called
from .protocol import Protocol, select_all
from .run import Method, Result, evaluate


@dataclass(frozen=True)
class Task:
    """What is to be scored on: ``recordings`` hold the frames that the protocol takes, no more."""

    dataset: Dataset
    root: Path
    split: str
    protocol: Protocol
    recordings: tuple[Recording, ...]

    @property
    def scores_poses(self) -> bool:
        """Whether there are true cameras, and the protocol compares with them."""
        wanted = self.protocol.poses or self.protocol.trajectories
        return bool(wanted) and any(
            one.cameras is not None and len(one) > 1 for one in self.recordings
        )


@dataclass(frozen=True)
class Evaluation:
    """What came out. ``results`` are the models in the order given, then the baselines.

    Fields
        task      what was scored on.
        results   one a method.
        left_out  baseline to the reason why it has no row.
    """

    task: Task
    results: tuple[Result, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> tuple[Result, ...]:
        """The results that are no baseline's."""
        return tuple(result for result in self.results if not result.method.baseline)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that any method has a value of: the protocol's, then the rest."""
        names = (name for one in self.results for row in one.scores.values() for name in row)
        return sorted(dict.fromkeys(names), key=lambda name: name in ("focal_error", "found"))

    def summary(self, result: Result) -> dict[str, Interval]:
        """Metric to its mean over recordings, as the protocol averages, with its interval."""
        return self._summaries[result.method.name]

    @cached_property
    def _summaries(self) -> dict[str, dict[str, Interval]]:
        average = self.task.protocol.average
        return {one.method.name: bootstrap.summarize(one.scores, average) for one in self.results}

    def deltas(self) -> dict[str, Interval]:
        """Metric to second model minus first, paired by recording; nothing with one model."""
        if len(self.models) < 2:
            return {}
        first, second = self.models[:2]
        return bootstrap.compare(second.scores, first.scores, self.task.protocol.average)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        task = self.task
        data: dict[str, Any] = {
            "version": __version__,
            "dataset": task.dataset.name,
            "split": task.split,
            "protocol": task.protocol.name,
            "beside": task.protocol.beside,
            "sampling": asdict(task.protocol.sampling),
            "units": task.dataset.units,
            "recordings": {one.name: len(one) for one in task.recordings},
            "methods": [self._method(result) for result in self.results],
            "left_out": self.left_out,
        }
        if deltas := self.deltas():
            data["deltas"] = {
                "of": [result.method.name for result in self.models[1::-1]],
                "metrics": _plain(deltas),
            }
        return data

    def _method(self, result: Result) -> dict[str, Any]:
        return {
            "name": result.method.name,
            "baseline": result.method.baseline,
            "identity": result.method.identity,
            "size": result.method.size,
            "mode": result.method.mode,
            "reused": result.reused,
            "summary": _plain(self.summary(result)),
            "recordings": result.scores,
        }

    def write(self, path: Path) -> Path:
        """Write ``to_dict`` as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        with replacing(path) as temporary:
            text = finite_json.encode(self.to_dict(), path, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
        return path


def _plain(intervals: dict[str, Interval]) -> dict[str, dict[str, float | None]]:
    """For JSON, which has no NaN: the ends of an interval of one recording are null."""
    return {
        metric: {key: value if value == value else None for key, value in one._asdict().items()}
        for metric, one in intervals.items()
    }


def prepare(
    dataset: str,
    root: str | Path | None,
    *,
    split: str | None = None,
    protocol: str = protocols.DEFAULT,
    views: int | None = None,
    stride: int | None = None,
    limit: int | None = None,
    draws: str = "sequence",
) -> Task:
    """Read a dataset and choose from it, before any network is loaded.

    Args:
        dataset: a name from ``datasets.MODULES``.
        root: its folder.
        split: of the dataset; its first when None.
        protocol: a name from ``protocols.NAMES``.
        views: per recording, instead of the protocol's.
        stride: take every so many frames, from the first on, instead of what the protocol takes.
        limit: at most so many recordings, spread evenly.
        draws: how random frames are drawn, "sequence" or "published" (``protocol.Sampling``).

    Raises:
        InputError: an unknown name, a root that is missing or of another layout, nothing to score.
    """
    source = dataset_called(dataset)
    rules = protocols.protocol(protocol, dataset, frames=views, stride=stride, draws=draws)
    split = split or source.splits[0]
    if split not in source.splits:
        known = ", ".join(source.splits)
        raise InputError(f"{source.title} has no split {split}; there are {known}")
    if root is None:
        raise InputError(f"{source.title} needs --root, the folder it is in. {source.fetch}")
    every = source.read(Path(root), split)
    enough = [
        recording[indices]
        for recording, indices in zip(every, select_all(every, rules), strict=True)
        if len(indices)
    ]
    recordings = [one for one in enough if one.cameras or one.depth or one.points]
    if not recordings:
        raise InputError(
            f"nothing to score in {root}: of {len(every)} recordings, {len(enough)} have the "
            f"frames that protocol {protocol} asks for, and none of these has a truth; see "
            "--views, --stride, --split and --protocol"
        )
    if limit is not None and len(recordings) > limit:
        order = np.linspace(0, len(recordings) - 1, limit).round().astype(int)
        recordings = [recordings[index] for index in order]
    return Task(source, Path(root), split, rules, tuple(recordings))


def run(
    task: Task,
    methods: Sequence[Method],
    folder: str | Path,
    *,
    colmap: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Score methods and, at the views of the first one, the baselines.

    Args:
        task: from ``prepare``.
        methods: what is scored, with different names.
        folder: for the predictions; what is there and still valid is reused.
        colmap: run COLMAP too, where poses are scored.
        progress: show bars for work over two seconds.

    Raises:
        InputError: two methods of one name, or one named like a baseline.
        ImageError: a picture cannot be read.
        OutputError: the folder cannot be written.
    """
    names = [method.name for method in methods]
    if len({*names, *baselines.BASELINES}) < len(names) + len(baselines.BASELINES):
        raise InputError(
            f"methods {', '.join(names)}: names must differ from each other and from "
            f"{', '.join(baselines.BASELINES)}"
        )
    every, left_out = [*methods, _baseline(methods[0], "constant")], {}
    if not task.scores_poses:
        left_out["colmap"] = "no poses to score"
    elif not colmap:
        left_out["colmap"] = "not asked for"
    else:
        try:
            baselines.check_colmap()
            every.append(_baseline(methods[0], "colmap"))
        except MissingExtraError as error:
            warnings.warn(str(error), stacklevel=2)
            left_out["colmap"] = str(error)
    results = [
        evaluate(
            one, task.dataset.name, task.recordings, task.protocol, Path(folder), progress=progress
        )
        for one in every
    ]
    return Evaluation(task, tuple(results), left_out)


def _baseline(like: Method, name: str) -> Method:
    return replace(like, name=name, predict=baselines.BASELINES[name], identity=name, baseline=True)
