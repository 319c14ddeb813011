"""Which packages convert for a target, and whether what is wanted fits it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from ..errors import InputError
from . import executorch, litert
from .executorch_recipes import ExecuTorchRecipe
from .executorch_recipes import check_recipe as check_executorch
from .litert_recipes import LiteRTRecipe, quantizer_rules
from .targets import Target


def backend_of(goal: Target) -> ModuleType:
    """The module that converts for a target."""
    return executorch if goal.name == "executorch" else litert


def check(
    goal: Target,
    recipe: str | None,
    has_pictures: bool,
    exceptions: Mapping[str, str] | None = None,
    external_weights: bool = False,
) -> LiteRTRecipe | ExecuTorchRecipe:
    """The recipe by its name, the target's first by default, if everything fits the target.

    Raises:
        InputError: when it does not.
    """
    name = goal.check_recipe(recipe or goal.recipes[0])
    if goal.name == "executorch":
        return check_executorch(name, has_pictures, exceptions)
    if external_weights:
        raise InputError(f"weights in a file of their own: target {goal.name} has none such")
    chosen = litert.check_recipe(name, has_pictures)
    quantizer_rules(chosen, exceptions)
    return chosen
