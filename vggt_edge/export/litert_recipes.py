"""LiteRT's precisions as data: what ai-edge-quantizer is told, and where exceptions go.

Nothing here needs the quantizer. A recipe is a list of rules, later ones win; an operator that a
rule cannot handle (a convolution in blocks of 32, say) keeps what an earlier rule gave it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..recipe import Recipe, Scheme
from .targets import LITERT_SCHEMES

EVERYTHING, LINEARS = "*", "FULLY_CONNECTED"
PLAIN, HADAMARD = "min_max_uniform_quantize", "DECOMPOSED_HADAMARD_ROTATION"
CASTING, KEPT = "float_casting", "no_quantize"


def _rule(
    weight_bits: int,
    *,
    operation: str = EVERYTHING,
    algorithm: str = PLAIN,
    granularity: str = "CHANNELWISE",
    integer: bool = True,
    activation_bits: int | None = None,
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "weight_tensor_config": {
            "num_bits": weight_bits,
            "symmetric": True,
            "granularity": granularity,
            "dtype": "FLOAT" if algorithm == CASTING else "INT",
        },
        "compute_precision": "INTEGER" if integer else "FLOAT",
        "explicit_dequantize": not integer,
        "skip_checks": False,
        "min_weight_elements": 0,
    }
    if activation_bits is not None:
        # The kernels take asymmetric int8 and symmetric int16 activations.
        config["activation_tensor_config"] = {
            "num_bits": activation_bits,
            "symmetric": activation_bits == 16,
            "granularity": "TENSORWISE",
            "dtype": "INT",
        }
    return {
        "regex": ".*",
        "operation": operation,
        "algorithm_key": algorithm,
        "op_config": config,
    }


@dataclass(frozen=True)
class LiteRTRecipe:
    """One precision of a network.

    Fields
        name           as on the command line.
        meaning        for people.
        rules          for the quantizer; empty for float32.
        weight_bits    of the linears' weights, for estimates.
        needs_pictures whether activation ranges must be measured on pictures.
    """

    name: str
    meaning: str
    rules: tuple[dict[str, Any], ...]
    weight_bits: int
    needs_pictures: bool = False


INT8 = _rule(8)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        LiteRTRecipe("float32", "as trained", (), 32),
        LiteRTRecipe(
            "fp16",
            "fp16 weights, float32 arithmetic where the processor has no fp16",
            (_rule(16, algorithm=CASTING, integer=False),),
            16,
        ),
        LiteRTRecipe("int8", "int8 weights a channel, activations int8 on the fly", (INT8,), 8),
        LiteRTRecipe(
            "int4",
            "linears: int4 weights in blocks of 32, activations int8 on the fly; else as int8",
            (INT8, _rule(4, operation=LINEARS, granularity="BLOCKWISE_32")),
            4,
        ),
        LiteRTRecipe(
            "int8-weights", "int8 weights, float32 arithmetic", (_rule(8, integer=False),), 8
        ),
        LiteRTRecipe(
            "int4-weights",
            "linears: int4 weights a channel, else int8; float32 arithmetic",
            (_rule(8, integer=False), _rule(4, operation=LINEARS, integer=False)),
            4,
        ),
        LiteRTRecipe(
            "int8-hadamard",
            "as int8, linears rotated by Hadamard matrices, which spreads outliers",
            (INT8, _rule(8, operation=LINEARS, algorithm=HADAMARD)),
            8,
        ),
        LiteRTRecipe(
            "int4-hadamard",
            "as int8, linears int4 a channel, rotated by Hadamard matrices",
            (INT8, _rule(4, operation=LINEARS, algorithm=HADAMARD)),
            4,
        ),
        LiteRTRecipe(
            "w8a8-static",
            "int8 weights and activations of ranges measured on pictures",
            (_rule(8, activation_bits=8),),
            8,
            needs_pictures=True,
        ),
        LiteRTRecipe(
            "w8a16-static",
            "int8 weights, int16 activations of ranges measured on pictures",
            (_rule(8, activation_bits=16),),
            8,
            needs_pictures=True,
        ),
    )
}

# Module paths of the network and of its rewrite, both ways of writing the same layer.
_RENAMED = (
    (r"^aggregator\.patch_embed\.patch_embed\.proj", "encoder.patches"),
    (r"^aggregator\.patch_embed\.blocks\.", "encoder.block"),
    (r"^aggregator\.patch_embed(\.|$)", r"encoder\1"),
    (r"^aggregator\.(frame|global)_blocks\.(\d+|\*)", r"trunk.\1\2"),
    (r"^aggregator(\.|$)", r"trunk\1"),
    (r"^camera_head\.trunk\.", "camera.block"),
    (r"^camera_head\.pose_branch\.", "camera."),
    (r"^camera_head\.poseLN_modulation\.1", "camera.(shift|scale|gate)"),
    (r"^camera_head(\.|$)", r"camera\1"),
    (r"^depth_head\.scratch\.layer(\d)_rn", lambda m: f"depth.adapt{int(m[1]) - 1}"),
    (r"^depth_head\.scratch\.refinenet(\d)", lambda m: f"depth.fusion{int(m[1]) - 1}"),
    (r"^depth_head\.scratch\.output_conv1", "depth.enlarge"),
    (r"^depth_head\.scratch\.output_conv2\.0", "depth.output_conv"),
    (r"^depth_head\.scratch\.output_conv2\.2", "depth.(depth|certainty)"),
    (r"^depth_head\.projects\.", "depth.project"),
    (r"^depth_head\.resize_layers\.0", "depth.spread4"),
    (r"^depth_head\.resize_layers\.1", "depth.spread2"),
    (r"^depth_head\.resize_layers\.3", "depth.shrink"),
    (r"^depth_head(\.|$)", r"depth\1"),
    (r"\.resConfUnit(\d)", r".unit\1"),
    (r"\.mlp\.(fc\d)", r".\1"),
    (r"\.attn\.qkv$", ".attn.[qkv]"),
    (r"\.mlp$", ".fc?"),
)


def rewritten_path(path: str) -> str:
    """A layer's path in the rewrite from its path in the network; ``*`` stands for any part.

    "aggregator.global_blocks.3.attn.qkv" becomes "trunk.global3.attn.[qkv]".
    """
    for pattern, replacement in _RENAMED:
        path = re.sub(pattern, replacement, path)
    return path


def scope_regex(path: str) -> str:
    """A regular expression for the names LiteRT's converter gives what lies under a path.

    The converter calls an operator "package.Trunk_trunk/package.Block_global3/.../package.Linear_q"
    with a suffix that begins with a semicolon.
    """
    parts = []
    for part in rewritten_path(path).split("."):
        name = "".join(
            {"*": "[^/;]*", "?": "[^/;]"}.get(
                piece, piece if piece[0] in "[(" else re.escape(piece)
            )
            for piece in re.findall(r"\[[^\]]*\]|\([^)]*\)|\*|\?|[^*?\[(]+", part)
        )
        parts.append(rf"[^/;]*_{name}")
    return r"(^|/)" + "/".join(parts) + r"(?=[/;]|$)"


def _scheme_rules(scheme: Scheme | None) -> tuple[dict[str, Any], ...]:
    """What LiteRT has for a scheme of ``vggt_edge.recipe``; none for float."""
    if scheme is None:
        return ()
    if scheme.fp8 or scheme.activation_bits == 4 or (scheme.hadamard and scheme.group):
        raise InputError(
            f"recipe {scheme.name}: LiteRT has no kernel for it; it runs {LITERT_SCHEMES}"
        )
    if scheme.group is not None and scheme.group < 32:
        raise InputError(f"recipe {scheme.name}: LiteRT has groups of 32, 64 and 128")
    integer = scheme.activation_bits == 8
    base = _rule(8, integer=integer)
    linears = _rule(
        scheme.weight_bits,
        operation=LINEARS,
        algorithm=HADAMARD if scheme.hadamard else PLAIN,
        granularity=f"BLOCKWISE_{scheme.group}" if scheme.group else "CHANNELWISE",
        integer=integer,
    )
    return base, linears


def find_recipe(text: str) -> LiteRTRecipe:
    """A recipe by LiteRT's name for it, or translated from the package's own.

    ``w8a8`` is "int8" here, ``w4a8-g32`` "int4", ``a16`` weight-only; rules for layers, such as
    ``aggregator.frame_blocks.*=w8a8,*=w4a8-g32``, stay rules for the same layers.

    Raises:
        InputError: a scheme LiteRT has no kernels for.
        RecipeError: neither.
    """
    if text in RECIPES:
        return RECIPES[text]
    recipe = Recipe(text)
    rules: list[dict[str, Any]] = []
    # There the first match wins, here the last.
    for entry in reversed(recipe.rules):
        scope = ".*" if entry.match == "*" else scope_regex(entry.match)
        rules += scoped(_scheme_rules(entry.scheme), scope)
    bits = [entry.scheme.weight_bits if entry.scheme else 32 for entry in recipe.rules]
    return LiteRTRecipe(text, "translated", tuple(rules), max(bits))


def scoped(rules: Sequence[dict[str, Any]], scope: str) -> list[dict[str, Any]]:
    """Rules for what a regular expression finds; keep it float where there are none."""
    kept = {"regex": scope, "operation": EVERYTHING, "algorithm_key": KEPT, "op_config": {}}
    return [{**rule, "regex": scope} for rule in rules] or [kept]


def quantizer_rules(
    recipe: LiteRTRecipe, exceptions: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The rules for the quantizer, exceptions last.

    Args:
        recipe: of the whole network.
        exceptions: layer path, of the network or of its rewrite and with ``*`` for any part, to the
            recipe it gets instead.

    Raises:
        InputError: an unknown recipe in the exceptions, or one that measures pictures where the
            network's does not.
    """
    rules = [dict(rule) for rule in recipe.rules]
    for path, name in (exceptions or {}).items():
        other = find_recipe(name)
        if other.needs_pictures and not recipe.needs_pictures:
            raise InputError(
                f"exception {path}={name}: it needs measured ranges, which recipe {recipe.name} "
                "does without"
            )
        rules += scoped(other.rules, scope_regex(path))
    return rules


def blocks_of(rules: Sequence[dict[str, Any]]) -> int:
    """The largest block of weights in the rules, 1 where there is none: it must divide a row."""
    found = (rule["op_config"].get("weight_tensor_config", {}) for rule in rules)
    sizes = [config.get("granularity", "").rpartition("_")[2] for config in found]
    return max((int(size) for size in sizes if size.isdigit()), default=1)
