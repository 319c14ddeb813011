"""Quantized VGGTs of others: what their files are, and how to open them.

Two kinds are published, both torch pickles, read as data only:

QVGGT (Pan et al., CVPR 2026; github.com/DDsacu/QVGGT)
    ``model-v2.pt``, a state dict in which quantized layers hold ``qweight``, ``scales`` and
    ``scaled_zeros`` (see ``awq_layout``), with or without the layers that stay float, and maybe
    ``cict_token``, the compensation token. Opened as a float network of exactly these weights.

QuantVGGT (Feng et al., ICLR 2026; github.com/wlfeng0509/QuantVGGT)
    ``qs_frame_parameters_total.pth`` and ``qs_global_parameters_total.pth``: no weights, but for
    each block of the float network what was learned about its four linear layers: a dense rotation
    Q = diag(signs) H / sqrt(n), the scale s behind it, and clipping. Applied to a float network
    they give the weights' integers ``round(clip(W Q s) / step)`` as published. Activations are
    rounded with a zero point and one share of the range, where the original has two shares and
    none: the same integers in number, placed a little better.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import PICKLE_ERRORS, SUFFIXES, refusal
from ..model.quantized import hadamard_block

AWQ, QUANTVGGT = "AWQ weights (QVGGT)", "QuantVGGT parameters"
BLOCK_LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_AWQ_LEAVES = ("qweight", "scales", "scaled_zeros")
_LEARNED = {
    "channel_wise_scale": "scale",
    "rotation_matrix": "rotation",
    "clip_factor_w_max": "weight_max",
    "clip_factor_w_min": "weight_min",
    "act_quantizer.clip_factor_a_max": "activation_max",
    "act_quantizer.clip_factor_a_min": "activation_min",
}


@dataclass(frozen=True)
class Artefact:
    """What a foreign file is.

    Fields
        path     the file.
        kind     ``AWQ`` or ``QUANTVGGT``.
        layers   paths of the quantized layers; for QuantVGGT within each block.
        blocks   how many blocks of a kind it covers (QuantVGGT), else 0.
        facts    label to text, for ``info``.
        content  the tensors, mapped from the file.
    """

    path: Path
    kind: str
    layers: tuple[str, ...]
    blocks: int
    facts: dict[str, str]
    content: Mapping[Any, Any]


def read(path: str | Path) -> Any:
    """Content of a torch file, read as data only and mapped where it can be.

    Raises:
        CheckpointError: no such file, one that is damaged, or one that could run code.
    """
    path = Path(path).expanduser()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except FileNotFoundError as error:
        raise refusal(path, "no such file") from error
    except pickle.UnpicklingError as error:
        raise refusal(path, "is damaged, or could run code when opened; refused") from error
    except PICKLE_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise refusal(path, f"not a readable torch file ({reason})") from error


def identify(path: str | Path) -> Artefact | None:
    """What a file is, if it is one of another project's; None for all others.

    Raises:
        CheckpointError: it looks like one, but its tensors are not those of its kind.
    """
    path = Path(path).expanduser()
    if path.suffix not in set(SUFFIXES) - {".safetensors"} or not os.path.isfile(path):
        return None
    content = read(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        return None
    if all(type(key) is int and isinstance(value, dict) for key, value in content.items()):
        return _quantvggt(path, content)
    if any(str(key).endswith(".qweight") for key in content):
        return _awq(path, content)
    return None


def require(path: str | Path, kind: str) -> Artefact:
    """``identify``, of a certain kind.

    Raises:
        CheckpointError: it is something else.
    """
    found = identify(path)
    if found is None or found.kind != kind:
        raise refusal(path, f"holds no {kind}" + (f", but {found.kind}" if found else ""))
    return found


def tidy(name: str) -> str:
    """A tensor's name as in VGGT's own checkpoint."""
    return name.removeprefix("module.").removeprefix("model.")


def _awq(path: Path, content: Mapping[str, Any]) -> Artefact:
    tensors = {tidy(name): value for name, value in content.items() if torch.is_tensor(value)}
    layers = tuple(sorted(n.removesuffix(".qweight") for n in tensors if n.endswith(".qweight")))
    for layer in layers:
        absent = [leaf for leaf in _AWQ_LEAVES if f"{layer}.{leaf}" not in tensors]
        if absent:
            raise refusal(path, f"{layer} has no {', '.join(absent)}: not AWQ's layout")
    whole = "aggregator.camera_token" in tensors
    token = any(name.rpartition(".")[2] == "cict_token" for name in tensors)
    quantized = sum(tensors[f"{layer}.qweight"].numel() * 4 for layer in layers)
    facts = {
        "layers": f"{len(layers)} of 4-bit codes, {quantized / 1e6:.1f} M weights",
        "covers": ", ".join(dict.fromkeys(_family(layer) for layer in layers)),
        "others": "in the file" if whole else "missing: needs the float model it was made of",
        "compensation token": "yes" if token else "no",
    }
    return Artefact(path, AWQ, layers, 0, facts, tensors)


def _quantvggt(path: Path, content: Mapping[int, Any]) -> Artefact:
    if sorted(content) != list(range(len(content))):
        raise refusal(path, "its blocks are not numbered from 0: not QuantVGGT's layout")
    layers: dict[str, set[str]] = {}
    for block, tensors in content.items():
        for name, tensor in tensors.items():
            layer, leaf = _split(str(name))
            if not torch.is_tensor(tensor) or not layer:
                raise refusal(path, f"{name} of block {block} is nothing of QuantVGGT's")
            layers.setdefault(layer, set()).add(leaf)
    if not layers:
        raise refusal(path, "its blocks are empty: not QuantVGGT's layout")
    learned = set.union(*layers.values())
    rotation = sum(
        tensor.nbytes
        for tensors in content.values()
        for name, tensor in tensors.items()
        if str(name).endswith("rotation_matrix")
    )
    facts = {
        "blocks": f"{len(content)}, each with {', '.join(layers)}",
        "learned": ", ".join(sorted(learned)),
        "weights": "none: needs the float model it was made of",
        "bits": "not stated: the run chose them (w4a4, w6a6, w4a8 or w8a8)",
    }
    if rotation:
        facts["rotations"] = f"{rotation / 1e6:.1f} MB dense; signs of a Hadamard transform suffice"
    return Artefact(path, QUANTVGGT, tuple(layers), len(content), facts, content)


def _split(name: str) -> tuple[str, str]:
    """Layer in its block and what was learned of it; empty for unknown names."""
    for layer in BLOCK_LAYERS:
        leaf = name.removeprefix(f"{layer}.")
        if leaf != name and leaf in _LEARNED:
            return layer, _LEARNED[leaf]
    return "", ""


def learned(artefact: Artefact, block: int, layer: str) -> dict[str, Tensor]:
    """What a QuantVGGT file says of a layer: scale, rotation, weight_max, ..."""
    found = {}
    for name, tensor in artefact.content[block].items():
        own, leaf = _split(str(name))
        if own == layer:
            found[leaf] = tensor.detach()
    return found


def _family(layer: str) -> str:
    return re.sub(r"\.\d+\..*|\.\d+$", "", layer)


def signs_of(rotation: Tensor) -> Tensor | None:
    """(n,) float32 signs of a dense randomised Hadamard matrix; None when it is something else.

    ``x @ rotation`` is then ``model.quantized.rotate(x, signs)``.
    """
    width = rotation.shape[0]
    if rotation.shape != (width, width) or hadamard_block(width) != width:
        return None
    # Every first entry of a Hadamard matrix's rows is positive.
    signs = torch.where(rotation[:, 0] < 0, -1.0, 1.0)
    step = 1 << max(0, width.bit_length() - 5)
    for row in (*range(0, width, step), width - 1):
        expected = signs[row] * _hadamard_row(row, width) * width**-0.5
        if not torch.allclose(rotation[row].float(), expected, atol=1e-4 * width**-0.5):
            return None
    return signs


def _hadamard_row(row: int, width: int) -> Tensor:
    """(width,) of 1 and -1: parity of the bits that row and column share."""
    shared = torch.arange(width) & row
    parity = torch.zeros(width, dtype=torch.int64)
    while bool(shared.any()):
        parity ^= shared & 1
        shared = shared >> 1
    return 1.0 - 2.0 * parity


def lines(artefact: Artefact) -> Sequence[str]:
    """For people."""
    return [
        f"{artefact.path}: {artefact.kind}",
        *(f"  {label:<19}{text}" for label, text in artefact.facts.items()),
    ]
