"""What is shown when: few easy views first, then more and wider ones.

From scratch, depth and pose together sit on a plateau for thousands of steps (docs/LOG.md), so
depth is learned on single views first, then which patches see the same point, then pose on pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Fields
        steps      how many optimiser steps it lasts.
        views      views per scene to draw from.
        pixels     target number of pixels per view to draw from; the aspect ratio is drawn freely.
        budget     pixels per step over all views of all scenes.
        overlap    range of the share consecutive views see in common.
        camera     share of the camera's gradient at the taps, the depth's being 1. Single views
                   have 0: a head that is told the identity for long goes deaf (docs/LOG.md).
        matching   only correspondences are taught, and only as much of the network runs as that
                   takes: six times the learning in the same time (docs/LOG.md).
        rate       factor on the learning rate.
    """

    steps: int
    views: tuple[int, ...]
    pixels: tuple[int, ...]
    budget: int
    overlap: tuple[float, float]
    camera: float
    matching: bool = False
    rate: float = 1.0


CURRICULUM = (
    Stage(600, (1,), (84**2,), 24 * 84**2, (0.8, 1.0), 0.0),
    # Views that share almost all move by less than a patch: there is nothing coarse to match.
    Stage(2200, (2, 3, 4), (112**2, 140**2), 20 * 112**2, (0.4, 0.9), 0.0, matching=True, rate=2.5),
    Stage(6000, (2,), (112**2, 140**2), 20 * 112**2, (0.4, 0.8), 2.0, rate=0.6),
    Stage(6000, (1, 2, 3, 4, 6), (112**2, 140**2), 24 * 112**2, (0.3, 0.95), 1.5, rate=0.6),
    Stage(20000, (1, 2, 3, 4, 6, 8), (112**2, 140**2, 168**2), 24 * 112**2, (0.2, 0.9), 1.0),
    Stage(10**9, (1, 2, 3, 4, 6, 8, 12), (112**2, 168**2, 224**2), 36 * 112**2, (0.1, 0.9), 0.7),
)

PHOTOGRAPHS = 4
ASPECTS = (1.0, 1.0, 4 / 3, 4 / 3, 3 / 4, 16 / 9)


@dataclass(frozen=True)
class Draw:
    """The shape of one step's batch.

    Building a world costs as much as photographing it several times, so a world serves ``groups``
    sets of ``views`` views each, taken one after the other on its path. ``kinds`` are the kinds of
    worlds drawn from, all when None; ``source`` names what is photographed.
    """

    seed: int
    worlds: int
    groups: int
    views: int
    height: int
    width: int
    overlap: float
    camera: float
    kinds: tuple[str, ...] | None = None
    source: str = "worlds"


def stage_at(step: int, curriculum: tuple[Stage, ...] = CURRICULUM) -> Stage:
    """The stage a step belongs to; the last one goes on for ever."""
    for stage in curriculum:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return curriculum[-1]


def steps_of_beginners(curriculum: tuple[Stage, ...] = CURRICULUM) -> int:
    """Steps of the first stages, which trained weights need no more: those that teach a part."""
    whole = (i for i, s in enumerate(curriculum) if max(s.views) > 1 and not s.matching)
    return sum(stage.steps for stage in curriculum[: next(whole)])


def draw(
    step: int,
    patch: int,
    seed: int,
    scale: float = 1.0,
    curriculum: tuple[Stage, ...] = CURRICULUM,
    part: int = 0,
) -> Draw:
    """A batch of one step, a pure function of (step, part, seed), which makes resuming exact.

    Args:
        step: optimiser step.
        patch: sizes are multiples of it.
        seed: of the run.
        scale: factor on the stage's budget.
        curriculum: the stages.
        part: which of the batches whose gradients the step accumulates.
    """
    rng = np.random.default_rng([seed, step, part])
    stage = stage_at(step, curriculum)
    pixels = int(rng.choice(stage.pixels))
    aspect = float(rng.choice(ASPECTS))
    height = max(patch, round((pixels / aspect) ** 0.5 / patch) * patch)
    width = max(patch, round((pixels * aspect) ** 0.5 / patch) * patch)
    views = int(rng.choice(stage.views))
    groups = max(1, PHOTOGRAPHS // views)
    worlds = max(1, round(scale * stage.budget / (groups * views * height * width)))
    return Draw(
        seed=int(rng.integers(2**40)),
        worlds=worlds,
        groups=groups,
        views=views,
        height=height,
        width=width,
        overlap=float(rng.uniform(*stage.overlap)),
        camera=stage.camera,
    )
