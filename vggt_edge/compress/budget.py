"""The mixed recipe of least damage under a budget of bytes, or the smallest under one of damage.

Every unit, a layer or a block, takes one of a few precisions, each with its bytes b and its damage
d, measured with that unit alone compressed. Bytes add up. Errors of independent units add in
quadrature, so the network's damage is taken as ``D^2 = sum d^2``; signed losses against the truth
add up as they are, ``D = sum max(d, 0)``. Both are predictions: ``fit_recipe`` measures.

Minimising D under a limit of bytes is a multiple-choice knapsack (Kellerer et al., "Knapsack
Problems", 2004, chapter 11). ``frontier`` solves it for all limits at once by merging, unit after
unit, the states that no other state beats in both; transformer blocks have so few different sizes
that these stay few. Beyond ``MOST_STATES`` they are thinned out evenly, and the answer is optimal
to one part in as many.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..checkpoint import skeleton
from ..errors import RecipeError
from ..model.vggt import VGGT
from ..recipe import LayerRule, Recipe, Scheme
from .scan import precisions_of
from .sensitivity import Sensitivity

MOST_STATES = 20_000
CANDIDATES = ("w4a8-g32", "w8a8", "float")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# What a tensor's entry in the header of a file takes at most, beside its name; a rule's likewise.
_ENTRY, _RULE, _CONFIG = 96, 64, 2000


def parse_bytes(text: str) -> int:
    """Bytes of "600MB", "1.2 GB", "700MiB" or a plain number.

    Raises:
        RecipeError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = _UNITS.get(found[2] or "b") if found else None
    if found is None or unit is None:
        raise RecipeError(f"{text!r} is no size: write it as 600MB or 1.2GB")
    return round(float(found[1]) * unit)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a network's file, taken apart. Upper bounds: every layer may get a gain.

    Fields
        fixed   of all that no candidate compresses, and of the file's header.
        layers  path of a layer to scheme name ("float" among them) to bytes.
    """

    fixed: int
    layers: dict[str, dict[str, int]] = field(default_factory=dict)

    def total(self, recipe: Recipe) -> int:
        """Bytes of the file under a recipe of the candidates."""
        whole = self.fixed
        for path, sizes in self.layers.items():
            scheme = recipe.scheme_of(path)
            name = scheme.name if scheme else "float"
            whole += sizes.get(name, sizes["float"])
        return whole


def sizes_of(
    model: VGGT, candidates: Sequence[str] = CANDIDATES, floats: torch.dtype | None = None
) -> Sizes:
    """What a network's layers take in each precision, by building it there without memory.

    Args:
        model: a float network.
        candidates: names of schemes, and "float".
        floats: what all that stays float is saved as; as it is in the network when None.

    Raises:
        RecipeError: an unknown scheme.
    """
    state = {
        name: tensor.numel() * (floats or tensor.dtype).itemsize
        for name, tensor in model.state_dict().items()
    }
    dtype = model.aggregator.camera_token.dtype
    layers: dict[str, dict[str, int]] = {}
    for name in candidates:
        if Scheme.parse(name) is None:
            continue
        paths = precisions_of(model, Recipe(name))
        empty = skeleton(model.config, Recipe(name), dtype, {f"{path}.gain" for path in paths})
        for path in paths:
            found = empty.get_submodule(path).state_dict(prefix=f"{path}.")
            packed = sum(t.nbytes + len(key) + _ENTRY for key, t in found.items())
            layers.setdefault(path, {"float": _weigh(state, path)})[name] = packed
    names = sum(len(name) + _ENTRY for name in state) + _CONFIG
    rules = sum(len(path) + _RULE for path in layers)
    rest = sum(state.values()) - sum(_weigh(state, path) for path in layers)
    return Sizes(rest + names + rules, layers)


def _weigh(state: Mapping[str, int], path: str) -> int:
    return sum(state.get(f"{path}.{leaf}", 0) for leaf in ("weight", "bias"))


class Choices(NamedTuple):
    """What one unit may become.

    unit    path of a layer or block.
    names   of the schemes.
    bytes   (n,) of each.
    cost    (n,) of each: what adds up, see above.
    """

    unit: str
    names: tuple[str, ...]
    bytes: np.ndarray
    cost: np.ndarray


class Frontier:
    """All choices that no other beats in both bytes and cost, from the smallest to the best.

    Args:
        choices: of each unit.

    Fields
        bytes  (n,) ascending.
        cost   (n,) descending.
    """

    def __init__(self, choices: Sequence[Choices]):
        self.choices = tuple(choices)
        self.bytes, self.cost = np.zeros(1, np.int64), np.zeros(1)
        self._trail: list[np.ndarray] = []
        for one in self.choices:
            size = (self.bytes[:, None] + one.bytes).reshape(-1)
            cost = (self.cost[:, None] + one.cost).reshape(-1)
            order = np.lexsort((cost, size))
            cost_in_order = cost[order]
            before = np.concatenate([[np.inf], np.minimum.accumulate(cost_in_order)[:-1]])
            order = order[cost_in_order < before]
            if len(order) > MOST_STATES:
                order = order[np.linspace(0, len(order) - 1, MOST_STATES).round().astype(int)]
            self._trail.append(order)
            self.bytes, self.cost = size[order], cost[order]

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, state: int) -> dict[str, str]:
        """Unit to scheme name in one state."""
        found = {}
        for one, order in zip(reversed(self.choices), reversed(self._trail), strict=True):
            state, choice = divmod(int(order[state]), len(one.names))
            found[one.unit] = one.names[choice]
        return dict(reversed(found.items()))


def choices_of(
    sensitivity: Sensitivity, sizes: Sizes, candidates: Sequence[str] = CANDIDATES
) -> list[Choices]:
    """What every scored unit may become.

    Blocks are units where they were scored, else layers.

    Args:
        sensitivity: with scores in each candidate but "float".
        sizes: of the same network.
        candidates: names of schemes, and "float".

    Raises:
        RecipeError: a candidate that was not scored.
    """
    named = [Scheme.parse(name) for name in candidates]
    packed = [scheme.name for scheme in named if scheme is not None]
    kind = "block" if any(one.kind == "block" for one in sensitivity.scores) else "layer"
    scored = {(one.unit, one.scheme): one for one in sensitivity.scores if one.kind == kind}
    if absent := [name for name in packed if not sensitivity.of(kind, name)]:
        raise RecipeError(f"the sensitivity to {', '.join(absent)} was not measured")
    power = 2 if sensitivity.against == "teacher" else 1
    found = []
    for unit in dict.fromkeys(unit for unit, _ in scored):
        own = {name: scored[unit, name] for name in packed if (unit, name) in scored}
        paths = dict.fromkeys(path for one in own.values() for path in one.layers)
        rows = [
            (
                name,
                sum(sizes.layers[path].get(name, sizes.layers[path]["float"]) for path in paths),
                max(one.worst, 0.0) ** power,
            )
            for name, one in own.items()
        ]
        if None in named:
            rows.append(("float", sum(sizes.layers[path]["float"] for path in paths), 0.0))
        names, weights, costs = zip(*rows, strict=True)
        found.append(Choices(unit, names, np.array(weights, np.int64), np.array(costs)))
    return found


def recipe_of(chosen: Mapping[str, str], layers: Sequence[str]) -> Recipe:
    """The shortest recipe that gives every unit its scheme.

    Args:
        chosen: unit to scheme name.
        layers: paths of all layers, which tell units that are layers from blocks.
    """
    usual = Counter(chosen.values()).most_common(1)[0][0]
    known = set(layers)
    rules = [
        LayerRule(unit if unit in known else f"{unit}.*", Scheme.parse(name))
        for unit, name in chosen.items()
        if name != usual
    ]
    return Recipe([*rules, LayerRule("*", Scheme.parse(usual))])


def text_of(count: float) -> str:
    """Bytes for people, in the units ``parse_bytes`` reads, rounded up."""
    unit, name = (10**6, "MB") if count < 10**9 else (10**9, "GB")
    return f"{math.ceil(100 * count / unit) / 100:.2f}{name}"


def state_under_budget(frontier: Frontier, fixed: int, budget_bytes: int) -> int:
    """The best state whose file fits.

    Raises:
        RecipeError: none does; says what the smallest takes.
    """
    state = int(np.searchsorted(frontier.bytes, budget_bytes - fixed, side="right")) - 1
    if state < 0:
        least = text_of(int(frontier.bytes[0]) + fixed)
        raise RecipeError(
            f"a budget of {text_of(budget_bytes)} cannot be met: with these precisions the "
            f"smallest file takes {least}"
        )
    return state


def packed_of(candidates: Sequence[str]) -> list[str]:
    """The candidates that compress: all but "float".

    Raises:
        RecipeError: an unknown precision, or none that compresses.
    """
    packed = [name for name in candidates if Scheme.parse(name) is not None]
    if not packed:
        raise RecipeError(
            f"candidates {','.join(candidates)} hold nothing that compresses: add one, such as w8a8"
        )
    return packed


def check_limits(budget_bytes: int | None, max_drop: float | None) -> None:
    """Refuse limits that make no sense.

    Raises:
        RecipeError: neither or both, or one that is not positive.
    """
    if (budget_bytes is None) == (max_drop is None):
        raise RecipeError("give either a budget of bytes or a largest drop")
    if max_drop is not None and not max_drop > 0:
        raise RecipeError(f"a drop of at most {max_drop:g}: give a number above 0")
