"""Weights in and out: embedded default, local file or hub name; strict, and never two copies.

A file written here is one safetensors file that knows what it is; see ``checkpoint``. Never guessed
from a file name.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from . import hub, memory
from .checkpoint import (
    FORMAT,
    METADATA_KEY,
    SUFFIXES,
    Header,
    check_floats,
    dtypes_of,
    read_header,
    read_pickle,
    read_safetensors,
    recognise,
    refusal,
    shapes_of,
    skeleton,
)
from .errors import OutputError
from .files import write_tensors
from .hardware import pick_device, pick_dtype
from .kernels.build import available, reason
from .model.backends import simulates
from .model.config import VGGTConfig
from .model.packed import packed_dtypes, prepare
from .model.quantized import QuantLinear
from .model.vggt import VGGT, precise_parameters


def _part_of(name: str) -> str:
    """The part a tensor belongs to: "aggregator" or a head's name."""
    first = name.split(".", 1)[0]
    return first.removesuffix("_head") if first.endswith("_head") else first


def _wanted_heads(path: Path | str, config: VGGTConfig, heads: Sequence[str] | None) -> VGGTConfig:
    if heads is None:
        return config
    absent = [head for head in heads if head not in config.heads]
    if absent:
        raise refusal(path, f"has no {', '.join(absent)} head; it has {', '.join(config.heads)}")
    return replace(config, heads=tuple(head for head in config.heads if head in heads))


def _of_network(names: Iterable[str], config: VGGTConfig) -> list[str]:
    """The names that belong to the heads asked for and to what is before them, layer by layer."""
    wanted = ("aggregator", *config.heads)
    return sorted((name for name in names if _part_of(name) in wanted), key=_layer_of)


def _assign(
    model: VGGT, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, device: torch.device
) -> VGGT:
    """Fill a skeleton with tensors that come layer by layer."""
    missing = set(model.state_dict())
    kinds = dict.fromkeys(precise_parameters(model), torch.float32) | packed_dtypes(model)

    def filled() -> Iterator[nn.Module]:
        for path, group in itertools.groupby(tensors, key=lambda item: _layer_of(item[0])):
            layer, own = model.get_submodule(path), {}
            for name, tensor in group:
                missing.remove(name)
                # copy=True cuts the tie to the file, so that its mapping can go.
                cast = tensor.to(device, kinds.get(name, dtype), copy=True)
                own[name.rpartition(".")[2]] = cast
            layer.load_state_dict(own, strict=False, assign=True)
            own.clear()  # or the stored form of a packed layer would outlive its packing
            yield layer

    prepare(filled())
    if missing:
        raise KeyError(f"no tensor was given for {', '.join(sorted(missing))}")
    return model.eval().requires_grad_(False)


def _layer_of(name: str) -> str:
    """The path of the layer a tensor belongs to."""
    return name.rpartition(".")[0]


def _assign_content(
    path: Path | str,
    content: dict[str, Tensor],
    heads: Sequence[str] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> VGGT:
    config = _wanted_heads(path, recognise(path, shapes_of(content)), heads)
    tensors = ((name, content[name]) for name in _of_network(content, config))
    return _assign(skeleton(config), tensors, dtype, device)


def _license(source: str | Path, stated: str) -> str:
    """The file's own word, else what is known of the hub name it was fetched by."""
    known = hub.KNOWN.get(str(source))
    return known.license if known and stated == hub.UNKNOWN_LICENSE else stated


def load(
    source: str | Path = "pocket",
    *,
    heads: Sequence[str] | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    notify: Callable[[str], None] = hub.notify_stderr,
) -> VGGT:
    """Build a network and fill it, tensor by tensor, from a file or the hub.

    Args:
        source: "pocket" (embedded), a ``.safetensors`` or ``.pt`` file, or a hub name such as
            "facebook/VGGT-1B".
        heads: the heads to build and load, of "camera", "depth", "point", "track"; all when None.
        dtype: "auto", "float32", "bf16" or "fp16", of the matrix products; norms and dense heads
            stay float32. See ``hardware.pick_dtype`` for "auto".
        device: "auto", "cpu", "cuda" or "mps".
        notify: receives lines for the user: the licence on first use, a download starting.

    Raises:
        CheckpointError: a corrupt or hostile file, or wrong names or shapes.
        OfflineError: a hub name that is not cached and cannot be fetched.
        TooLargeError: when the weights would not fit in memory.
    """
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    path = locate(source, notify)
    if path.suffix != ".safetensors":
        model = _assign_content(path, read_pickle(path), heads, precision, target)
        model.license = _license(source, hub.UNKNOWN_LICENSE)
        return model
    header = read_header(path)
    config = _wanted_heads(path, header.config, heads)
    names = _of_network(header.shapes, config)
    model = skeleton(config, header.recipe, precision, header.optional)
    packed = packed_dtypes(model)
    need = sum(
        math.prod(header.shapes[name]) * packed.get(name, precision).itemsize for name in names
    )
    memory.require_weights(path, need, target)
    model = _assign(model, read_safetensors(path, names), precision, target)
    if header.recipe is not None and target.type == "cpu" and not available():
        notify(f"{path}: without the fast kernels, because {reason()}; slower, same numbers")
    layers = [layer for layer in model.modules() if isinstance(layer, QuantLinear)]
    for scheme in dict.fromkeys(layer.scheme for layer in layers):
        if simulates(scheme, target):
            notify(
                f"{path}: {scheme.name} is simulated on this {target.type}, by float products of "
                "the same numbers: small, but no faster than float"
            )
    model.license = _license(source, header.license)
    return model


def locate(source: str | Path, notify: Callable[[str], None] = hub.notify_stderr) -> Path:
    """The local file behind a name, fetching it from the hub where needed.

    Raises:
        CheckpointError: when there is no such file and the name is no hub name.
        OfflineError: when the hub cannot be reached.
    """
    if str(source) == "pocket":
        return Path(str(resources.files("vggt_edge") / "assets" / "pocket.safetensors"))
    # os.path, unlike pathlib, has an answer for any string, however long or odd.
    path = Path(os.path.expanduser(source))
    if os.path.isfile(path):
        if path.suffix not in SUFFIXES:
            raise refusal(path, f"not a weight file ({', '.join(SUFFIXES)})")
        return path
    name, there = str(source), os.path.exists(path)
    known = ", ".join(name for name, file in hub.KNOWN.items() if file.network == "VGGT")
    if path.suffix in SUFFIXES or there or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise refusal(
            source,
            f"{'not a' if there else 'no such'} weight file; give a .safetensors or .pt file, "
            f"'pocket', or a hub name: {known}",
        )
    return hub.fetch(name, notify)


def describe(source: str | Path) -> Header:
    """What a weight file says about itself, without building the network.

    Raises:
        CheckpointError: as ``load`` does.
    """
    path = locate(source)
    if path.suffix == ".safetensors":
        header = read_header(path)
        return replace(header, license=_license(source, header.license))
    content = read_pickle(path)
    shapes, dtypes = shapes_of(content), dtypes_of(content)
    terms = _license(source, hub.UNKNOWN_LICENSE)
    return Header(path, recognise(path, shapes), shapes, dtypes, None, terms)


def save(model: VGGT, path: str | Path, license: str | None = None) -> Path:
    """Write a model with its config into one safetensors file; ``load`` gives back the same.

    Args:
        model: what to write.
        path: of the file, which ends in .safetensors.
        license: a line about the weights' licence; that of the file they came from when None.

    Raises:
        OutputError: when the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path}: weights are saved as .safetensors")
    data = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "recipe": model.recipe.to_data() if model.recipe else None,
        "license": license or model.license or hub.UNKNOWN_LICENSE,
    }
    tensors = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
    write_tensors(path, tensors, {METADATA_KEY: json.dumps(data)})
    return path


def from_upstream(module: nn.Module, dtype: str | torch.dtype = "float32") -> VGGT:
    """Our network with the weights of an already built upstream ``VGGT`` module.

    Raises:
        CheckpointError: when its tensors are not those of a VGGT this package knows.
    """
    content = dict(module.state_dict())
    name = type(module).__name__
    check_floats(name, dtypes_of(content))
    return _assign_content(name, content, None, pick_dtype(dtype), torch.device("cpu"))
