from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_CONFIG
from networks import seeded
from torch import nn

from vggt_edge.errors import ExportError, InputError
from vggt_edge.export import stages
from vggt_edge.export.decoder import Resize, Spread, interpolation_matrix
from vggt_edge.export.layers import BLOCK, LEAST, Normalize, Rotary, linear, pairs_first
from vggt_edge.export.module import TensorModule, example_images, validate
from vggt_edge.export.reauthor import reauthor
from vggt_edge.export.shape import OUTPUTS, Form, Shape
from vggt_edge.model.rope import rotary_tables, rotate
from vggt_edge.types import TokenLayout
from vggt_edge.weights import load

CPU, GPU = Form(channels_last=True), Form(True, "matmul", norm_gain=1 / 64)


@pytest.fixture(scope="module")
def tiny():
    return seeded()


@pytest.mark.parametrize("form", [Form(), CPU, GPU], ids=str)
@pytest.mark.parametrize("shape", [(1, 70, 70), (2, 70, 70), (2, 42, 98), (3, 84, 56)], ids=str)
def test_the_rewrite_is_the_network(tiny, shape, form):
    shape = Shape(*shape)
    rewritten = reauthor(tiny, shape, OUTPUTS, form)
    report = validate(
        rewritten, TensorModule(tiny, OUTPUTS), shape, channels_last=form.channels_last
    )
    assert [entry.name for entry in report] == list(OUTPUTS)
    # The comparison would notice: every output varies.
    assert all(entry.reference_maximum > entry.reference_minimum for entry in report)


def test_no_block_of_weights_has_a_scale_of_zero():
    weight = torch.randn(3, 3 * BLOCK, generator=torch.Generator().manual_seed(0))
    assert linear(weight, None).weight.data_ptr() == weight.data_ptr()
    dying = weight.clone()
    dying[1, BLOCK : 2 * BLOCK] *= 1e-9
    made = linear(dying, None).weight
    assert (made.unflatten(1, (-1, BLOCK)).abs().amax(-1) / 7).half().gt(0).all()
    assert (made - dying).abs().max() <= 2 * LEAST and (made != dying).sum() == 1


@pytest.mark.parametrize("form", [Form(), CPU, GPU], ids=str)
@pytest.mark.parametrize("size", [0.0, 2 * LEAST])
def test_dead_blocks_stay_alive_through_attention(form, size):
    """In every row, so that the mean of a head or the gain of queries could undo what was done."""
    model = seeded()
    kinds = (model.aggregator.patch_embed.blocks, model.aggregator.frame_blocks,
             model.aggregator.global_blocks, model.camera_head.trunk)  # fmt: skip
    for block in (block for blocks in kinds for block in blocks):
        # Queries and keys alone; what is barely alive must survive the gain too.
        block.attn.qkv.weight[: 2 * block.attn.width, :BLOCK] = size
    shape = Shape(2, 42, 42)
    rewritten = reauthor(model, shape, OUTPUTS, form)
    validate(rewritten, TensorModule(model, OUTPUTS), shape, channels_last=form.channels_last)
    linears = [m for m in rewritten.modules() if isinstance(m, nn.Linear)]
    linears = [one for one in linears if one.in_features % BLOCK == 0]
    assert len(linears) > 50
    for one in linears:
        assert (one.weight.unflatten(1, (-1, BLOCK)).abs().amax(-1) / 7).half().gt(0).all()


@pytest.mark.parametrize("shape", [(1, 112, 112), (2, 112, 168), (4, 56, 84)], ids=str)
def test_the_rewrite_of_the_pocket_model_is_the_pocket_model(shape):
    model, shape = load("pocket", dtype="float32", device="cpu"), Shape(*shape)
    rewritten = reauthor(model, shape, OUTPUTS, CPU)
    validate(rewritten, TensorModule(model, OUTPUTS), shape, channels_last=True)


@pytest.mark.slow
def test_every_part_of_the_network_matters(tiny):
    """A rewrite that forgot one tensor would not pass: each one changes the outputs."""
    shape = Shape(2, 28, 28)
    images = example_images(shape)
    wanted = TensorModule(tiny, OUTPUTS)(images)
    unused = ("mask_token", "point_head", "track_head")
    for name, tensor in tiny.named_parameters():
        if any(part in name for part in unused):
            continue
        if "resConfUnit1" in name and "refinenet4" in name:
            continue
        kept = tensor.data.clone()
        with torch.no_grad():
            # Not a constant: the mean of queries and keys is subtracted.
            tensor += torch.linspace(0.1, 0.6, tensor.numel()).view_as(tensor)
        changed = reauthor(tiny, shape, OUTPUTS)(images)
        tensor.data = kept
        assert any(
            not torch.allclose(c, w, rtol=1e-6, atol=1e-7)
            for c, w in zip(changed, wanted, strict=True)
        ), name


@pytest.mark.parametrize("outputs", [("depth",), ("confidence",), ("pose",), ("pose", "depth")])
def test_outputs_come_in_their_order_and_alone_bare(tiny, outputs):
    shape = Shape(2, 42, 42)
    rewritten = reauthor(tiny, shape, outputs)
    found = rewritten(example_images(shape))
    if len(outputs) == 1:
        assert isinstance(found, torch.Tensor)
    assert rewritten.outputs == tuple(name for name in OUTPUTS if name in outputs)
    validate(rewritten, TensorModule(tiny, outputs), shape)


def test_a_half_precision_network_is_rewritten_in_float32(tiny):
    half = seeded().bfloat16()
    shape = Shape(1, 42, 42)
    rewritten = reauthor(half, shape, OUTPUTS)
    assert {p.dtype for p in rewritten.parameters()} == {torch.float32}
    validate(rewritten, TensorModule(half.float(), OUTPUTS), shape)


def test_stages_are_the_whole(tiny):
    shape = Shape(3, 42, 56)
    rewritten = reauthor(tiny, shape, OUTPUTS)
    images = example_images(shape)
    limit = max(stages.size_of(stage) for stage in stages.split(rewritten)[2:])
    one, many = stages.split(rewritten), stages.split(rewritten, limit)
    assert [stage.name for stage in one] == ["encoder", "trunk", "depth", "camera"]
    assert len(many) > len(one)
    assert all(stages.size_of(stage) <= limit for stage in many)
    for plan in (one, many, stages.whole(rewritten)):
        values = stages.run(plan, stages.call_torch, images)
        for name, wanted in zip(OUTPUTS, rewritten(images), strict=True):
            torch.testing.assert_close(values[name], wanted, rtol=0, atol=0)


def test_a_stage_larger_than_the_limit_is_refused(tiny):
    with pytest.raises(ExportError, match="stage .* alone has .* use a recipe of fewer bits"):
        stages.split(reauthor(tiny, Shape(1, 42, 42)), limit=1000)
    # With fewer bits, more fits.
    size = max(stages.size_of(s) for s in stages.split(reauthor(tiny, Shape(1, 42, 42))))
    assert stages.split(reauthor(tiny, Shape(1, 42, 42)), limit=size // 4, weight_bits=8)


def test_impossible_shapes_and_outputs_are_refused(tiny):
    with pytest.raises(InputError, match="multiples of the patch size 14.*nearest is 224x224"):
        reauthor(tiny, Shape(2, 224, 223))
    with pytest.raises(InputError, match="at least one"):
        reauthor(tiny, Shape(0, 42, 42))
    with pytest.raises(InputError, match="unknown output points; known: depth"):
        reauthor(tiny, Shape(1, 42, 42), ("points",))
    with pytest.raises(InputError, match="no output"):
        reauthor(tiny, Shape(1, 42, 42), ())
    blind = seeded(dataclasses.replace(TINY_CONFIG, heads=("depth",)))
    with pytest.raises(InputError, match="no head for pose; it has depth"):
        reauthor(blind, Shape(1, 42, 42), ("depth", "pose"))
    with pytest.raises(InputError, match="HEIGHTxWIDTH"):
        Shape.parse(2, "224")


@pytest.mark.parametrize("factor", [2, 4])
def test_spread_is_a_transposed_convolution(factor):
    torch.manual_seed(0)
    convolution = nn.ConvTranspose2d(5, 3, factor, stride=factor)
    x = torch.randn(2, 5, 3, 4)
    found = Spread(convolution)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, convolution(x))


@pytest.mark.parametrize("size, out", [((4, 7), (8, 14)), ((5, 3), (9, 3)), ((1, 4), (3, 9))])
def test_two_matrices_are_bilinear_interpolation(size, out):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    wanted = Resize(size, out, Form())(x)
    torch.testing.assert_close(Resize(size, out, Form(resize="matmul"))(x), wanted)
    assert torch.allclose(interpolation_matrix(out[0], size[0]).sum(1), torch.ones(out[0]))


def test_rotary_in_another_order_of_channels_is_rotary():
    torch.manual_seed(0)
    layout = TokenLayout(2, 5, 3, 4)
    tables = rotary_tables(layout, 16)
    x = torch.randn(1, 2 * layout.per_view, 3, 16)
    wanted = rotate(x, *(table.repeat(2, 1)[None, :, None] for table in tables))
    order = pairs_first(16)
    torch.testing.assert_close(Rotary(tables, 2)(x[..., order]), wanted[..., order])


def test_normalisation_scaled_against_overflow_is_the_same():
    torch.manual_seed(0)
    x = 300 * torch.randn(4, 64)
    plain, safe = Normalize(1e-5)(x), Normalize(1e-5, gain=1 / 64)(x)
    torch.testing.assert_close(plain, nn.functional.layer_norm(x, (64,)))
    torch.testing.assert_close(safe, plain)
