"""Files of others, made here in their layouts: named, opened, or refused."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor

from vggt_edge import weights
from vggt_edge.compress import awq_layout, foreign
from vggt_edge.compress.foreign_open import open_awq, open_quantvggt
from vggt_edge.errors import CheckpointError, RecipeError
from vggt_edge.model.quantized import QuantLinear, hadamard_signs, rotate
from vggt_edge.model.vggt import VGGT
from vggt_edge.recipe import Recipe, Scheme

LAYERS = foreign.BLOCK_LAYERS


def float_pocket() -> VGGT:
    return weights.load("pocket", dtype="float32", device="cpu")


def awq_words(codes: np.ndarray) -> Tensor:
    """(N, K) codes from 0 to 15 as llm-awq packs them."""
    outputs, width = codes.shape
    first = [0, 1, 8, 9, 16, 17, 24, 25]
    order = [start + shift for shift in (0, 2, 4, 6) for start in first]
    dealt = [0, 2, 4, 6, 1, 3, 5, 7]
    order = [order[eight + i] for eight in range(0, 32, 8) for i in dealt]
    shuffled = codes.reshape(outputs, width // 32, 32)[:, :, order].reshape(outputs, width)
    tiles = shuffled.reshape(outputs // 4, 4, width // 64, 64).transpose(0, 2, 1, 3)
    runs = tiles.reshape(outputs // 4, width // 64, 64, 4).astype(np.uint16)
    words = sum(runs[..., nibble] << np.uint16(4 * nibble) for nibble in range(4))
    words = np.ascontiguousarray(words.reshape(outputs // 4, width))
    return torch.from_numpy(words.view(np.int16))


def awq_layer(weight: Tensor, group: int = 128) -> tuple[dict[str, Tensor], Tensor]:
    """A layer in AWQ's layout, and the weights it stands for."""
    outputs, width = weight.shape
    grouped = weight.view(outputs, width // group, group)
    step = (grouped.abs().amax(2) / 7).half()
    codes = (grouped / step.float()[:, :, None]).round().clamp(-8, 7) + 8
    rows = awq_layout.scale_rows(width, group)
    scales, zeros = torch.zeros(rows, outputs).half(), torch.zeros(rows, outputs).half()
    scales[: width // group], zeros[: width // group] = step.t(), (-8 * step).t()
    exact = codes * step.float()[:, :, None] + (-8 * step).float()[:, :, None]
    state = {
        "qweight": awq_words(codes.view(outputs, width).numpy().astype(np.uint8)),
        "scales": scales,
        "scaled_zeros": zeros,
    }
    return state, exact.view(outputs, width)


@pytest.mark.parametrize(("width", "group"), [(256, 128), (1024, 128), (256, 64), (512, 32)])
def test_awq_weights(width, group):
    weight = torch.randn(12, width, generator=torch.Generator().manual_seed(0))
    state, exact = awq_layer(weight, group)
    found, size = awq_layout.dequantize(*state.values())
    assert size == group
    assert torch.equal(found, exact)
    with pytest.raises(ValueError, match="do not belong"):
        awq_layout.dequantize(state["qweight"], state["scales"][:-1], state["scaled_zeros"])
    with pytest.raises(ValueError, match="no AWQ weight"):
        awq_layout.dequantize(state["qweight"].int(), state["scales"], state["scaled_zeros"])


def qvggt_file(path, model: VGGT, whole: bool = True, token: Tensor | None = None):
    """A QVGGT file of a network, and the float network it stands for."""
    expected, content = model.state_dict(), {}
    names = [f"aggregator.frame_blocks.0.{layer}" for layer in LAYERS]
    names += ["camera_head.trunk.0.attn.qkv"]
    for name in names:
        state, exact = awq_layer(expected[f"{name}.weight"])
        expected[f"{name}.weight"] = exact
        content |= {f"{name}.{leaf}": value for leaf, value in state.items()}
        content[f"{name}.bias"] = expected[f"{name}.bias"]
    scales = torch.rand(1024) + 0.5  # of a ScaledActivation
    content["aggregator.frame_blocks.0.mlp.act.scales"] = scales
    expected["aggregator.frame_blocks.0.mlp.fc2.weight"] = (
        expected["aggregator.frame_blocks.0.mlp.fc2.weight"] / scales
    )
    if whole:
        content |= {n: v for n, v in expected.items() if f"{n[:-7]}.qweight" not in content}
    if token is not None:
        content["camera_head.cict_token"] = token
        content["cict_topk"] = torch.tensor(32)
    torch.save(content, path)
    return names, expected


def test_qvggt_opens(tmp_path):
    token = torch.randn(512)
    names, expected = qvggt_file(tmp_path / "model-v2.pt", float_pocket(), token=token)
    found = foreign.identify(tmp_path / "model-v2.pt")
    assert found.kind == foreign.AWQ and set(found.layers) == set(names)
    assert "5 of 4-bit codes" in found.facts["layers"] and found.facts["others"] == "in the file"
    model = open_awq(tmp_path / "model-v2.pt")
    assert torch.equal(model.camera_head.compensation_token[0], token)
    state = model.state_dict()
    for name, value in expected.items():
        assert torch.allclose(state[name], value, rtol=1e-6, atol=0), name
    path = weights.save(model, tmp_path / "opened.safetensors")
    images = torch.rand(1, 2, 3, 28, 28)
    again = weights.load(path, dtype="float32", device="cpu")
    assert torch.equal(again(images).pose_enc, model(images).pose_enc)


def test_qvggt_layers_alone_need_their_base(tmp_path):
    path = tmp_path / "layers.pt"
    _, expected = qvggt_file(path, float_pocket(), whole=False)
    with pytest.raises(RecipeError, match="--base"):
        open_awq(path)
    model = open_awq(path, float_pocket())
    for name, value in model.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=1e-6, atol=0), name
    content = torch.load(path)
    content["aggregator.frame_blocks.0.mlp.fc1.bias"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"mlp\.fc1\.bias does not fit"):
        open_awq(path, float_pocket())


def parameters(width: int, outputs: int, seed: int, rotated: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    signs = hadamard_signs(width, seed)
    found = {
        "channel_wise_scale": torch.rand(1, width, generator=generator) + 0.5,
        "clip_factor_w_max": torch.randn(outputs, 1, generator=generator) + 3,
        "clip_factor_w_min": torch.randn(outputs, 1, generator=generator) + 3,
        "act_quantizer.clip_factor_a_max": torch.tensor([4.0]),
        "act_quantizer.clip_factor_a_min": torch.tensor([3.0]),
    }
    if rotated:
        found["rotation_matrix"] = rotate(torch.eye(width), signs)
    return found


def quantvggt_files(folder, model: VGGT, rotated: bool = True):
    """Both of QuantVGGT's files for a network."""
    paths = []
    for number, kind in enumerate(("frame", "global")):
        blocks = {}
        for index, block in enumerate(getattr(model.aggregator, f"{kind}_blocks")):
            row: OrderedDict[str, Tensor] = OrderedDict()
            for layer in LAYERS:
                linear = block.get_submodule(layer)
                seed = 100 * number + 10 * index
                own = parameters(linear.in_features, linear.out_features, seed, rotated)
                row.update({f"{layer}.{leaf}": value for leaf, value in own.items()})
            blocks[index] = row
        paths.append(folder / f"qs_{kind}_parameters_total.pth")
        torch.save(blocks, paths[-1])
    return paths


def published(weight: Tensor, x: Tensor, known: dict[str, Tensor]) -> Tensor:
    """Output of a layer as QuantVGGT's evaluation computes it, W4, activations left alone."""
    rotation, scale = known["rotation_matrix"], known["channel_wise_scale"]
    w = weight @ rotation * scale
    top = w.max(1, keepdim=True)[0] * torch.sigmoid(known["clip_factor_w_max"])
    bottom = w.min(1, keepdim=True)[0] * torch.sigmoid(known["clip_factor_w_min"])
    w = torch.clamp(w, min=bottom, max=top)
    step = w.abs().max(1, keepdim=True)[0] / 7
    return (x @ rotation / scale) @ (torch.clamp(torch.round(w / step), -8, 7) * step).T


def test_quantvggt_opens(tmp_path):
    model = float_pocket()
    frame, across = quantvggt_files(tmp_path, model)
    found = foreign.identify(frame)
    assert found.kind == foreign.QUANTVGGT and found.blocks == 5 and "rotations" in found.facts
    linear = model.aggregator.frame_blocks[1].mlp.fc1
    weight, bias = linear.weight.clone(), linear.bias.clone()
    known = parameters(256, 1024, 10)
    packed = open_quantvggt(frame, across, model, "w4a8")
    layer = packed.aggregator.frame_blocks[1].mlp.fc1
    assert isinstance(layer, QuantLinear) and layer.scheme == Scheme.parse("w4a8-hadamard")
    assert packed.recipe.scheme_of("camera_head.trunk.0.mlp.fc1") is None
    x = torch.randn(64, 256)
    expected = published(weight, x, known) + bias
    # Activations of 8 bits, clipped at 97 %, are all that differs.
    error = (layer(x) - expected).norm() / expected.norm()
    assert error < 0.03
    layers = [m for m in packed.modules() if isinstance(m, QuantLinear)]
    assert len(layers) == 40
    path = weights.save(packed, tmp_path / "packed.safetensors")
    again = weights.load(path, dtype="float32", device="cpu")
    assert torch.equal(again.aggregator.frame_blocks[1].mlp.fc1(x), layer(x))
    # The rotation is signs, not a matrix.
    assert all(t.numel() < 300_000 for m in layers for t in m.buffers())


def test_quantvggt_without_rotation(tmp_path):
    model = float_pocket()
    frame, across = quantvggt_files(tmp_path, model, rotated=False)
    packed = open_quantvggt(frame, across, model, "w8a8")
    assert packed.recipe.name == (
        "aggregator.frame_blocks.*=w8a8,aggregator.global_blocks.*=w8a8,*=float"
    )
    images = torch.rand(1, 2, 3, 28, 28)
    before = float_pocket()(images)
    assert (packed(images).depth - before.depth).abs().max() < 0.2 * before.depth.std() + 0.05
    path = weights.save(packed, tmp_path / "packed.safetensors")
    again = weights.load(path, dtype="float32", device="cpu")
    assert torch.equal(again(images).depth, packed(images).depth)


def test_signs():
    for width in (64, 1024):
        signs = hadamard_signs(width, 3)
        matrix = rotate(torch.eye(width), signs)
        assert torch.equal(foreign.signs_of(matrix), signs)
        x = torch.randn(5, width)
        assert torch.allclose(x @ matrix, rotate(x, signs), atol=1e-5)
    assert foreign.signs_of(torch.linalg.qr(torch.randn(64, 64)).Q) is None
    assert foreign.signs_of(torch.eye(96)) is None


def test_other_files_are_refused(tmp_path):
    model = float_pocket()
    frame, across = quantvggt_files(tmp_path, model)
    with pytest.raises(RecipeError, match="w4a4, w4a8 or w8a8"):
        open_quantvggt(frame, across, model, "w4a8-g32")
    content = torch.load(frame)
    content[4]["attn.qkv.rotation_matrix"] = torch.linalg.qr(torch.randn(256, 256)).Q
    torch.save(content, frame)
    with pytest.raises(CheckpointError, match="no randomised Hadamard"):
        open_quantvggt(frame, across, model)
    content[4]["attn.qkv.rotation_matrix"] = torch.eye(8)
    torch.save(content, frame)
    with pytest.raises(CheckpointError, match="64 numbers"):
        open_quantvggt(frame, across, model)
    del content[4]
    torch.save(content, frame)
    with pytest.raises(CheckpointError, match="4 blocks; the model has 5"):
        open_quantvggt(frame, across, model)
    assert model.recipe is None and not any(isinstance(m, QuantLinear) for m in model.modules())
    torch.save({0: {"attn.qkv.weight": torch.zeros(2)}}, frame)
    with pytest.raises(CheckpointError, match="nothing of QuantVGGT's"):
        foreign.identify(frame)
    torch.save({1: {}}, frame)
    with pytest.raises(CheckpointError, match="not numbered from 0"):
        foreign.identify(frame)
    torch.save({"x.qweight": torch.zeros(2, 2)}, frame)
    with pytest.raises(CheckpointError, match="not AWQ's layout"):
        foreign.identify(frame)
    with pytest.raises(CheckpointError, match=r"holds no AWQ weights .*QuantVGGT"):
        foreign.require(across, foreign.AWQ)
    frame.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(CheckpointError):
        foreign.identify(frame)
    torch.save({"weight": torch.zeros(2)}, frame)
    assert foreign.identify(frame) is None
    assert foreign.identify(tmp_path / "m.safetensors") is None


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_code_is_never_run(tmp_path):
    torch.save({0: {"attn.qkv.channel_wise_scale": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        foreign.identify(tmp_path / "evil.pth")


def test_a_compressed_base_is_refused(tmp_path):
    model = float_pocket()
    frame, across = quantvggt_files(tmp_path, model)
    model.recipe = Recipe("w8a8")
    with pytest.raises(RecipeError, match="give a float one"):
        open_quantvggt(frame, across, model)


def test_commands(tmp_path, monkeypatch, capsys):
    import json
    import sys

    from vggt_edge import cli

    def call(*arguments: object) -> dict:
        monkeypatch.setattr(sys, "argv", ["vggt-edge", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as done:
            cli.main()
        said = capsys.readouterr()
        return json.loads(said.out.splitlines()[-1]) if not done.value.code else {"error": said.err}

    qvggt_file(tmp_path / "model-v2.pt", float_pocket(), token=torch.randn(512))
    frame, across = quantvggt_files(tmp_path, float_pocket())
    assert call("info", tmp_path / "model-v2.pt")["kind"] == foreign.AWQ
    assert call("info", frame)["kind"] == foreign.QUANTVGGT
    out = tmp_path / "out.safetensors"
    done = call("convert", tmp_path / "model-v2.pt", "-o", out)
    assert done["compensation_tokens"] == 1 and weights.describe(out).recipe is None
    done = call("convert", across, frame, "--base", "pocket", "--scheme", "w4a8", "-o", out)
    assert done["recipe"].startswith("aggregator.frame_blocks.*=w4a8-hadamard")
    assert weights.load(out).recipe.name == done["recipe"]
    assert "--base" in call("convert", frame, across)["error"]
    assert "neither" in call("convert", out)["error"]
    assert "no such file" in call("convert", tmp_path / "none.pt")["error"]
    assert "give one file of QVGGT's" in call("convert", frame, "--base", "pocket")["error"]
