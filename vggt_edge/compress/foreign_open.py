"""Foreign artefacts to networks of this package; see ``foreign`` for what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import recognise, refusal, shapes_of, skeleton
from ..errors import RecipeError
from ..model.layers import Linear
from ..model.quantized import QuantLinear, rotate
from ..model.swap import place
from ..model.vggt import VGGT
from ..recipe import LayerRule, Recipe, Scheme
from . import awq_layout
from .apply import quantized
from .foreign import AWQ, BLOCK_LAYERS, QUANTVGGT, Artefact, learned, require, signs_of
from .nearest import Codes, bounds
from .token_filter import compensate

# Beside the tensors of the network in QVGGT's files.
_NOTES = ("cict_token", "cict_topk", "unquantized_patch_start_idx")


@torch.no_grad()
def open_awq(path: str | Path, base: VGGT | None = None) -> VGGT:
    """A float network with exactly the weights of a QVGGT file, and its compensation token.

    Compress it again to have it packed; the codes are near those of the file, but not the same, as
    scales are held differently.

    Args:
        path: of the file.
        base: the float network it was made of, which is changed in place; needed where the file
            holds the quantized layers alone.

    Raises:
        CheckpointError: another kind of file, or tensors that do not fit the network.
        RecipeError: a base is needed, or it is compressed.
    """
    found = require(path, AWQ)
    state, token = _dense(found)
    if "aggregator.camera_token" in state:
        config = recognise(path, shapes_of(state))
        model = skeleton(config)
        model.load_state_dict(state, strict=True, assign=True)
        model.eval().requires_grad_(False)
    elif base is None:
        raise RecipeError(
            f"{path} holds quantized layers alone: give the float model it was made of (--base)"
        )
    else:
        model = _float(base)
        own = model.state_dict()
        for name, value in state.items():
            if name not in own or own[name].shape != value.shape:
                raise refusal(path, f"{name} does not fit the base model")
            own[name].copy_(value)
    return model if token is None else compensate(model, token)


def _dense(found: Artefact) -> tuple[dict[str, Tensor], Tensor | None]:
    """Float tensors of the network, and the compensation token."""
    content: Mapping[str, Tensor] = found.content
    packed = {f"{layer}.{leaf}" for layer in found.layers for leaf in ("qweight", "scales")}
    packed |= {f"{layer}.scaled_zeros" for layer in found.layers}
    state, token = {}, None
    for name, value in content.items():
        if name.rpartition(".")[2] == "cict_token":
            token = value.float().flatten()
        elif name not in packed and name not in _NOTES and not name.endswith(".act.scales"):
            state[name] = value.float()
    for layer in found.layers:
        leaves = (content[f"{layer}.{leaf}"] for leaf in ("qweight", "scales", "scaled_zeros"))
        try:
            weight, _ = awq_layout.dequantize(*leaves)
        except ValueError as error:
            raise refusal(found.path, f"{layer}: {error}") from error
        # AWQ divides what leaves a GELU by scales it has multiplied the next layer with.
        behind = layer.replace(".fc2", ".act.scales")
        if layer.endswith(".fc2") and behind in content:
            weight = weight / content[behind].float().flatten()
        state[f"{layer}.weight"] = weight
    return state, token


@torch.no_grad()
def open_quantvggt(frame: str | Path, across: str | Path, base: VGGT, scheme: str = "w4a4") -> VGGT:
    """A float network compressed in place with what QuantVGGT learned about it.

    Args:
        frame: qs_frame_parameters_total.pth.
        across: qs_global_parameters_total.pth.
        base: the float network the parameters were learned on.
        scheme: its bits, which the files do not state: w4a4, w4a8 or w8a8.

    Raises:
        CheckpointError: other files, or parameters that do not fit the network.
        RecipeError: a compressed base, or a scheme these parameters do not make sense for.
    """
    bits = Scheme.parse(scheme)
    if bits is None or bits.fp8 or bits.group or bits.hadamard or bits.activation_bits > 8:
        raise RecipeError(f"{scheme}: QuantVGGT's parameters are for w4a4, w4a8 or w8a8")
    model = _float(base)
    rules = []
    made: dict[str, QuantLinear] = {}
    for kind, path in (("frame_blocks", frame), ("global_blocks", across)):
        found = require(path, QUANTVGGT)
        if found.blocks != model.config.depth:
            raise refusal(path, f"is for {found.blocks} blocks; the model has {model.config.depth}")
        rotated = False
        for block in range(found.blocks):
            for layer in BLOCK_LAYERS:
                name = f"aggregator.{kind}.{block}.{layer}"
                made[name] = _learned_layer(model, name, bits, found, block, layer)
                rotated = made[name].scheme.hadamard
        own = Scheme(bits.weight_bits, bits.activation_bits, None, rotated)
        rules.append(LayerRule(f"aggregator.{kind}.*", own))
    for name, packed in made.items():
        place(model, name, packed)
    model.recipe = Recipe([*rules, LayerRule("*", None)])
    return model


def _learned_layer(
    model: VGGT, name: str, bits: Scheme, found: Artefact, block: int, layer: str
) -> QuantLinear:
    linear = model.get_submodule(name)
    if not isinstance(linear, Linear):
        raise TypeError(f"{name} is {type(linear).__name__}")
    known = learned(found, block, layer)
    outputs, inputs = linear.weight.shape
    shapes = {"scale": inputs, "rotation": inputs**2, "weight_max": outputs, "weight_min": outputs}
    for leaf, value in known.items():
        if value.numel() != shapes.get(leaf, 1):
            raise refusal(
                found.path,
                f"{leaf} of {name} has {value.numel()} numbers, not {shapes.get(leaf, 1)}",
            )
    weight, signs, gain = linear.weight.detach().float(), None, None
    if "rotation" in known:
        signs = signs_of(known["rotation"])
        if signs is None:
            raise refusal(found.path, f"the rotation of {name} is no randomised Hadamard matrix")
        weight = rotate(weight, signs)
    if "scale" in known:
        scale = known["scale"].float().flatten()
        weight, gain = weight * scale, 1 / scale
    if {"weight_max", "weight_min"} <= known.keys():
        top = weight.amax(1, keepdim=True) * known["weight_max"].float().sigmoid().view(-1, 1)
        bottom = weight.amin(1, keepdim=True) * known["weight_min"].float().sigmoid().view(-1, 1)
        weight = torch.clamp(weight, min=bottom, max=top)
    low, high = bounds(bits.weight_bits)
    step = weight.abs().amax(1).clamp(min=1e-5) / high
    codes = (weight / step[:, None]).round().clamp(low, high).to(torch.int8)
    clips = [known[leaf].float().sigmoid() for leaf in ("activation_max", "activation_min")
             if leaf in known]  # fmt: skip
    clip = float(torch.stack(clips).mean()) if clips else 1.0
    scheme = Scheme(bits.weight_bits, bits.activation_bits, None, signs is not None)
    made = quantized(linear, name, scheme, Codes(codes, step, None), gain, clip)
    if signs is not None:
        made.signs = signs.to(torch.int8)
    return made


def _float(base: VGGT) -> VGGT:
    if base.recipe is not None:
        raise RecipeError(f"the base model is compressed with {base.recipe.name}; give a float one")
    return base
