"""Exceptions: their recipes must be the target's, their layers must be there."""

from __future__ import annotations

import pytest
from networks import seeded

from vggt_edge.errors import InputError
from vggt_edge.export.backend import check, check_layers
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import Shape
from vggt_edge.export.targets import TARGETS, find_target


@pytest.mark.parametrize(
    "target, recipe", [("litert-gpu", "int4"), ("litert-npu", "int8"), ("executorch", "fp16")]
)
def test_an_exceptions_recipe_is_the_targets_too(target, recipe):
    goal = find_target(target)
    with pytest.raises(InputError, match=f"exception depth_head={recipe}: .*{target} .*can run"):
        check(goal, None, False, {"depth_head": recipe})
    assert check(goal, None, False, {"depth_head": "float32"}).name == goal.recipes[0]


@pytest.mark.parametrize("target", ["litert", "executorch"])
def test_an_exception_finds_a_layer_or_is_refused(target):
    network, goal = seeded(), TARGETS[target]
    rewritten = reauthor(network, Shape(2, 28, 42), ("depth",), goal.form)
    for path in ("depth_head", "aggregator.global_blocks.*", "aggregator.frame_blocks.0.mlp",
                 "aggregator.patch_embed.blocks.0.attn.qkv", "trunk.frame1.fc1", "*"):  # fmt: skip
        check_layers(goal, network, rewritten, [path])
    for path, near in (
        ("depht_head", "depth_head"),
        ("aggregator.global_block.*", r"aggregator\.global_blocks\.\d"),
        ("camera_head", "depth_head"),  # not exported
        ("", r"trunk\."),
    ):
        with pytest.raises(InputError, match=f"exception {path.replace('*', '.')}.*is {near}"):
            check_layers(goal, network, rewritten, ["depth_head", path])


def test_executorch_has_exceptions_for_linears_alone():
    network, goal = seeded(), TARGETS["executorch"]
    rewritten = reauthor(network, Shape(2, 28, 42), ("depth",), goal.form)
    with pytest.raises(InputError, match="no linear of what is exported"):
        check_layers(goal, network, rewritten, ["depth_head.scratch.layer1_rn"])
