"""Network, running mean, optimiser and step counter: what a run trains, a step at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import NumericError
from ..model.aggregator import Tap
from ..model.vggt import VGGT
from ..worlds import KINDS
from .batch import Batch
from .curriculum import CURRICULUM, Draw, Stage, draw, stage_at
from .feed import Source
from .initialize import center_camera_tokens
from .losses import balanced_gradients, losses
from .match import Seen, Teacher, true_matches

# Norms of the gradients at the trunk, beside the camera's, which the curriculum sets.
SHARES = {
    "depth": 1.0,
    "point": 0.7,
    "look": 0.3,
    "own": 0.7,
    "match": 1.0,
    "place": 1.0,
    "motion": 1.0,
    "size": 1.0,
}
# Losses that can reach nothing, and where they begin to pull less: a share is a norm whatever the
# loss, and the gradient of nothing is noise.
FADING = {"look": 0.1, "size": 1.0}
# Kinds of worlds that training never shows, so that they can be scored as unseen.
HELD_OUT = ("terrace", "depot")
TRAINED_KINDS = tuple(kind for kind in KINDS if kind not in HELD_OUT)


@dataclass(frozen=True)
class TrainConfig:
    """Dials of a run.

    Fields
        steps            optimiser steps in all; the learning rate decays over the last ``decay``.
        batch            factor on the curriculum's pixels per step.
        learning_rate    peak, reached after ``warmup`` steps and then held (WSD schedule).
        ema              decay of the running mean of the weights, which is what is shipped.
        every            steps between validations and checkpoints.
        accumulate       batches whose mean gradient makes a step; each is drawn on its own.
        kinds            of worlds to draw from. None: of a resumed run those it began with, else
                         all but ``HELD_OUT``.
        data             share of the batches that is drawn from the source "data".
        pictures         share of the batches that is drawn from the source "pictures".
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
    accumulate: int = 1
    kinds: tuple[str, ...] | None = None
    data: float = 0.0
    pictures: float = 0.0


def learning_rate(step: int, config: TrainConfig, warm_from: int = 0) -> float:
    """Warm up, stay, decay (Hu et al., MiniCPM, 2024): linear up, constant, 1 - sqrt down.

    ``warm_from`` is the step at which the optimiser began with nothing remembered.
    """
    left = config.steps - step
    rate = config.learning_rate
    if left < config.decay:
        rate *= 1 - math.sqrt(max(0.0, 1 - left / config.decay))
    warm = step - warm_from
    return rate * (warm + 1) / config.warmup if warm < config.warmup else rate


def source_at(step: int, part: int, config: TrainConfig) -> str:
    """Where a batch is drawn from; a pure function of (step, part, seed), as ``draw`` is."""
    if not config.data and not config.pictures:
        return "worlds"
    chance = np.random.default_rng([config.seed, step, part, 1]).random()
    if chance < config.data:
        return "data"
    return "pictures" if chance < config.data + config.pictures else "worlds"


class Trainer:
    """Model, its running mean, optimiser and step counter; everything a checkpoint holds.

    Args:
        model: to train, in place, on its device.
        config: the dials.
        curriculum: its stages.
        sources: what batches are drawn from besides worlds, by name.
    """

    def __init__(
        self,
        model: VGGT,
        config: TrainConfig,
        curriculum: tuple[Stage, ...] = CURRICULUM,
        sources: Mapping[str, Source] | None = None,
    ):
        self.model = model
        self.config = config
        self.curriculum = curriculum
        self.sources = dict(sources or {})
        self.kinds = TRAINED_KINDS if config.kinds is None else config.kinds
        self.device = next(model.parameters()).device
        self.step = 0
        self.warm_from = 0
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
            "warm_from": self.warm_from,
            "config": asdict(replace(self.config, kinds=self.kinds)),
            "sources": {name: source.digest for name, source in self.sources.items()},
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
        self.warm_from = state.get("warm_from", 0)
        self.norms = dict(state["norms"])
        # Runs that are older than the choice drew all kinds.
        self.kinds = tuple(state["config"].get("kinds", KINDS))
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])

    def match_backward(self, batch: Batch) -> dict[str, float]:
        """Add the gradients of one batch's correspondences, of several views, to what is there."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            seen = self.teacher.watch(self.model, batch.images)
        values, ends, pulls = self._match(seen, batch)
        torch.autograd.backward(ends, pulls)
        return values

    def _match(
        self, seen: Seen, batch: Batch
    ) -> tuple[dict[str, float], list[Tensor], list[Tensor]]:
        """Losses of the correspondences, where they enter the trunk, and their gradients there."""
        patch = self.model.config.patch_size
        grid, matches = batch.grid(patch), true_matches(batch, patch)
        attended = [w.x for w in seen.attention]
        taught = {
            "look": (self.teacher.look_loss(seen), [w.x for w in seen.frames]),
            "own": (self.teacher.own_loss(seen, grid), attended),
            "match": (self.teacher.match_loss(seen, matches), attended),
            "place": (self.teacher.place_loss(seen, matches, grid), seen.tokens),
            "motion": (self.teacher.motion_loss(seen, batch), seen.tokens),
            "size": (self.teacher.size_loss(seen), seen.tokens),
        }
        values = {}
        for name, (loss, at) in taught.items():
            self._remember(name, torch.autograd.grad(loss, at, retain_graph=True))
            values[name] = float(loss.detach())
            fade = FADING.get(name)
            share = SHARES[name] * (min(1.0, values[name] / fade) if fade else 1.0)
            (loss * (share / max(self.norms[name], 1e-12))).backward()
        met = [(whole, leaf.grad) for whole, leaf in seen.links if leaf.grad is not None]
        return values, [whole for whole, _ in met], [gradient for _, gradient in met]

    def backward(self, batch: Batch, shares: dict[str, float]) -> dict[str, float]:
        """Add the gradients of one batch to what is there; returns the losses.

        The heads' losses meet at the tapped tokens. There each head's gradient is scaled to its
        share before the trunk sees it, for the raw camera gradient drowns the depth's.
        """
        use_bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)
        with use_bf16, self.teacher.watching(self.model) as seen:
            taps = self.model.aggregator(batch.images)
        ends = [t for tap in taps for t in tap]
        cut = [t.detach().requires_grad_() for t in ends]
        cut_taps = [Tap(*cut[i : i + 2]) for i in range(0, len(cut), 2)]
        with use_bf16:
            output = self.model.decode(cut_taps, batch.grid(self.model.config.patch_size))
        gradients: dict[str, list[Tensor]] = {}
        values = {}
        by_head = losses(output, batch)
        points = self.teacher.point_loss(cut_taps[-1], batch)
        by_head["point"] = by_head["point"] + points if "point" in by_head else points
        for head, loss in by_head.items():
            if not shares[head]:
                values[head] = float(loss.detach())
                continue
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
            # Correspondences meet the trunk further down, scaled in the same way.
            own, more, gradients_of_more = self._match(seen, batch)
            values |= own
            ends += more
            pulls += gradients_of_more
        torch.autograd.backward(ends, pulls)
        return values

    def _remember(self, head: str, gradients: Sequence[Tensor]) -> None:
        """A running mean of the norm of a head's gradient."""
        norm = math.sqrt(sum(float(g.float().square().sum()) for g in gradients))
        self.norms[head] = 0.98 * self.norms.get(head, norm) + 0.02 * norm

    def plan(self, index: int) -> Draw:
        """What is drawn for a batch; the batches of all steps are counted through."""
        step, part = divmod(index, self.config.accumulate)
        patch, config = self.model.config.patch_size, self.config
        plan = draw(step, patch, config.seed, config.batch, self.curriculum, part)
        return replace(plan, kinds=self.kinds, source=source_at(step, part, config))

    def _camera_begins(self) -> bool:
        """Whether this step is the first after steps that taught the camera nothing."""
        if not self.step or "camera" not in self.model.config.heads:
            return False
        before, now = (stage_at(step, self.curriculum) for step in (self.step - 1, self.step))
        return now.camera > 0 and before.camera == 0

    def _center(self, images: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            center_camera_tokens(self.model, images)
        head, mean = self.model.camera_head, self.mean.camera_head
        mean.token_norm.load_state_dict(head.token_norm.state_dict())

    def train_step(self, batches: Iterable[Batch]) -> dict[str, float]:
        """One optimiser step on the mean gradient of the batches that belong to ``self.step``.

        Raises:
            NumericError: a gradient is not finite.
        """
        stage = stage_at(self.step, self.curriculum)
        rate = stage.rate * learning_rate(self.step, self.config, self.warm_from)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        shares = {**SHARES, "camera": stage.camera}
        parts: list[dict[str, float]] = []
        images = 0
        for batch in batches:
            if not parts and self._camera_begins():
                self._center(batch.images)
            part = self.match_backward(batch) if stage.matching else self.backward(batch, shares)
            parts.append(part)
            images += batch.depth.shape[0] * batch.depth.shape[1]
        taught = [*self.model.parameters(), *self.teacher.parameters()]
        if len(parts) > 1:
            torch._foreach_mul_([p.grad for p in taught if p.grad is not None], 1 / len(parts))
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
        values = {}
        for name in {name: None for part in parts for name in part}:
            found = [part[name] for part in parts if name in part]
            values[name] = sum(found) / len(found)
        return {**values, "norm": float(norm), "rate": rate, "images": images}
