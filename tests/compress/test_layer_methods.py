"""Methods that look at one layer: none is ever worse than rounding to the nearest."""

from __future__ import annotations

import pytest
import torch

from vggt_edge.compress.apply import quantized
from vggt_edge.compress.bias import correct_bias
from vggt_edge.compress.blockwise import TrainableLinear
from vggt_edge.compress.calibration import LayerInputs
from vggt_edge.compress.clip import clip_activations
from vggt_edge.compress.gptq import gptq
from vggt_edge.compress.layer import (
    activations,
    better,
    importance,
    make_problem,
    output_error,
    simplest,
)
from vggt_edge.compress.nearest import best_step, nearest
from vggt_edge.compress.octav import octav
from vggt_edge.compress.smooth import gain_of, smooth, smoothed
from vggt_edge.model.layers import Linear
from vggt_edge.recipe import Scheme

NAMES = ["w8a8", "w4a8-g32", "w4a16-g32", "w4a4", "w4a4-hadamard", "w4a4-g32-hadamard", "fp8"]


def layer_with_outliers(outputs: int = 96, inputs: int = 128, rows: int = 400):
    """Inputs as VGGT's: a few channels a hundred times larger, correlated, tokens apart."""
    generator = torch.Generator().manual_seed(5)
    linear = Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(outputs, inputs, generator=generator) * 0.05)
        linear.weight[:, ::17] *= 4
    mix = torch.randn(24, inputs, generator=generator)
    x = torch.randn(rows, 24, generator=generator) @ mix * 0.3
    x += torch.randn(rows, inputs, generator=generator) * 0.2
    x[:, [3, 50, 90]] *= 60
    special = torch.arange(rows) % 20 == 0
    x[special] *= 5
    return linear.requires_grad_(False), LayerInputs(x, special)


@pytest.fixture(scope="module")
def problems():
    linear, inputs = layer_with_outliers()
    return {name: make_problem("x", Scheme.parse(name), linear, inputs) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_never_worse_than_rounding(name, problems):
    problem = problems[name]
    plain = simplest(problem)
    least = output_error(problem, plain)
    for kind in ("max", "mean"):
        found = smooth(problem, kind)
        assert output_error(problem, better(problem, plain, found)) <= least
    clipped = clip_activations(problem, plain)
    assert output_error(problem, clipped) <= least
    joint = better(problem, plain, gptq(problem, plain))
    assert output_error(problem, joint) <= least
    corrected = correct_bias(problem, plain)
    assert output_error(problem, corrected) <= least
    again = correct_bias(problem, corrected).shift
    assert torch.allclose(again, corrected.shift)


def test_each_method_earns_its_place(problems):
    """On inputs with outlier channels each one wins where it should."""

    def error(name, choice):
        return output_error(problems[name], choice(problems[name]))

    assert error("w8a8", smooth) < 0.3 * error("w8a8", simplest)
    assert error("w4a4-hadamard", simplest) < 0.7 * error("w4a4", simplest)
    assert error("w4a4", lambda p: clip_activations(p, smooth(p))) <= error("w4a4", smooth)
    start = problems["w4a16-g32"]
    assert error("w4a16-g32", lambda p: gptq(p, simplest(p))) < 0.3 * error("w4a16-g32", simplest)
    assert error("w4a16-g32", lambda p: smooth(p, "mean")) < error("w4a16-g32", simplest)
    aware = nearest(start.weight, start.scheme, importance(start, None))
    assert output_error(start, simplest(start)._replace(codes=aware)) < error("w4a16-g32", simplest)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_is_that_of_the_real_layer(name, problems):
    linear, inputs = layer_with_outliers()
    problem = problems[name]
    choice = smoothed(problem, "max", 0.5)._replace(clip=0.9)
    layer = quantized(linear, "x", problem.scheme, choice.codes, choice.gain, choice.clip)
    exact = linear(inputs.rows) - linear.bias
    lost = (layer(inputs.rows) - linear.bias - exact).square().sum() / exact.square().sum()
    assert float(lost) == pytest.approx(output_error(problem, choice), rel=0.02)


def test_gptq_of_independent_inputs_is_rounding():
    """With a diagonal Hessian there is nothing to make good for."""
    from vggt_edge.compress.gptq import round_jointly
    from vggt_edge.compress.nearest import grid_of, round_to

    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    for name in ("w8a8", "w4a8-g16", "fp8"):
        scheme = Scheme.parse(name)
        grid = grid_of(weight, scheme)
        joint = round_jointly(weight.clone(), torch.eye(64) * 3, scheme, grid)
        assert torch.equal(joint.weight(), round_to(weight, scheme, grid).weight())


def test_octav_finds_the_clip_of_least_error():
    weight = torch.randn(8, 4096, generator=torch.Generator().manual_seed(2))
    reach = octav(weight, 4)
    assert (reach < weight.abs().amax(1)).all() and (reach > 1).all()

    def error(reach):
        step = reach[:, None] / 7
        return ((weight / step).round().clamp(-8, 7) * step - weight).square().mean(1)

    tried = torch.stack([error(torch.full((8,), r)) for r in torch.linspace(1, 5, 41).tolist()])
    assert (error(reach) < 1.1 * tried.amin(0)).all()
    step = best_step(weight, 4, None, search=True)
    assert (error(step * 7) <= error(reach) + 1e-9).all()


def test_patches_alone_can_rule_the_gain(problems):
    problem = problems["w8a8"]
    everything = gain_of(problem, "mean", 1.0)
    patches = gain_of(problem, "mean", 1.0, patches_only=True)
    assert not torch.allclose(everything, patches)
    rows = problem.rows[problem.patches].abs().mean(0)
    assert torch.allclose(patches * rows, (patches * rows).mean().expand(128), rtol=1e-3)


def test_magnitudes_are_told_apart():
    _, inputs = layer_with_outliers()
    sizes = inputs.magnitudes()
    assert sizes["special"] > 2 * sizes["patch"] > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n != "fp8"])
def test_what_is_trained_is_what_runs(name, problems):
    linear, inputs = layer_with_outliers()
    problem = problems[name]
    start = smoothed(problem, "max", 0.5)._replace(clip=0.9)
    trainable = TrainableLinear(linear, "x", problem.scheme, start)
    with torch.no_grad():
        for parameter in trainable.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        simulated = trainable(inputs.rows)
    choice = trainable.choice()
    layer = quantized(linear, "x", problem.scheme, choice.codes, choice.gain, choice.clip)
    apart = (layer(inputs.rows) - simulated).square().mean() / simulated.square().mean()
    assert apart < 1e-5
    loss = trainable(inputs.rows).square().mean()
    loss.backward()
    used = [trainable.gain, trainable.reach]
    used += [trainable.share] if problem.scheme.activation_bits < 16 else []
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in used)


def test_sixteen_bits_are_left_alone(problems):
    problem = problems["w4a16-g32"]
    seen = activations(problem.rows, problem.scheme, None, 0.5)
    assert torch.equal(seen, problem.rows)
    assert clip_activations(problem, simplest(problem)).clip == 1
