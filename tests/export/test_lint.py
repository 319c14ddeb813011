from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import seeded
from torch import nn

from vggt_edge.errors import ExportError, InputError
from vggt_edge.export.lint import RULES, lint, require
from vggt_edge.export.module import DepthOnly
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import OUTPUTS, Form, Shape
from vggt_edge.export.targets import TARGETS, Target, find_target

EXECUTORCH = Target("executorch", "ExecuTorch", Form(), ("float32",))


class Part(nn.Module):
    """One function inside a module of a known path."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Network(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.part = Part(function)

    def forward(self, *inputs):
        return self.part(*inputs) * 2


def found(function, target, *inputs):
    goal = EXECUTORCH if target == "executorch" else TARGETS[target]
    return lint(torch.export.export(Network(function), inputs or (torch.rand(1, 4, 8, 8),)), goal)


def resized(**options):
    return lambda x: F.interpolate(x, scale_factor=2, **options)


KERNEL = torch.rand(4, 4, 2, 2)
CASES = [
    (resized(mode="bicubic", antialias=True), "litert", "_upsample_bicubic2d_aa"),
    (resized(mode="bilinear", antialias=True), "executorch", "_upsample_bilinear2d_aa"),
    (resized(mode="bicubic"), "litert-gpu", "upsample_bicubic2d"),
    (resized(mode="bilinear", align_corners=True), "litert-gpu", "upsample_bilinear2d"),
    (lambda x: F.conv_transpose2d(x, KERNEL, stride=2), "litert-gpu", "conv_transpose2d"),
    (lambda x: F.grid_sample(x, torch.zeros(1, 3, 3, 2), align_corners=False), "litert-npu",
     "grid_sampler"),
    (lambda x: F.embedding(x[0, 0, 0].long(), KERNEL.flatten(1)), "litert", "embedding"),
    (lambda x: x.topk(2)[0], "litert", "topk"),
    (lambda x: x.sort()[0], "litert", "sort"),
    (lambda x: torch.linalg.inv(x), "executorch", "linalg_inv"),
    (lambda x: torch.cat([x, x[:, :1].expand(-1, 3, -1, -1)], 1), "litert-gpu", "expand"),
    (lambda x: F.group_norm(x, 2), "litert-gpu", "group_norm"),
    (lambda x: F.unfold(x, 2), "litert-gpu", "im2col"),
    (lambda x: F.pixel_shuffle(x, 2), "litert-gpu", "pixel_shuffle"),
    (lambda x: x.mean(dim=(2, 3)), "litert-gpu", "mean"),
    (lambda x: F.layer_norm(x.half(), (8,)).float(), "executorch", "layer_norm"),
    (lambda x: F.scaled_dot_product_attention(x, x, x), "executorch",
     "scaled_dot_product_attention"),
    (lambda x: F.gelu(x, approximate="tanh"), "executorch", "gelu"),
    (lambda x: x.view(1, 2, 2, 8, 8).flatten(1, 2), "litert-gpu", "view"),
    (lambda x: x.bfloat16() + 1, "litert", "to"),
    (lambda x: x[x[0, 0, 0, 0].int().item():], "litert", "item"),
]  # fmt: skip


@pytest.mark.parametrize("function, target, operator", CASES, ids=[case[2] for case in CASES])
def test_what_a_target_lacks_is_named_with_its_place(function, target, operator):
    entries = [entry for entry in found(function, target) if entry.operator == operator]
    assert entries, found(function, target)
    assert entries[0].module == "part"
    assert f"{operator} in part: " in str(entries[0])
    assert entries[0].reason and entries[0].remedy


HARMLESS = [
    resized(mode="bilinear", align_corners=False),
    lambda x: F.conv2d(x, KERNEL),
    lambda x: x + x[:, :1].expand(-1, 4, -1, -1),  # an elementwise operator broadcasts itself
    lambda x: x.mean(dim=3),
    lambda x: x.reshape(2, 2, 8, 8).transpose(1, 2),
    F.gelu,
]


@pytest.mark.parametrize("target", ["litert", "litert-gpu", "litert-npu", "executorch"])
@pytest.mark.parametrize("function", HARMLESS)
def test_what_a_target_has_is_not_complained_about(function, target):
    assert not found(function, target)


def test_layer_norm_of_float32_is_a_warning_and_of_float16_an_error():
    entries = found(lambda x: F.layer_norm(x, (8,)), "executorch")
    assert [entry.severity for entry in entries] == ["warning"]
    entries = found(lambda x: F.layer_norm(x.half(), (8,)).float(), "executorch")
    assert [entry.severity for entry in entries] == ["error"]


@pytest.fixture(scope="module")
def programs():
    """The rewrite in the forms of all targets, exported."""
    model, made = seeded(), {}
    for form in {target.form for target in TARGETS.values()}:
        rewritten = reauthor(model, Shape(2, 28, 42), OUTPUTS, form)
        made[form] = torch.export.export(rewritten, (rewritten.example(),))
    return made


def test_the_network_itself_fails_on_accelerators():
    naive = torch.export.export(DepthOnly(seeded()), (torch.rand(2, 3, 28, 42),))
    with pytest.raises(ExportError, match=r"litert-gpu cannot run this network: error: .* more\)"):
        require(naive, TARGETS["litert-gpu"])
    problems = lint(naive, TARGETS["litert-gpu"])
    assert any("dimensions" in entry.reason for entry in problems)
    assert any(entry.operator == "conv_transpose2d" for entry in problems)
    assert any("depth_head.resize_layers.0" in entry.module for entry in problems)


def test_its_rewrite_fails_nowhere(programs):
    for target in TARGETS.values():
        assert require(programs[target.form], target) == []
        assert require(programs[target.form], EXECUTORCH) == []


def test_no_tensor_of_the_rewrite_has_more_than_four_dimensions(programs):
    for program in programs.values():
        values = [node.meta.get("val") for node in program.graph.nodes]
        ranks = [value.ndim for value in values if isinstance(value, torch.Tensor)]
        assert len(ranks) > 200 and max(ranks) == 4


def test_a_graph_may_hold_only_so_much(programs):
    program = programs[TARGETS["litert-npu"].form]
    size = sum(t.nbytes for t in (*program.state_dict.values(), *program.constants.values()))
    small = replace(TARGETS["litert-npu"], graph_limit=size // 2)
    (entry,) = lint(program, small)
    assert entry.operator == "graph" and "split" in entry.remedy
    assert "the network itself" in str(entry)
    assert not lint(program, small, weight_bits=8)


def test_rules_are_about_known_targets_and_say_what_to_do():
    for rule in RULES:
        assert {*rule.targets} <= {*TARGETS, "executorch"}
        assert rule.reason and rule.remedy


def test_an_unknown_target_or_recipe_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="unknown target 'phone'; known: litert, litert-gpu"):
        find_target("phone")
    with pytest.raises(InputError, match="'int4'.*litert-gpu.*can run fp16, float32"):
        find_target("litert-gpu").check_recipe("int4")


@pytest.mark.parametrize(
    "target, recipe",
    [("executorch", "fp16"), ("executorch", "int8-weights"), ("litert", "int3")],
)
def test_what_a_target_can_run_is_said_of_that_target(target, recipe):
    goal = find_target(target)
    with pytest.raises(InputError) as caught:
        goal.check_recipe(recipe)
    message = str(caught.value)
    assert all(name in message for name in (f"{recipe!r}", *goal.recipes, goal.schemes))
    assert "fp8" not in message and ("a16" in message) == (target == "litert")
