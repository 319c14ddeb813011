"""Weights in and out: embedded default, local file or hub name; strict, and never two copies.

A file written here is one safetensors file that knows what it is: its metadata entry ``vggt_edge``
holds JSON with ``format``, ``config``, ``recipe`` and ``license``. A file without it is recognised
by its names and shapes, never by its file name.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import hub
from .errors import CheckpointError, OutputError
from .hardware import pick_device, pick_dtype
from .model.config import HEADS, PRESETS, VGGTConfig
from .model.vggt import VGGT

FORMAT = 1
METADATA_KEY = "vggt_edge"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Mapped pages of a file count as resident memory until the mapping is gone: renew it this often.
REMAP_BYTES = 128 << 20


@dataclass(frozen=True)
class Header:
    """What a weight file says about itself, read without its tensors.

    Fields
        path      the file.
        config    of the network; ``config.heads`` are those the file holds.
        shapes    tensor name to shape.
        dtypes    tensor name to dtype name as stored, such as "F32".
        recipe    compression recipe as plain data, None for a float model.
        license   a line about the weights' licence.
    """

    path: Path
    config: VGGTConfig
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    recipe: dict[str, Any] | None
    license: str


def skeleton(config: VGGTConfig) -> VGGT:
    """The network without memory, on the meta device."""
    with torch.device("meta"):
        return VGGT(config)


def expected_shapes(config: VGGTConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network."""
    return {name: tuple(t.shape) for name, t in skeleton(config).state_dict().items()}


def _part_of(name: str) -> str:
    """The part a tensor belongs to: "aggregator" or a head's name."""
    first = name.split(".", 1)[0]
    return first.removesuffix("_head") if first.endswith("_head") else first


def check_shapes(
    path: Path | str, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    """Strict comparison; names every kind of difference.

    Raises:
        CheckpointError: on any missing, extra or differently shaped tensor.
    """

    def listed(kind: str, names: Sequence[str]) -> str:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        return f"{kind} {', '.join(names[:4])}{more}"

    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} (is {'x'.join(map(str, found[name]))}, "
        f"should be {'x'.join(map(str, expected[name]))})"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    problems = [
        listed(kind, names)
        for kind, names in (("missing", missing), ("unknown", extra), ("wrong shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path}: does not fit this network: {'; '.join(problems)}")


def recognise(path: Path | str, shapes: dict[str, tuple[int, ...]]) -> VGGTConfig:
    """Config of a file without metadata, by its names and shapes.

    Raises:
        CheckpointError: when it is no VGGT this package knows.
    """
    heads = tuple(head for head in HEADS if any(name.startswith(f"{head}_head.") for name in shapes))
    width = shapes.get("aggregator.camera_token", (0,))[-1]
    for preset in PRESETS.values():
        if preset.width == width:
            config = replace(preset, heads=heads)
            check_shapes(path, shapes, expected_shapes(config))
            return config
    if width:
        raise CheckpointError(
            f"{path}: a VGGT of width {width} without a config inside; build the module and save it "
            "with vggt_edge.save, which stores the config"
        )
    raise CheckpointError(f"{path}: holds no VGGT (no tensor aggregator.camera_token)")


def _parse_metadata(path: Path, metadata: dict[str, str]) -> dict[str, Any] | None:
    if METADATA_KEY not in metadata:
        return None
    try:
        data = json.loads(metadata[METADATA_KEY])
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"format {data.get('format') if isinstance(data, dict) else data!r}")
        data["config"] = VGGTConfig.from_dict(data["config"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: metadata this version cannot read ({error})") from error
    return data


def read_header(path: Path) -> Header:
    """Read a ``.safetensors`` file's header: names, shapes, config, recipe, licence.

    Raises:
        CheckpointError: when it is corrupt or no VGGT.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
            dtypes = {name: s.get_dtype() for name, s in slices.items()}
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    data = _parse_metadata(path, metadata)
    if data is None:
        return Header(path, recognise(path, shapes), shapes, dtypes, None, hub.UNKNOWN_LICENSE)
    if data.get("recipe") is None:
        check_shapes(path, shapes, expected_shapes(data["config"]))
    licence = str(data.get("license") or hub.UNKNOWN_LICENSE)
    return Header(path, data["config"], shapes, dtypes, data.get("recipe"), licence)


def _read_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one by one, from a mapping that is renewed before it weighs."""
    seen = REMAP_BYTES
    with ExitStack() as stack:
        for name in shapes:
            if seen >= REMAP_BYTES:
                stack.close()
                file = stack.enter_context(safe_open(path, framework="pt"))
                seen = 0
            tensor = file.get_tensor(name)
            seen += tensor.nbytes
            yield name, tensor


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """State dict of a ``torch.save`` file, read as data only."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and could run code when opened; refused. "
            "Ask its author for a safetensors file"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a readable torch file ({reason})") from error
    # Training checkpoints wrap the weights.
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path}: holds no state dict of tensors")
    return content


def _wanted_heads(path: Path | str, config: VGGTConfig, heads: Sequence[str] | None) -> VGGTConfig:
    if heads is None:
        return config
    absent = [head for head in heads if head not in config.heads]
    if absent:
        raise CheckpointError(
            f"{path}: has no {', '.join(absent)} head; it has {', '.join(config.heads)}"
        )
    return replace(config, heads=tuple(head for head in config.heads if head in heads))


def _assign(
    config: VGGTConfig,
    tensors: Iterator[tuple[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
) -> VGGT:
    model = skeleton(config)
    kept = {}
    for name, tensor in tensors:
        if _part_of(name) in ("aggregator", *config.heads):
            # copy=True cuts the tie to the file, so that its mapping can go.
            kept[name] = tensor.to(device, dtype, copy=True)
    model.load_state_dict(kept, strict=True, assign=True)
    return model.eval().requires_grad_(False)


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
        dtype: "auto", "float32", "bf16" or "fp16"; see ``hardware.pick_dtype``.
        device: "auto", "cpu", "cuda" or "mps".
        notify: receives lines for the user: the licence on first use, a download starting.

    Raises:
        CheckpointError: a corrupt or hostile file, or wrong names or shapes.
        OfflineError: a hub name that is not cached and cannot be fetched.
    """
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    path = locate(source, notify)
    if path.suffix != ".safetensors":
        content = _read_pickle(path)
        config = recognise(path, {name: tuple(t.shape) for name, t in content.items()})
        config = _wanted_heads(path, config, heads)
        return _assign(config, iter(content.items()), precision, target)
    header = read_header(path)
    if header.recipe is not None:
        raise CheckpointError(f"{path}: compressed with {header.recipe}, which needs a newer version")
    config = _wanted_heads(path, header.config, heads)
    return _assign(config, _read_safetensors(path, header.shapes), precision, target)


def locate(source: str | Path, notify: Callable[[str], None] = hub.notify_stderr) -> Path:
    """The local file behind a name, fetching it from the hub where needed.

    Raises:
        CheckpointError: when there is no such file and the name is no hub name.
        OfflineError: when the hub cannot be reached.
    """
    if str(source) == "pocket":
        return Path(str(resources.files("vggt_edge") / "assets" / "pocket.safetensors"))
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise CheckpointError(f"{path}: not a weight file ({', '.join(SUFFIXES)})")
        return path
    name = str(source)
    if path.suffix in SUFFIXES or path.exists() or name.count("/") != 1 or name.startswith((".", "/")):
        raise CheckpointError(
            f"{source}: no such weight file; give a .safetensors or .pt file, 'pocket', or a hub "
            f"name: {', '.join(hub.KNOWN)}"
        )
    return hub.fetch(name, notify)


def describe(source: str | Path) -> Header:
    """What a weight file says about itself, without building the network.

    Raises:
        CheckpointError: as ``load`` does.
    """
    path = locate(source)
    if path.suffix == ".safetensors":
        return read_header(path)
    content = _read_pickle(path)
    shapes = {name: tuple(t.shape) for name, t in content.items()}
    dtypes = {name: str(t.dtype).removeprefix("torch.") for name, t in content.items()}
    return Header(path, recognise(path, shapes), shapes, dtypes, None, hub.UNKNOWN_LICENSE)


def save(model: VGGT, path: str | Path, license: str | None = None) -> Path:
    """Write a model with its config into one safetensors file; ``load`` gives back the same.

    Raises:
        OutputError: when the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path}: weights are saved as .safetensors")
    data = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "recipe": None,
        "license": license or hub.UNKNOWN_LICENSE,
    }
    tensors = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(data)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error})") from error
    return path


def from_upstream(module: nn.Module, dtype: str | torch.dtype = "float32") -> VGGT:
    """Our network with the weights of an already built upstream ``VGGT`` module.

    Raises:
        CheckpointError: when its tensors are not those of a VGGT this package knows.
    """
    content = dict(module.state_dict())
    name = type(module).__name__
    config = recognise(name, {key: tuple(t.shape) for key, t in content.items()})
    return _assign(config, iter(content.items()), pick_dtype(dtype), torch.device("cpu"))
