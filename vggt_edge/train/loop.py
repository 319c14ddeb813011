"""The training loop: render, forward, balanced backward, step; checkpoint, validate, log."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import PICKLE_ERRORS, refusal
from ..errors import NumericError, OutputError
from ..files import replacing
from ..model.aggregator import Tap
from ..model.config import VGGTConfig
from ..model.vggt import VGGT
from ..worlds import WorldBatch
from .batch import Batch, make_batch
from .curriculum import CURRICULUM, Draw, Stage, draw, stage_at
from .feed import Feed
from .losses import balanced_gradients, losses
from .match import Teacher
from .validate import Score, validate

# Norms of the gradients at the trunk, beside the camera's, which the curriculum sets.
SHARES = {"depth": 1.0, "point": 0.7, "match": 1.0}
# What decides the batch of a step: it must not change within a run.
DRAWN_BY = ("seed", "batch")


@dataclass(frozen=True)
class TrainConfig:
    """Dials of a run.

    Fields
        steps            optimiser steps in all; the learning rate decays over the last ``decay``.
        batch            factor on the curriculum's pixels per step.
        learning_rate    peak, reached after ``warmup`` steps and then held (WSD schedule).
        ema              decay of the running mean of the weights, which is what is shipped.
        every            steps between validations and checkpoints.
    """

    steps: int = 100_000
    batch: float = 1.0
    learning_rate: float = 6e-4
    warmup: int = 300
    decay: int = 10_000
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    every: int = 250
    seed: int = 0
    bf16: bool = True


def learning_rate(step: int, config: TrainConfig) -> float:
    """Warm up, stay, decay (Hu et al., MiniCPM, 2024): linear up, constant, 1 - sqrt down."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    left = config.steps - step
    if left >= config.decay:
        return config.learning_rate
    return config.learning_rate * (1 - math.sqrt(max(0.0, 1 - left / config.decay)))


class Trainer:
    """Model, its running mean, optimiser and step counter; everything a checkpoint holds."""

    def __init__(
        self, model: VGGT, config: TrainConfig, curriculum: tuple[Stage, ...] = CURRICULUM
    ):
        self.model = model
        self.config = config
        self.curriculum = curriculum
        self.device = next(model.parameters()).device
        self.step = 0
        self.mean = copy.deepcopy(model).eval().requires_grad_(False)
        self.teacher = Teacher(model.config).to(self.device)
        taught = [*model.parameters(), *self.teacher.parameters()]
        decayed = [p for p in taught if p.requires_grad and p.ndim >= 2]
        plain = [p for p in taught if p.requires_grad and p.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-15,  # gradients are scaled to what clipping leaves of them, which may be tiny
            weight_decay=0.0,
            fused=True,
        )
        self.norms: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return {
            "step": self.step,
            "config": asdict(self.config),
            "model_config": self.model.config.to_dict(),
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norms": self.norms,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; the model must be of the same config."""
        self.step = state["step"]
        self.norms = dict(state["norms"])
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])

    def backward(self, batch: Batch, shares: dict[str, float]) -> dict[str, float]:
        """Accumulate gradients of one batch; returns the losses.

        The heads' losses meet at the tapped tokens. There each head's gradient is scaled to its
        share before the trunk sees it, for the raw camera gradient drowns the depth's.
        """
        use_bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)
        with use_bf16, self.teacher.watching(self.model) as seen:
            taps = self.model.aggregator(batch.images)
        ends = [t for tap in taps for t in tap]
        cut = [t.detach().requires_grad_() for t in ends]
        cut_taps = [Tap(*cut[i : i + 2]) for i in range(0, len(cut), 2)]
        patch = self.model.config.patch_size
        grid = (batch.images.shape[3] // patch, batch.images.shape[4] // patch)
        with use_bf16:
            output = self.model.decode(cut_taps, grid)
        gradients: dict[str, list[Tensor]] = {}
        values = {}
        by_head = losses(output, batch)
        by_head["point"] = self.teacher.point_loss(cut_taps[-1], batch)
        for head, loss in by_head.items():
            (loss * shares[head]).backward()
            gradients[head] = [
                torch.zeros_like(t) if t.grad is None else t.grad / shares[head] for t in cut
            ]
            for t in cut:
                t.grad = None
            self._remember(head, gradients[head])
            values[head] = float(loss.detach())
        pulls = balanced_gradients(gradients, self.norms, shares)
        if batch.images.shape[1] > 1:
            # Matching meets the trunk further down, where its gradient is scaled in the same way.
            loss = self.teacher.match_loss(seen, batch)
            at = torch.autograd.grad(loss, [watched.x for watched in seen], retain_graph=True)
            self._remember("match", at)
            values["match"] = float(loss.detach())
            ends.append(loss)
            pulls.append(loss.new_tensor(shares["match"] / max(self.norms["match"], 1e-12)))
        torch.autograd.backward(ends, pulls)
        return values

    def _remember(self, head: str, gradients: Sequence[Tensor]) -> None:
        """A running mean of the norm of a head's gradient."""
        norm = math.sqrt(sum(float(g.float().square().sum()) for g in gradients))
        self.norms[head] = 0.98 * self.norms.get(head, norm) + 0.02 * norm

    def plan(self, step: int) -> Draw:
        """What is drawn at a step."""
        patch, config = self.model.config.patch_size, self.config
        return draw(step, patch, config.seed, config.batch, self.curriculum)

    def train_step(self, world: WorldBatch) -> dict[str, float]:
        """One optimiser step on the worlds that belong to ``self.step``."""
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        camera = stage_at(self.step, self.curriculum).camera
        values = self.backward(make_batch(world), {**SHARES, "camera": camera})
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not math.isfinite(float(norm)):
            raise NumericError(f"the gradient of step {self.step} is not finite")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # A short run needs a shorter memory than a long one.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, live in zip(self.mean.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(live, 1 - decay)
        self.step += 1
        values.update(
            norm=float(norm), rate=rate, images=world.depth.shape[0] * world.depth.shape[1]
        )
        return values


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write everything, whole or not at all."""
    with replacing(path) as temporary:
        try:
            torch.save(trainer.state(), temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            reason = str(error).partition("\n")[0]
            raise OutputError(f"cannot write {path}: {reason}; free some space") from error


def resume(trainer: Trainer, path: Path) -> None:
    """Go on from a checkpoint of an earlier run.

    Raises:
        CheckpointError: a damaged checkpoint, or one of another network, seed or batch.
    """
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        config = VGGTConfig.from_dict(state["model_config"])
    except (pickle.UnpicklingError, *PICKLE_ERRORS) as error:
        raise refusal(path, "no checkpoint of a training run; use another folder") from error
    if config != trainer.model.config:
        raise refusal(path, "is of another network; use its --preset, or another folder")
    try:
        for name in DRAWN_BY:
            then, now = state["config"][name], getattr(trainer.config, name)
            if then != now:
                raise refusal(path, f"was drawn with {name} {then}, not {now}; start anew")
        trainer.load_state(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise refusal(path, f"does not fit this version ({error}); use another folder") from error


def summary(row: dict[str, Any]) -> str:
    """One line of the log for people; the baseline's scores in brackets."""
    return (
        "step {step}  depth {depth:.3f}  camera {camera:.3f}  {views_per_second:.0f} views/s  "
        "AbsRel {abs_rel:.3f} ({baseline_abs_rel:.3f})  AUC@30 {auc30:.3f} ({baseline_auc30:.3f})  "
        "rotation {rotation_auc30:.3f} ({baseline_rotation_auc30:.3f})"
    ).format(**row)


def run(
    trainer: Trainer,
    folder: Path,
    report: Callable[[str], None],
    stop_after: float | None = None,
    validator: Callable[[VGGT], Score] = validate,
    workers: int = 1,
) -> Path:
    """Train for the configured steps or ``stop_after`` seconds, resuming from the folder.

    Writes ``checkpoint.pt`` and appends to ``log.jsonl`` in ``folder``.

    Returns:
        path of the last checkpoint.

    Raises:
        CheckpointError: the folder holds a checkpoint that cannot be gone on from.
        OutputError: a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        resume(trainer, checkpoint)
        report(f"resumed at step {trainer.step}")
    begin = mark = time.monotonic()
    window: list[dict[str, float]] = []
    config = trainer.config
    with Feed(trainer.plan, trainer.device, workers) as feed:
        while trainer.step < config.steps:
            window.append(trainer.train_step(feed.get(trainer.step)))
            out_of_time = stop_after is not None and time.monotonic() - begin > stop_after
            if trainer.step % config.every and not out_of_time and trainer.step < config.steps:
                continue
            elapsed = time.monotonic() - mark
            row: dict[str, Any] = {"step": trainer.step}
            for key in ("depth", "camera", "point", "match", "norm", "rate"):
                found = [values[key] for values in window if key in values]
                if found:
                    row[key] = sum(found) / len(found)
            row["views_per_second"] = sum(values["images"] for values in window) / elapsed
            row.update(asdict(validator(trainer.mean)))
            save_checkpoint(trainer, checkpoint)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            report(summary(row))
            window, mark = [], time.monotonic()
            if out_of_time:
                break
    return checkpoint
