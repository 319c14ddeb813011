"""ExecuTorch's precisions: which linears torchao makes integer, and convolutions by PT2E.

Unlike LiteRT, whose quantizer edits a finished file, ExecuTorch takes networks that were quantized
in torch, before they are lowered.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..recipe import Recipe, Scheme
from .litert_recipes import rewritten_path
from .targets import EXECUTORCH_SCHEMES

GROUP = 32


@dataclass(frozen=True)
class Rule:
    """Precision of the linears whose path a regular expression finds; the last match wins.

    ``bits`` 8 or 4 are integer weights, with activations int8 a token on the fly; None is float32.
    """

    scope: str
    bits: int | None
    group: int | None = None


@dataclass(frozen=True)
class ExecuTorchRecipe:
    """One precision of a network.

    Fields
        name                 as on the command line.
        meaning              for people.
        rules                for the linears.
        weight_bits          of the linears' weights, for estimates.
        static_convolutions  convolutions int8, with activation ranges measured on pictures.
    """

    name: str
    meaning: str
    rules: tuple[Rule, ...]
    weight_bits: int
    static_convolutions: bool = False

    @property
    def needs_pictures(self) -> bool:
        """Whether activation ranges must be measured on pictures."""
        return self.static_convolutions


INT8 = Rule("", 8)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        ExecuTorchRecipe("float32", "as trained", (), 32),
        ExecuTorchRecipe(
            "int8",
            "linears: int8 weights a channel, activations int8 a token on the fly; "
            "convolutions float32",
            (INT8,),
            8,
        ),
        ExecuTorchRecipe(
            "int4",
            f"linears: int4 weights in groups of {GROUP}, activations int8 a token on the fly "
            "(8da4w); rows that the group does not divide int8; convolutions float32",
            (Rule("", 4, GROUP),),
            4,
        ),
        ExecuTorchRecipe(
            "int8-static",
            "as int8, and convolutions int8 with activation ranges measured on pictures (PT2E)",
            (INT8,),
            8,
            static_convolutions=True,
        ),
    )
}


# What delegates that are no XNNPACK run: their own arithmetic, for the whole network.
DELEGATED = {
    recipe.name: recipe
    for recipe in (
        ExecuTorchRecipe("fp16", "weights and arithmetic fp16, inputs and outputs float32", (), 16),
        ExecuTorchRecipe("float32", "as trained", (), 32),
    )
}


def layer_regex(path: str) -> str:
    """A regular expression for module paths in the rewrite, from a path in it or in the network."""
    pieces = {".": r"\.", "*": "[^.]*", "?": "[^.]"}
    path = "".join(pieces.get(letter, letter) for letter in rewritten_path(path))
    return rf"^{path}(\.|$)"


def _rule(scope: str, scheme: Scheme | None) -> Rule:
    if scheme is None:
        return Rule(scope, None)
    odd = scheme.weight_bits == 4 and (scheme.group is None or scheme.group % GROUP)
    if scheme.fp8 or scheme.hadamard or scheme.activation_bits != 8 or odd:
        raise InputError(
            f"recipe {scheme.name}: ExecuTorch's XNNPACK has no kernel for it; it runs "
            f"{EXECUTORCH_SCHEMES}"
        )
    return Rule(scope, scheme.weight_bits, scheme.group)


def find_recipe(text: str) -> ExecuTorchRecipe:
    """A recipe by ExecuTorch's name for it, or translated from the package's own.

    Raises:
        InputError: a scheme XNNPACK has no kernels for.
        RecipeError: neither.
    """
    if text in RECIPES:
        return RECIPES[text]
    entries = Recipe(text).rules
    # There the first match wins, here the last.
    rules = tuple(
        _rule("" if entry.match == "*" else layer_regex(entry.match), entry.scheme)
        for entry in reversed(entries)
    )
    return ExecuTorchRecipe(text, "translated", rules, max(rule.bits or 32 for rule in rules))


def check_recipe(
    recipe: str, has_pictures: bool, exceptions: Mapping[str, str] | None = None
) -> ExecuTorchRecipe:
    """A recipe by its name, with the exceptions as its last rules.

    Raises:
        InputError: an unknown recipe, one that measures ranges without pictures to measure on, or
            an exception that does.
    """
    chosen = find_recipe(recipe)
    if chosen.needs_pictures and not has_pictures:
        raise InputError(
            f"recipe {recipe} measures the ranges of activations: give a folder of pictures like "
            "those the network will see (--calibration)"
        )
    rules = list(chosen.rules)
    for path, name in (exceptions or {}).items():
        other = find_recipe(name)
        if other.needs_pictures:
            raise InputError(f"exception {path}={name}: convolutions have no exceptions here")
        scope = layer_regex(path)
        rules += [Rule(scope, r.bits, r.group) for r in other.rules] or [Rule(scope, None)]
    return ExecuTorchRecipe(
        chosen.name, chosen.meaning, tuple(rules), chosen.weight_bits, chosen.static_convolutions
    )


def check_delegated(
    target: str, recipe: str, exceptions: Mapping[str, str] | None = None
) -> ExecuTorchRecipe:
    """A recipe of a delegate that is no XNNPACK, which has one precision for the whole network.

    Raises:
        InputError: exceptions were asked for.
    """
    if exceptions:
        raise InputError(f"exceptions: target {target} has one precision for the whole network")
    return DELEGATED[recipe]


def precision_of(path: str, layer: nn.Linear, rules: Sequence[Rule]) -> Rule | None:
    """The rule for a linear at a path, None where it stays float32."""
    found = None
    for rule in rules:
        if re.search(rule.scope, path):
            found = rule
    if found is None or found.bits is None:
        return None
    if found.group is not None and layer.in_features % found.group:
        return INT8
    return found


def quantize_linears(module: nn.Module, recipe: ExecuTorchRecipe, prefix: str = "") -> None:
    """Make linears integer in place, by the recipe's rules; ``prefix`` is the module's own path.

    XNNPACK's kernels: weights symmetric, a scale for each output or group of inputs; activations
    asymmetric int8, a scale for each token (torchao's Int8DynamicActivationIntxWeightConfig).
    """
    torchao = importlib.import_module("torchao.quantization")
    granularity = importlib.import_module("torchao.quantization.granularity")
    chosen: dict[tuple[int, int | None], set[str]] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            rule = precision_of(f"{prefix}.{path}".lstrip("."), layer, recipe.rules)
            if rule is not None and rule.bits is not None:
                chosen.setdefault((rule.bits, rule.group), set()).add(path)
    for (bits, group), paths in chosen.items():
        by_group = granularity.PerGroup(group) if group else granularity.PerAxis(0)
        config = torchao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=getattr(torch, f"int{bits}"), weight_granularity=by_group
        )

        def wanted(_: nn.Module, path: str, paths: set[str] = paths) -> bool:
            return path in paths

        torchao.quantize_(module, config, filter_fn=wanted)


def quantize_convolutions(
    module: nn.Module, samples: Sequence[tuple[Tensor, ...]]
) -> torch.fx.GraphModule:
    """A module whose convolutions take and give int8, of ranges seen on samples (PT2E)."""
    xnnpack = importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_operator_type(torch.ops.aten.conv2d.default, config)
    graph: Any = torch.export.export(module, samples[0]).module()
    prepared = pt2e.prepare_pt2e(graph, quantizer)
    for inputs in samples:
        prepared(*inputs)
    return pt2e.convert_pt2e(prepared)
