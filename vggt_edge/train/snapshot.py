"""Weights of a run as small files: what travels where a checkpoint is too large to.

A snapshot holds the live weights, their running mean and the correspondence teacher in float16, cut
into files of at most 16 MB, and an index that is written last. The optimiser's two moments, which
would double it, are left out: a run that goes on from a snapshot starts them at zero, as a fresh
AdamW, and warms its learning rate up again over ``TrainConfig.warmup`` steps. Steps are drawn as
they would have been; the weights are not those of an unbroken run, bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoint import refusal
from ..errors import OutputError
from ..files import replacing, write_tensors
from ..model.config import VGGTConfig
from .checkpoints import check_draws
from .trainer import Trainer

INDEX = "snapshot.json"
LIMIT = 16_000_000
# Of a safetensors file: 8 bytes of length, and less than 160 for a name, shape and offsets.
_HEAD, _PER_TENSOR = 4096, 320
PARTS = ("model", "mean", "teacher")


def write_snapshot(trainer: Trainer, folder: Path, limit: int = LIMIT) -> Path:
    """Write a snapshot into ``folder`` and remove the one before; returns the index's path.

    Args:
        trainer: of the run.
        folder: of the snapshot.
        limit: bytes that no file may exceed.

    Raises:
        OutputError: a full disk, or a tensor that is larger than ``limit``.
    """
    files: list[dict[str, Tensor]] = [{}]
    room = limit - _HEAD
    for part in PARTS:
        for name, tensor in getattr(trainer, part).state_dict().items():
            half = tensor.detach().to("cpu", torch.float16).contiguous()
            flat = half.flatten()
            # A tensor may be cut: an embedding is larger than a file.
            start = 0
            while start < max(flat.numel(), 1):
                fits = (room - _PER_TENSOR) // 2
                if fits < min(flat.numel() - start, 1 << 16) and files[-1]:
                    files.append({})
                    room = limit - _HEAD
                    fits = (room - _PER_TENSOR) // 2
                if fits < 1:
                    raise OutputError(f"files of {limit} bytes hold no weights; allow larger ones")
                piece = flat[start : start + fits]
                files[-1][f"{part}.{name}@{start}"] = piece.clone()
                room -= 2 * piece.numel() + _PER_TENSOR
                start += max(piece.numel(), 1)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX
    names = [f"snapshot-{trainer.step:08d}-{number}.safetensors" for number in range(len(files))]
    for name, tensors in zip(names, files, strict=True):
        write_tensors(folder / name, tensors)
    state = {
        "step": trainer.step,
        "config": asdict(replace(trainer.config, kinds=trainer.kinds)),
        "sources": {name: source.digest for name, source in trainer.sources.items()},
        "model_config": trainer.model.config.to_dict(),
        "norms": trainer.norms,
        "files": names,
    }
    with replacing(index) as temporary:
        temporary.write_text(json.dumps(state))
    for old in folder.glob("snapshot-*.safetensors"):
        if old.name not in names:
            old.unlink()
    return index


def resume_snapshot(trainer: Trainer, index: Path) -> None:
    """Go on from a snapshot: weights, running mean, step and draws; see the module for the rest.

    Raises:
        CheckpointError: it is damaged, incomplete, or of another network or other draws.
    """
    try:
        state: dict[str, Any] = json.loads(index.read_text())
        pieces: dict[str, Tensor] = {}
        for name in state["files"]:
            pieces.update(load_file(index.parent / Path(name).name, device=str(trainer.device)))
        config = VGGTConfig.from_dict(state["model_config"])
        step, norms = int(state["step"]), {k: float(v) for k, v in state["norms"].items()}
        state["config"]["kinds"] = tuple(state["config"]["kinds"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refusal(index, f"no whole snapshot of a run ({error}); use another folder") from error
    if config != trainer.model.config:
        raise refusal(index, "is of another network; use its --preset, or another folder")
    check_draws(trainer, state, index)
    for part in PARTS:
        module = getattr(trainer, part)
        whole = {}
        for name, tensor in module.state_dict().items():
            key, flat, start = f"{part}.{name}", [], 0
            while start < max(tensor.numel(), 1):
                piece = pieces.get(f"{key}@{start}")
                if piece is None or (not len(piece) and tensor.numel()):
                    raise refusal(index, f"lacks {key}; use another folder")
                flat.append(piece)
                start += max(len(piece), 1)
            if start != max(tensor.numel(), 1):
                raise refusal(index, f"{key} has another size; use another folder")
            whole[name] = torch.cat(flat).to(tensor.dtype).view_as(tensor)
            if not bool(whole[name].isfinite().all()):
                raise refusal(index, f"{key} is not finite; use another folder")
        module.load_state_dict(whole)
    trainer.step, trainer.norms = step, norms
    trainer.kinds = state["config"]["kinds"]
    trainer.warm_from = step
