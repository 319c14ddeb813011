from __future__ import annotations

import re

import pytest
from networks import seeded
from torch import nn

from vggt_edge.errors import InputError, RecipeError
from vggt_edge.export import executorch_recipes
from vggt_edge.export.litert_recipes import (
    RECIPES,
    blocks_of,
    find_recipe,
    quantizer_rules,
    rewritten_path,
    scope_regex,
)
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import OUTPUTS, Shape
from vggt_edge.export.targets import TARGETS


@pytest.fixture(scope="module")
def networks():
    model = seeded()
    return model, reauthor(model, Shape(2, 28, 28), OUTPUTS)


def scope(module: nn.Module, path: str) -> str:
    """The name a converter gives an operator: class and name of every module on the way."""
    steps, inner = ["litert._Named", "reauthor.Rewritten_module"], module
    for part in path.split("."):
        inner = inner.get_submodule(part)
        steps.append(f"package.{type(inner).__name__}_{part}")
    return "/".join(steps) + ";2"


def layers(module: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [path for path, inner in module.named_modules() if isinstance(inner, kinds)]


def test_every_layer_of_the_network_is_found_in_its_rewrite(networks):
    model, rewritten = networks
    scopes = {path: scope(rewritten, path) for path in layers(rewritten)}
    covered = set()
    for path in layers(model):
        if path.startswith(("point_head", "track_head")) or "refinenet4.resConfUnit1" in path:
            continue
        pattern = scope_regex(path)
        matched = {place for place, name in scopes.items() if re.search(pattern, name)}
        assert matched, (path, pattern)
        own = rewritten_path(path).replace(".", r"\.") + r"(\..*)?"
        assert matched == {place for place in scopes if re.fullmatch(own, place)}
        covered |= matched
    assert covered == scopes.keys()


@pytest.mark.parametrize(
    "path, count",
    [
        ("aggregator.frame_blocks.1.attn.qkv", 3),
        ("aggregator.frame_blocks.1", 6),
        ("aggregator.frame_blocks.*", 24),
        ("aggregator", 48),
        ("trunk.global*", 24),
        ("trunk.global2.attn.v", 1),
        ("aggregator.patch_embed.blocks.0.mlp", 2),
        ("camera_head", 12),
        ("*", None),
    ],
)
def test_a_scope_finds_what_lies_under_it(networks, path, count):
    _, rewritten = networks
    names = [scope(rewritten, place) for place in layers(rewritten)]
    found = [name for name in names if re.search(scope_regex(path), name)]
    assert len(found) == (len(names) if count is None else count)


def test_similar_numbers_are_not_mixed_up():
    pattern = scope_regex("aggregator.frame_blocks.1")
    assert re.search(pattern, "x.Rewritten_module/x.Trunk_trunk/x.Block_frame1/x.Linear_fc1;")
    assert not re.search(pattern, "x.Rewritten_module/x.Trunk_trunk/x.Block_frame11/x.Linear_fc1;")


def test_recipes_of_compress_are_translated():
    assert find_recipe("w8a8").rules[0] == RECIPES["int8"].rules[0]
    assert find_recipe("w4a8-g32").rules[1]["op_config"] == RECIPES["int4"].rules[1]["op_config"]
    assert find_recipe("w8a16").rules[0] == RECIPES["int8-weights"].rules[0]
    hadamard = find_recipe("w8a8-hadamard").rules[1]
    assert hadamard["algorithm_key"] == RECIPES["int8-hadamard"].rules[1]["algorithm_key"]
    assert find_recipe("w4a8-g64").weight_bits == 4
    mixed = find_recipe("depth_head.*=float,aggregator.*=w8a8,*=w4a8-g32")
    assert mixed.weight_bits == 32
    # There the first match wins, here the last.
    last = mixed.rules[-1]
    assert last["algorithm_key"] == "no_quantize" and "_depth" in last["regex"]
    assert mixed.rules[0]["regex"] == ".*"


@pytest.mark.parametrize("name", ["fp8", "w4a4", "w4a8-g16", "w4a8-g32-hadamard"])
def test_what_litert_has_no_kernels_for_is_refused(name):
    with pytest.raises(InputError, match=name):
        find_recipe(name)


def test_what_nobody_knows_is_refused():
    with pytest.raises(RecipeError):
        find_recipe("int3")


def test_exceptions_come_last_and_float_is_one():
    rules = quantizer_rules(
        RECIPES["int4"], {"depth_head": "float32", "aggregator.global_blocks.*": "int8"}
    )
    assert len(rules) == 4
    assert rules[2]["algorithm_key"] == "no_quantize"
    assert rules[3]["op_config"]["weight_tensor_config"]["num_bits"] == 8
    with pytest.raises(InputError, match="measured ranges, which recipe int8 does without"):
        quantizer_rules(RECIPES["int8"], {"depth_head": "w8a8-static"})


def test_the_block_of_a_recipe_is_known():
    assert blocks_of(RECIPES["int4"].rules) == 32
    assert blocks_of(RECIPES["int8"].rules) == 1
    assert blocks_of(find_recipe("w4a8-g128").rules) == 128
    assert blocks_of(quantizer_rules(RECIPES["int4"], {"camera_head": "float32"})) == 32


def test_targets_have_recipes_that_exist():
    for target in TARGETS.values():
        known = RECIPES
        if target.runtime == "executorch":
            runs = target.runs_here
            known = executorch_recipes.RECIPES if runs else executorch_recipes.DELEGATED
        assert {*target.recipes} <= {*known}
