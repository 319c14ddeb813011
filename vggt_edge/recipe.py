"""Compression recipes as data: which layer gets which precision, first match wins.

A scheme is written as its papers write it: ``w4a8-g32`` is 4-bit weights and 8-bit activations with
one scale for every 32 inputs; ``a16`` leaves activations alone; ``-hadamard`` rotates what goes in.
A recipe is one scheme for all layers, or rules such as
``aggregator.frame_blocks.*=w8a8,camera_head.*=float,*=w4a16-g128``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .errors import RecipeError

GROUPS = (16, 32, 64, 128)
BACKENDS = ("cpu", "cuda", "mps", "litert", "executorch")
_SCHEME = re.compile(r"w(4|8)a(4|8|16)(?:-g(\d+))?(-hadamard)?")
KNOWN = "w8a8, w4a8-g32, w4a16-g128, w8a16, w4a4, fp8 or float, each with -hadamard if wanted"


@dataclass(frozen=True)
class Scheme:
    """Precision of one layer.

    Fields
        weight_bits      4 or 8; integers, one scale per output, symmetric.
        activation_bits  4 or 8, integers, one scale and zero point per token; 16 leaves them float.
        group            inputs that share a multiplier of their own (4-bit weights), or None.
        hadamard         inputs pass a randomised Hadamard transform, weights its inverse.
        fp8              8-bit floats (e4m3) for both instead of integers.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    group: int | None = None
    hadamard: bool = False
    fp8: bool = False

    @property
    def name(self) -> str:
        """As it is written."""
        if self.fp8:
            return "fp8"
        group = f"-g{self.group}" if self.group else ""
        rotation = "-hadamard" if self.hadamard else ""
        return f"w{self.weight_bits}a{self.activation_bits}{group}{rotation}"

    @staticmethod
    def parse(text: str) -> Scheme | None:
        """A scheme from its name; None for "float".

        Raises:
            RecipeError: a name that is unknown or makes no sense.
        """
        if text == "float":
            return None
        if text == "fp8":
            return Scheme(fp8=True)
        found = _SCHEME.fullmatch(text)
        if not found:
            raise RecipeError(f"unknown scheme {text!r}: use {KNOWN}")
        weight, activation = int(found[1]), int(found[2])
        group = int(found[3]) if found[3] else None
        if activation < weight:
            raise RecipeError(f"{text}: activations in fewer bits than weights run nowhere")
        if group is not None and weight != 4:
            raise RecipeError(f"{text}: groups are for 4-bit weights; use w{weight}a{activation}")
        if group is not None and group not in GROUPS:
            sizes = ", ".join(map(str, GROUPS))
            raise RecipeError(f"{text}: groups of {sizes} inputs, not {group}")
        return Scheme(weight, activation, group, bool(found[4]))

    def runs_on(self) -> dict[str, str]:
        """Backend to "real" where its arithmetic is executed as stated, else "simulated" or "no".

        "real" for weight-only schemes means: stored packed, expanded while it runs. Integers on the
        CPU are real with VNNI, 4-bit ones by 8-bit products: exact, but no faster. What this
        machine does, ``model.backends`` decides and loading and ``vggt-edge info`` say. "no" on
        "litert" and "executorch" is what their exports refuse.
        """
        if self.fp8:
            return {"cpu": "simulated", "cuda": "real", "mps": "simulated", "litert": "no",
                    "executorch": "no"}  # fmt: skip
        wide, eight = self.activation_bits == 16, self.activation_bits == 8
        blocks = self.group is None or self.group % 32 == 0  # of the mobile runtimes
        litert = (wide or eight) and blocks and not (self.hadamard and self.group)
        grouped = self.weight_bits == 8 or self.group is not None
        executorch = eight and blocks and grouped and not self.hadamard
        return {
            "cpu": "real",
            "cuda": "real" if wide or eight else "simulated",
            "mps": "real" if wide else "simulated",
            "litert": "real" if litert else "no",
            "executorch": "real" if executorch else "no",
        }


@dataclass(frozen=True)
class LayerRule:
    """A shell pattern over module paths and the scheme of what it matches; None stays float."""

    match: str
    scheme: Scheme | None


class Recipe:
    """Rules in order. Immutable, comparable, and plain data in JSON.

    Args:
        spec: a scheme's name, ``pattern=scheme`` pairs separated by commas, or rules.

    Raises:
        RecipeError: when it cannot be read.
    """

    def __init__(self, spec: str | Iterable[LayerRule]):
        self.rules = self._parse(spec) if isinstance(spec, str) else tuple(spec)
        if not self.rules:
            raise RecipeError(f"an empty recipe: use {KNOWN}")

    @staticmethod
    def _parse(text: str) -> tuple[LayerRule, ...]:
        rules = []
        for part in text.split(","):
            match, found, scheme = part.strip().rpartition("=")
            rules.append(LayerRule(match if found else "*", Scheme.parse(scheme)))
        return tuple(rules)

    def scheme_of(self, path: str) -> Scheme | None:
        """The scheme of a module by its path; None when it stays float."""
        for rule in self.rules:
            if fnmatchcase(path, rule.match):
                return rule.scheme
        return None

    @property
    def name(self) -> str:
        """As it is written; ``Recipe(recipe.name) == recipe``."""
        if len(self.rules) == 1 and self.rules[0].match == "*":
            scheme = self.rules[0].scheme
            return scheme.name if scheme else "float"
        return ",".join(f"{r.match}={r.scheme.name if r.scheme else 'float'}" for r in self.rules)

    @property
    def runs_on(self) -> dict[str, str]:
        """Backend to the weakest answer of ``Scheme.runs_on`` over all rules."""
        order = ("no", "simulated", "real")
        answers = [rule.scheme.runs_on() for rule in self.rules if rule.scheme]
        return {
            backend: min((a[backend] for a in answers), key=order.index, default="real")
            for backend in BACKENDS
        }

    def to_data(self) -> list[dict[str, str]]:
        """Plain data for JSON: a list of rules."""
        return [
            {"match": r.match, "scheme": r.scheme.name if r.scheme else "float"} for r in self.rules
        ]

    @staticmethod
    def from_data(data: Any) -> Recipe:
        """Inverse of ``to_data``.

        Raises:
            RecipeError: when it is no such list.
        """
        try:
            rules = [LayerRule(str(row["match"]), Scheme.parse(str(row["scheme"]))) for row in data]
        except (TypeError, KeyError) as error:
            raise RecipeError("no recipe: it is a list of rules with match and scheme") from error
        return Recipe(rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def __repr__(self) -> str:
        return f"Recipe({self.name!r})"
