"""Quantized layers: what is stored, what runs, and that they are the same thing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from vggt_edge import weights
from vggt_edge.cli.weights import info as weights_command
from vggt_edge.compress.apply import behind, quantized, quantized_conv
from vggt_edge.compress.compress import compress
from vggt_edge.compress.nearest import nearest
from vggt_edge.errors import CheckpointError, RecipeError
from vggt_edge.kernels import build
from vggt_edge.model import backends
from vggt_edge.model.layers import Linear
from vggt_edge.model.quantized import QuantLinear, fits, pack_nibbles, unpack_nibbles
from vggt_edge.model.quantized_conv import QuantConv2d, conv_fits, conv_scheme
from vggt_edge.model.vggt import VGGT
from vggt_edge.recipe import Recipe, Scheme

NAMES = ["w8a8", "w8a16", "w4a8", "w4a8-g32", "w4a16-g32", "w4a4", "w4a4-g64-hadamard", "fp8"]


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: False)
    backends.choose.cache_clear()
    yield
    backends.choose.cache_clear()


def make(name: str, gain: bool = False) -> tuple[Linear, QuantLinear]:
    torch.manual_seed(3)
    linear = Linear(128, 192)
    scheme = Scheme.parse(name)
    factor = torch.rand(128) + 0.5 if gain else None
    weight = behind(linear.weight.detach(), scheme, "x", factor)
    return linear, quantized(linear, "x", scheme, nearest(weight, scheme), factor, 0.9)


def close(a, b, tolerance=2e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_fast_backend_equals_the_simple_one(name, gain, monkeypatch):
    _, layer = make(name, gain)
    x = torch.randn(3, 5, 128)
    fast, part, active = layer(x), layer.outputs(x, 64, 128), layer.gelu(x)
    monkeypatch.setattr(QuantLinear, "backend", "expanded")
    layer.drop_panels()
    simple = layer(x)
    # A rotation may round a code the other way: one step of one input.
    tolerance = 2e-2 if "hadamard" in name else 2e-5
    assert close(fast, simple, tolerance)
    assert torch.equal(part, fast[..., 64:128])
    assert close(active, torch.nn.functional.gelu(simple), tolerance)


def test_onednn_equals_our_kernels(no_kernels):
    _, layer = make("w8a8")
    x = torch.randn(7, 128)
    if layer.backend != "onednn":
        pytest.skip("this torch has no oneDNN product")
    slow = layer(x)
    backends.choose.cache_clear()
    expected = backends.product(
        "expanded", x, layer.weight_integers(), layer.scale, layer.bias, layer.scheme,
        layer.clip, torch.float32,
    )  # fmt: skip
    assert close(slow, expected)


LARGEST = """
import torch
from vggt_edge.model import backends
from vggt_edge.recipe import Scheme
backends.available = lambda: False
backend = backends.choose(Scheme(), torch.device("cpu"))
weights = torch.full((32, 64), 127, dtype=torch.int8)
weights[1] = -127
x = torch.tensor([[1.0], [0.5]]).repeat(1, 64)
ones = torch.ones(32)
y = backends.product(
    backend, x, weights, ones, torch.zeros(32), Scheme(), torch.ones(()), torch.float32
)
print(backend, float((y - x @ weights.float().t()).abs().max()))
"""


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "DEFAULT"])
def test_largest_codes_never_saturate(isa):
    """Without VNNI oneDNN sums pairs in 16 bits; it must not be taken there."""
    done = subprocess.run(
        [sys.executable, "-c", LARGEST],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    backend, error = done.stdout.split()
    assert float(error) < 1, backend
    if isa != "DEFAULT":
        assert backend == "expanded"


def loaded_lines(recipe: str, folder) -> list[str]:
    lines: list[str] = []
    path = weights.save(rounded(recipe), folder / "small.safetensors")
    weights.load(path, dtype="float32", device="cpu", notify=lines.append)
    return [line for line in lines if "simulated" in line]


def test_what_is_simulated_is_said_once_a_scheme(tmp_path, capsys):
    mixed = "camera_head.*=fp8,aggregator.*=w8a8,*=w8a16"
    lines = loaded_lines(mixed, tmp_path)
    assert len(lines) == 1 and "fp8 is simulated on this cpu" in lines[0]
    weights_command(str(tmp_path / "small.safetensors"), size=56, device="cpu")
    said = {
        line.split()[2]: line for line in capsys.readouterr().out.splitlines() if "runs as" in line
    }
    assert {name for name, line in said.items() if "simulated" in line} == {"fp8"}
    assert set(said) == {"fp8", "w8a8", "w8a16"}


def test_a_cpu_without_kernels_says_what_it_simulates(no_kernels, tmp_path):
    lines = loaded_lines("camera_head.*=w4a4,*=w8a16", tmp_path)
    assert len(lines) == 1 and "w4a4 is simulated" in lines[0]


def test_nearest_beats_a_coarser_grid():
    """More bits, smaller groups and a search never make a weight worse."""
    torch.manual_seed(0)
    weight = torch.randn(64, 256) * torch.rand(1, 256).exp()

    def error(name, search=True):
        return float((nearest(weight, Scheme.parse(name), search=search).weight() - weight).norm())

    assert error("w8a8") < 0.1 * error("w4a8")
    assert error("w4a8-g32") < error("w4a8-g128") < error("w4a8")
    assert error("w4a8") < error("w4a8", search=False)


def test_nibbles():
    codes = torch.randint(-8, 8, (5, 64), dtype=torch.int8)
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)


def test_odd_shapes_are_refused():
    assert not fits(100, 64, Scheme())
    assert not fits(64, 9, Scheme())
    with pytest.raises(RecipeError):
        QuantLinear(100, 64, Scheme(), torch.float32)


@pytest.fixture(scope="module")
def images():
    return torch.rand(1, 2, 3, 56, 70, generator=torch.Generator().manual_seed(0))


def rounded(recipe: str) -> VGGT:
    model = weights.load("pocket", dtype="float32", device="cpu")
    compress(model, recipe, method="nearest")
    return model


@pytest.mark.parametrize("name", ["w8a8", "w4a8-g32", "fp8"])
def test_a_file_gives_back_the_same_network(name, images, tmp_path):
    model = rounded(name)
    before = model(images)
    path = weights.save(model, tmp_path / "small.safetensors")
    assert torch.equal(model(images).depth, before.depth)  # saving changed nothing
    again = weights.load(path, dtype="float32", device="cpu")
    assert again.recipe == Recipe(name)
    after = again(images)
    assert torch.equal(after.depth, before.depth) and torch.equal(after.pose_enc, before.pose_enc)
    state = again.state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor.float(), state[key].float()), key
    header = weights.describe(path)
    float_header = weights.describe("pocket")
    assert header.parameters == float_header.parameters


def test_no_float_copy_is_kept(tmp_path):
    model = rounded("w4a8")
    model(torch.rand(1, 1, 3, 28, 28))
    layers = [m for m in model.modules() if isinstance(m, QuantLinear)]
    config = model.config
    blocks = config.encoder_depth + 2 * config.depth + config.camera_depth
    assert len(layers) >= 4 * blocks
    linears = [m for m in model.modules() if isinstance(m, Linear)]
    assert all(m.in_features % 64 or m.out_features % 16 for m in linears)
    weighed = sum(layer.in_features * layer.out_features for layer in layers)
    held = sum(
        t.nbytes
        for layer in layers
        for t in (*layer.buffers(), *(x for x in layer._panels or () if torch.is_tensor(x)))
    )
    assert held < 0.56 * weighed
    path = weights.save(model, tmp_path / "w4.safetensors")
    floats = sum(t.nbytes for name, t in model.state_dict().items() if t.is_floating_point())
    convs = [m for m in model.modules() if isinstance(m, QuantConv2d)]
    assert len(convs) > 20
    eight = sum(conv.codes.nbytes for conv in convs)
    assert path.stat().st_size < floats + 0.51 * weighed + eight + 200_000


def test_casting_the_network_leaves_the_scales():
    model = rounded("w8a8")
    scales = {n: t.clone() for n, t in model.state_dict().items() if n.endswith(".scale")}
    model.to(torch.bfloat16)
    for name, scale in scales.items():
        assert torch.equal(model.state_dict()[name], scale)


def test_twice_and_never_are_refused():
    model = weights.load("pocket", dtype="float32", device="cpu")
    with pytest.raises(RecipeError, match="no layer"):
        compress(model, "nowhere.*=w8a8", method="nearest")
    compress(model, "w8a8", method="nearest")
    with pytest.raises(RecipeError, match="already"):
        compress(model, "w8a8", method="nearest")


def test_a_packed_file_for_another_shape_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model = rounded("w8a8")
    path = weights.save(model, tmp_path / "m.safetensors")
    header = weights.describe(path)
    tensors = load_file(path)
    name = next(n for n in tensors if n.endswith("fc1.codes"))
    tensors[name] = tensors[name][:, :-1].contiguous()
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="wrong shape"):
        weights.load(tmp_path / "bad.safetensors")
    assert header.recipe == Recipe("w8a8")


def test_backends_say_what_runs():
    assert backends.choose(Scheme(), torch.device("cpu")) in ("avx512-vnni", "onednn", "expanded")
    assert backends.choose(Scheme(8, 16), torch.device("cpu")) == "expanded"
    assert build.available() or build.reason()


CONVS = [
    torch.nn.Conv2d(48, 32, 3, padding=1),
    torch.nn.Conv2d(32, 48, 3, padding=1, bias=False),
    torch.nn.Conv2d(64, 80, 3, stride=2, padding=1),
    torch.nn.Conv2d(48, 64, 1),
    torch.nn.ConvTranspose2d(48, 32, 4, stride=4),
    torch.nn.ConvTranspose2d(32, 32, 2, stride=2),
]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_convolutions_stay_close_and_backends_agree(conv, bits, monkeypatch):
    # Seeded: where a number lies half-way between two codes, backends may round it differently.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, conv.in_channels, 9, 13, generator=generator)
    layer = quantized_conv(conv, Scheme(8, bits))
    expected, fast = conv(x), layer(x)
    assert fast.shape == expected.shape
    assert (fast - expected).norm() < (0.03 if bits == 8 else 0.015) * expected.norm()
    weight = layer.weight()
    assert weight.shape == conv.weight.shape
    layer.drop_panels()
    assert torch.equal(layer.weight(), weight)
    monkeypatch.setattr(QuantConv2d, "backend", "expanded")
    assert close(fast, layer(x), 2e-5)


def test_convolutions_are_held_in_eight_bits():
    assert conv_scheme(Scheme.parse("w4a8-g32")) == Scheme(8, 8)
    assert conv_scheme(Scheme.parse("w4a16-g32")) == Scheme(8, 16)
    assert conv_scheme(Scheme.parse("w4a4")) == Scheme(8, 8)
    assert conv_scheme(Scheme.parse("fp8")) is None and conv_scheme(None) is None
    assert not conv_fits(torch.nn.Conv2d(3, 64, 14, stride=14))
    assert not conv_fits(torch.nn.Conv2d(32, 2, 1))
