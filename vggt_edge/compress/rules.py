"""Rules of a recipe against the layers of a network: one that names none is most likely a typo."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase

from torch import nn

from ..errors import RecipeError
from ..model.config import HEADS
from ..model.vggt import VGGT
from ..recipe import Recipe

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def idle_rules(model: VGGT, recipe: Recipe) -> tuple[str, ...]:
    """Patterns of rules for heads that VGGT has and this network was loaded without.

    Raises:
        RecipeError: any other rule that matches no layer; says which path is nearest.
    """
    modules = dict(model.named_modules())
    layers = [path for path, layer in modules.items() if isinstance(layer, LAYERS)]
    absent = [f"{head}_head" for head in HEADS if head not in model.config.heads]
    idle = []
    for match in dict.fromkeys(rule.match for rule in recipe.rules):
        if any(fnmatchcase(path, match) for path in layers):
            continue
        first = match.partition(".")[0]
        if any(fnmatchcase(name, first) for name in absent):
            idle.append(match)
            continue
        stem = match.removesuffix(".*")
        known = [path for path in modules if path]
        near = difflib.get_close_matches(stem, known, n=1, cutoff=0)[0]
        nearest = near if isinstance(modules[near], LAYERS) else f"{near}.*"
        raise RecipeError(
            f"rule {match!r} matches no layer of this network; the nearest is {nearest!r}"
        )
    return tuple(idle)
