"""Forward passes over clusters, through an executor: resumed, retried once, failures named."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from ..attention import describer
from ..distribute import Executor, LocalExecutor
from ..errors import LostItemsError, VGGTEdgeError
from ..model.vggt import VGGT
from ..predict import predict
from ..types import Prediction, Views
from .cluster_store import ClusterStore
from .features import feature_similarity

Predictor = Callable[[Views], Prediction]

_SILENT = "no result came back"
# What may go wrong in one pass and not in the next; anything else is a mistake in the code.
FAILURES = (
    VGGTEdgeError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
)


class ModelPredictor:
    """A network as a predictor: camera and depth of a set of views in one pass.

    And as a judge of whether views show one place, see ``verification``.
    """

    def __init__(self, model: VGGT) -> None:
        self.model = model

    def __call__(self, views: Views) -> Prediction:
        """Predict."""
        return predict(self.model, views, heads=("camera", "depth"))

    def feature_similarity(self, views: Views) -> np.ndarray:
        """(S, S) how much of each view is found in every other."""
        return feature_similarity(self.model, views)

    @property
    def identity(self) -> str:
        """Says which network this is: its settings, and a sample of each of its tensors.

        And the same of the network that chooses its anchors, if that is another one.
        """
        digest = hashlib.sha256(repr((self.model.config, self.model.sparsity)).encode())
        tensors = list(self.model.state_dict().items())
        if (chooser := describer(self.model)) is not self.model:
            digest.update(f"{type(chooser).__name__} {chooser.config}".encode())
            tensors += chooser.state_dict().items()
        for name, tensor in tensors:
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // 16)][:16].double().cpu().numpy()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(sample.tobytes())
        return digest.hexdigest()


def identity_of(predictor: Predictor) -> str:
    """The predictor's own ``identity``, or else its name."""
    own = getattr(predictor, "identity", None)
    named = getattr(predictor, "__qualname__", type(predictor).__qualname__)
    return own if isinstance(own, str) else f"{type(predictor).__module__}.{named}"


def run_passes(
    predictor: Predictor,
    views: Views,
    passes: Sequence[Sequence[int]],
    store: ClusterStore,
    executor: Executor | None = None,
    progress: bool = False,
) -> dict[int, str]:
    """Predict every pass that is not in the store yet, and put it there.

    Args:
        predictor: for a set of views, their cameras and depth.
        views: all views.
        passes: the views of each pass, by number.
        store: where predictions are kept.
        executor: who runs the passes; this process when None.
        progress: show a bar on standard error for work over two seconds.

    Returns:
        Passes that failed twice, or were lost with their workers, and why.

    Raises:
        OutputError: a prediction cannot be written; what was written before is found by a rerun.
        WorkerError: there are no workers left.
    """
    executor = executor or LocalExecutor()
    attempt = functools.partial(_attempt, predictor)
    failed: dict[int, str] = {}
    pending = [
        number for number, frames in enumerate(passes) if store.load(views[list(frames)]) is None
    ]
    with tqdm(
        total=len(passes),
        initial=len(passes) - len(pending),
        desc="clusters",
        unit="pass",
        delay=2,
        leave=False,
        disable=not progress,
    ) as bar:
        for last in (False, True):
            failed = dict.fromkeys(pending, _SILENT)
            items = ((number, views[list(passes[number])]) for number in pending)
            try:
                for number, outcome in executor.map(attempt, items):
                    if isinstance(outcome, str):
                        failed[number] = outcome
                    else:
                        store.save(outcome)
                        failed.pop(number, None)
                    bar.update(last or not isinstance(outcome, str))
            except LostItemsError as error:
                silent = (number for number, why in failed.items() if why == _SILENT)
                failed |= dict.fromkeys(silent, str(error))
            pending = sorted(failed)
    return failed


def _attempt(predictor: Predictor, item: tuple[int, Views]) -> tuple[int, Prediction | str]:
    """The number of a pass with its prediction, or in a line why there is none."""
    number, views = item
    try:
        prediction = predictor(views)
        _check(prediction)
    except FAILURES as error:
        return number, in_a_line(error)
    return number, prediction


def in_a_line(error: BaseException) -> str:
    """What an error says, without its line breaks; its kind when it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _check(prediction: Prediction) -> None:
    cameras, depth = prediction.cameras, prediction.depth
    if cameras is None or depth is None:
        raise ValueError("the prediction lacks cameras or depth")
    if not (np.isfinite(cameras.camera_from_world).all() and np.isfinite(depth).any()):
        raise ValueError("the prediction is not finite")
