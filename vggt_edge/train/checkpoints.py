"""Checkpoints of a run: written whole, and gone on from exactly."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import PICKLE_ERRORS, refusal
from ..errors import OutputError
from ..files import replacing
from ..model.config import VGGTConfig
from ..worlds import KINDS
from .trainer import Trainer

# What decides the batches of a step: it must not change within a run.
DRAWN_BY = ("seed", "batch", "accumulate", "kinds", "data", "pictures")
# What runs did before they could choose, and so did not write down.
BEFORE = {"accumulate": 1, "kinds": KINDS, "data": 0.0, "pictures": 0.0}


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write everything, whole or not at all."""
    with replacing(path) as temporary:
        try:
            torch.save(trainer.state(), temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            reason = str(error).partition("\n")[0]
            raise OutputError(f"cannot write {path}: {reason}; free some space") from error


def check_draws(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    """Refuse to go on with other draws than a run began with: it could not be told what it saw.

    Raises:
        CheckpointError: seed, batch, kinds of worlds or other sources differ.
        KeyError: the state is not of a run.
    """
    began = {**BEFORE, **state["config"]}
    for name in DRAWN_BY:
        then, now = began[name], getattr(trainer.config, name)
        if name == "kinds" and now is None:
            continue
        if then != now:
            raise refusal(path, f"was drawn with {name} {then}, not {now}; start anew")
    digests = {name: source.digest for name, source in trainer.sources.items()}
    if state.get("sources", {}) != digests:
        raise refusal(path, "was drawn from other data or pictures; give the same, or start anew")


def resume(trainer: Trainer, path: Path) -> None:
    """Go on from a checkpoint of an earlier run.

    Raises:
        CheckpointError: a damaged checkpoint, or one of another network or other draws.
    """
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        config = VGGTConfig.from_dict(state["model_config"])
    except (pickle.UnpicklingError, *PICKLE_ERRORS) as error:
        raise refusal(path, "no checkpoint of a training run; use another folder") from error
    if config != trainer.model.config:
        raise refusal(path, "is of another network; use its --preset, or another folder")
    try:
        check_draws(trainer, state, path)
        trainer.load_state(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise refusal(path, f"does not fit this version ({error}); use another folder") from error
