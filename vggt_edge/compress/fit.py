"""A mixed recipe under a limit, from a float network and scenes: scan, choose, then measure.

What single units cost does not tell exactly what they cost together, so the recipe is scored as a
whole: under a budget once, to say what it costs; under a largest drop again and again, to bisect
the choices from the smallest to the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..bootstrap import Interval, interval
from ..errors import RecipeError
from ..model.vggt import VGGT
from ..recipe import Recipe
from . import budget
from .budget import CANDIDATES, Frontier, choices_of, recipe_of, sizes_of
from .damage import JUDGED, Case, Judge
from .scan import Quantize, compressed, precisions_of, rounded, scan
from .sensitivity import Sensitivity


@dataclass(frozen=True)
class Fit:
    """A recipe that keeps a limit.

    Fields
        recipe       to compress with.
        bytes        of the file, at most.
        float_bytes  of the float network's file.
        predicted    drop in percent points, from units alone.
        measured     metric to mean drop with its interval, of the whole recipe rounded to nearest;
                     calibrated methods do better.
        sensitivity  of all units to each candidate.
    """

    recipe: Recipe
    bytes: int
    float_bytes: int
    predicted: float
    measured: dict[str, Interval]
    sensitivity: Sensitivity

    @property
    def drop(self) -> float:
        """The greatest measured mean drop of pose, depth and points."""
        return max((self.measured[m].mean for m in JUDGED if m in self.measured), default=0.0)

    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{self.recipe.name}",
            f"  file        at most {budget.text_of(self.bytes)}, of "
            f"{budget.text_of(self.float_bytes)} in floats",
            f"  drop        {self.drop:.3f} percent points measured, {self.predicted:.3f} "
            "predicted from single units",
        ]
        found += [
            f"    {name:<10}{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}], {i.sequences} scenes"
            for name, i in self.measured.items()
        ]
        return found

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON, without the sensitivities."""
        return {
            "recipe": self.recipe.to_data(),
            "bytes": self.bytes,
            "float_bytes": self.float_bytes,
            "predicted": self.predicted,
            "drop": self.drop,
            "measured": {name: i._asdict() for name, i in self.measured.items()},
        }


def fit_recipe(
    model: VGGT,
    cases: Sequence[Case],
    *,
    budget_bytes: int | None = None,
    max_drop: float | None = None,
    candidates: Sequence[str] = CANDIDATES,
    kind: str = "block",
    against: str = "teacher",
    floats: torch.dtype | None = None,
    file: str | Path | None = None,
    quantize: Quantize = rounded,
    progress: bool = False,
) -> Fit:
    """Choose a mixed recipe for a float network; the network stays what it is.

    Args:
        model: from ``load``.
        cases: scenes to score on, from ``cases``.
        budget_bytes: the whole file takes at most so much.
        max_drop: largest mean drop of pose, depth or points over the scenes, in percent points,
            measured on the whole recipe.
        candidates: precisions to choose from; with "float" among them any drop can be kept.
        kind: of the units that get one precision each: "block" or "layer".
        against: "teacher" or "truth"; see ``damage``.
        floats: what all that stays float is saved as; as it is in the network when None.
        file: where sensitivities are kept, so that an interrupted call goes on.
        quantize: makes a quantized layer of a float one.
        progress: show a bar for work over two seconds.

    Raises:
        RecipeError: a limit that cannot be met, which says the smallest that can; one the float
            network meets as it is; an unknown precision, or "float" alone; or a network compressed
            already.
        InputError: nothing to score on, or ``file`` holds sensitivities of something else.
    """
    budget.check_limits(budget_bytes, max_drop)
    packed = budget.packed_of(candidates)
    sizes = sizes_of(model, candidates, floats)
    whole = sizes.total(Recipe("float"))
    if budget_bytes is not None:
        if budget_bytes >= whole:
            raise RecipeError(
                f"the network fits {budget.text_of(budget_bytes)} as it is "
                f"({budget.text_of(whole)}): nothing to compress"
            )
        _check_smallest(sizes, budget_bytes)
    sensitivity = scan(
        model, cases, packed, kinds=(kind,), against=against, file=file, quantize=quantize,
        progress=progress,
    )  # fmt: skip
    frontier = Frontier(choices_of(_only(sensitivity, kind), sizes, candidates))
    power = 2 if against == "teacher" else 1
    judge = Judge(model, cases, against)

    def fitted(state: int) -> Fit:
        recipe = recipe_of(frontier[state], list(sizes.layers))
        precisions = precisions_of(model, recipe)
        with compressed(model, precisions, quantize):
            drops = judge.drops(model)
        measured = {
            metric: interval(
                [row[metric] for row in drops.values() if metric in row],
                [case.group for case in cases if metric in drops[case.name]],
            )
            for metric in dict.fromkeys(name for row in drops.values() for name in row)
        }
        predicted = float(frontier.cost[state]) ** (1 / power)
        return Fit(recipe, sizes.total(recipe), whole, predicted, measured, sensitivity)

    if budget_bytes is not None:
        return fitted(budget.state_under_budget(frontier, sizes.fixed, budget_bytes))
    return _smallest(frontier, fitted, max_drop or 0.0)


def _check_smallest(sizes: budget.Sizes, budget_bytes: int) -> None:
    """Refuse, before hours of scoring, a budget that nothing fits."""
    least = sizes.fixed + sum(min(row.values()) for row in sizes.layers.values())
    if budget_bytes < least:
        raise RecipeError(
            f"a budget of {budget.text_of(budget_bytes)} cannot be met: with these precisions the "
            f"smallest file takes {budget.text_of(least)}"
        )


def _only(sensitivity: Sensitivity, kind: str) -> Sensitivity:
    """A file that is shared may hold scores of other units too."""
    return replace(sensitivity, scores=tuple(one for one in sensitivity.scores if one.kind == kind))


def _smallest(frontier: Frontier, fitted: Callable[[int], Fit], max_drop: float) -> Fit:
    """The smallest state that keeps a drop when it is measured.

    The drop falls, but for noise, from the smallest state to the best.
    """
    low, high = 0, len(frontier) - 1
    best = fitted(high)
    if best.drop > max_drop:
        raise RecipeError(
            f"a drop of at most {max_drop:g} cannot be met: with these precisions the least is "
            f"{best.drop:.3g} percent points"
        )
    while low < high:
        middle = (low + high) // 2
        found = fitted(middle)
        if found.drop <= max_drop:
            best, high = found, middle
        else:
            low = middle + 1
    if not any(rule.scheme for rule in best.recipe.rules):
        raise RecipeError(f"no compression keeps a drop of at most {max_drop:g} percent points")
    return best
