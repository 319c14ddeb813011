"""Predict to disk, then score the files: two loops, of which the first one can be resumed.

Predictions lie in ``FOLDER/<method>/<dataset>/<recording>.npz`` (``outputs.npz``), each beside a
``.json`` that says what was asked and the hash of the file. One whose request and hash agree is not
made again, so a run that was killed goes on where it stopped, and scoring costs no prediction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..errors import InputError
from ..files import file_digest, replacing
from ..images import read_views
from ..outputs import finite_json, npz
from ..recording import Recording
from ..types import Prediction, Views
from .protocol import Protocol
from .score import score

Predictor = Callable[[Views], Prediction]


@dataclass(frozen=True)
class Method:
    """One thing that is scored.

    Fields
        name      unique in a run; names its folder.
        predict   Views to Prediction.
        size      longer side of the views it is given, as in ``read_views``.
        patch     of which the views' sides are multiples.
        mode      how pictures become views: "keep", "crop" or "pad".
        identity  text that changes whenever its predictions would; None: nothing is reused.
        baseline  it is there to be beaten.
    """

    name: str
    predict: Predictor
    size: int
    patch: int = 14
    mode: str = "keep"
    identity: str | None = None
    baseline: bool = False


@dataclass(frozen=True)
class Result:
    """How a method did.

    Fields
        method  what was scored.
        scores  recording name to metric name to value; what could not be scored is absent.
        files   recording name to the prediction on disk.
        reused  how many predictions were there already.
    """

    method: Method
    scores: dict[str, dict[str, float]]
    files: dict[str, Path]
    reused: int

    def values(self, metric: str) -> dict[str, float]:
        """The metric of every recording that has it."""
        return {name: row[metric] for name, row in self.scores.items() if metric in row}


def evaluate(
    method: Method,
    dataset: str,
    recordings: Sequence[Recording],
    protocol: Protocol,
    folder: Path,
    *,
    progress: bool = False,
) -> Result:
    """Predict every recording to disk where that is not done, then score the files.

    Args:
        method: what to score.
        dataset: names the folder of the predictions.
        recordings: every frame of them is a view.
        protocol: what is scored.
        folder: of the run.
        progress: show bars for work over two seconds.

    Raises:
        InputError: nothing of what is no baseline could be scored.
        ImageError: a picture cannot be read.
        OutputError: the folder cannot be written.
    """
    place = folder / method.name / dataset
    files: dict[str, Path] = {}
    scores: dict[str, dict[str, float]] = {}
    reused = 0
    for recording in _bar(recordings, f"predict {method.name}", progress):
        files[recording.name] = place / f"{recording.name}.npz"
        reused += _predict(method, recording, files[recording.name])
    for recording in _bar(recordings, f"score {method.name}", progress):
        row = score(protocol, recording, read_prediction(files[recording.name]))
        scores[recording.name] = {name: v for name, v in row.items() if math.isfinite(v)}
    if not method.baseline and not any(scores.values()):
        raise InputError(
            f"protocol {protocol.name} finds nothing to score in {dataset}: it needs a truth that "
            f"the data lack, or an output that {method.name} lacks; try --protocol vggt-edge"
        )
    return Result(method, scores, files, reused)


def read_prediction(path: Path) -> Prediction:
    """A prediction that ``evaluate`` has written."""
    read = npz.read(path)
    return read if isinstance(read, Prediction) else read.prediction


def _bar(recordings: Sequence[Recording], what: str, progress: bool) -> Any:
    return tqdm(recordings, desc=what, unit="recording", delay=2, leave=False, disable=not progress)


def _predict(method: Method, recording: Recording, path: Path) -> bool:
    """Make the file if need be; whether it was there."""
    note = path.with_name(f"{path.name.removesuffix('.npz')}.json")
    request = {
        "version": __version__,
        "method": method.name,
        "identity": method.identity,
        "size": method.size,
        "patch": method.patch,
        "mode": method.mode,
        "pictures": [[one.name, file_digest(one)] for one in recording.paths],
    }
    if method.identity is not None and _is_done(path, note, request):
        return True
    views = read_views(recording.paths, size=method.size, mode=method.mode, patch=method.patch)
    npz.write(method.predict(views), path)
    content = {**request, "sha256": file_digest(path)}
    with replacing(note) as temporary:
        temporary.write_text(finite_json.encode(content, note, indent=1) + "\n", encoding="utf-8")
    return False


def _is_done(path: Path, note: Path, request: dict[str, Any]) -> bool:
    if not (path.is_file() and note.is_file()):
        return False
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:  # edited or damaged: predict again
        return False
    return bool(found == {**request, "sha256": file_digest(path)})
