"""Which packages convert for a target, and whether what is wanted fits it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import ModuleType

from torch import nn

from ..errors import InputError
from . import executorch, litert
from .executorch_recipes import ExecuTorchRecipe, check_delegated, layer_regex
from .executorch_recipes import check_recipe as check_executorch
from .litert_recipes import LiteRTRecipe, quantizer_rules, scope_regex
from .targets import Target


def backend_of(goal: Target) -> ModuleType:
    """The module that converts for a target."""
    return executorch if goal.runtime == "executorch" else litert


def check(
    goal: Target,
    recipe: str | None,
    has_pictures: bool,
    exceptions: Mapping[str, str] | None = None,
    external_weights: bool = False,
    profile: bool = False,
) -> LiteRTRecipe | ExecuTorchRecipe:
    """The recipe by its name, the target's first by default, if everything fits the target.

    Raises:
        InputError: when it does not.
    """
    name = goal.check_recipe(recipe or goal.recipes[0])
    if profile and goal.name != "executorch":
        raise InputError(f"a profile is of ExecuTorch's run here: target {goal.name} has none such")
    for path, other in (exceptions or {}).items():
        try:
            goal.check_recipe(other)
        except InputError as error:
            raise InputError(f"exception {path}={other}: {error}") from None
    if goal.runtime == "executorch" and not goal.runs_here:
        if external_weights:
            raise InputError(f"weights in a file of their own: target {goal.name} has none such")
        return check_delegated(goal.name, name, exceptions)
    if goal.name == "executorch":
        return check_executorch(name, has_pictures, exceptions)
    if external_weights:
        raise InputError(f"weights in a file of their own: target {goal.name} has none such")
    chosen = litert.check_recipe(name, has_pictures)
    quantizer_rules(chosen, exceptions)
    return chosen


def check_layers(
    goal: Target, network: nn.Module, rewritten: nn.Module, exceptions: Iterable[str]
) -> None:
    """Refuse an exception that finds no layer: it would be passed over in silence.

    Args:
        goal: what is exported for.
        network: as it was, whose paths users know.
        rewritten: the same for the target; what it has no head for is not in it.
        exceptions: layer paths of either, ``*`` for any part.

    Raises:
        InputError: with the nearest path there is.
    """
    linears = backend_of(goal) is executorch
    layers = _linears(rewritten) if linears else _operators(rewritten)

    def finds(path: str) -> bool:
        pattern = layer_regex(path) if linears else scope_regex(path)
        return any(re.search(pattern, layer) for layer in layers)

    for path in exceptions:
        if path and finds(path):
            continue
        known = [name for m in (network, rewritten) for name, _ in m.named_modules() if name]
        near = difflib.get_close_matches(path, known, n=50, cutoff=0.0)
        found = next((name for name in near if finds(name)), None)
        raise InputError(
            f"exception {path}: no {'linear' if linears else 'layer'} of what is exported lies "
            f"under this path; the nearest is {found}"
        )


def _linears(rewritten: nn.Module) -> list[str]:
    """Paths of what ExecuTorch's exceptions are about."""
    return [path for path, m in rewritten.named_modules() if isinstance(m, nn.Linear)]


def _operators(rewritten: nn.Module) -> list[str]:
    """Names as LiteRT's converter makes them of classes and attributes, but for the packages."""
    names = {"": ""}
    for path, module in rewritten.named_modules():
        if path:
            parent, _, name = path.rpartition(".")
            names[path] = f"{names[parent]}/{type(module).__name__}_{name}"
    return list(names.values())
