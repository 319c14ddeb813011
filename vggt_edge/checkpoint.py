"""Weight files: what they say about themselves and their tensors one by one; hostile until checked.

The metadata entry ``vggt_edge`` of a safetensors file holds JSON with ``format``, ``config``,
``recipe`` and ``license``. A file without it is recognised by its names and shapes.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import hub
from .errors import CheckpointError, RecipeError
from .model.config import HEADS, PRESETS, VGGTConfig
from .model.packed import packed_dtypes
from .model.swap import swap
from .model.vggt import VGGT
from .recipe import Recipe

FORMAT = 1
METADATA_KEY = "vggt_edge"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Mapped pages of a file count as resident memory until the mapping is gone: renew it this often.
REMAP_BYTES = 32 << 20
# What a tensor of a float network may be stored as, under safetensors' names.
FLOATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
# What a quantized layer's state may be stored as.
PACKED = {
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float32: "F32",
}
EMPTY: Mapping[str, torch.dtype] = MappingProxyType({})
# A damaged pickle fails in as many ways as it has opcodes.
PICKLE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Header:
    """What a weight file says about itself, read without its tensors.

    Fields
        path      the file.
        config    of the network; ``config.heads`` are those the file holds.
        shapes    tensor name to shape.
        dtypes    tensor name to dtype name as stored, such as "F32".
        recipe    compression recipe, None for a float model.
        license   a line about the weights' licence.
    """

    path: Path
    config: VGGTConfig
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    recipe: Recipe | None
    license: str

    @property
    def parameters(self) -> Counter[str]:
        """How many numbers each part has, under its attribute's name, such as "camera_head".

        Two 4-bit codes in one byte count as two; what only belongs to the packing counts as none.
        """
        counts: Counter[str] = Counter()
        for name, shape in self.shapes.items():
            path, _, leaf = name.rpartition(".")
            packed = f"{path}.codes" in self.shapes
            if packed and leaf not in ("codes", "bias"):
                continue
            nibbles = packed and leaf == "codes" and self.dtypes[name] == "U8"
            counts[name.partition(".")[0]] += math.prod(shape) * (2 if nibbles else 1)
        return counts

    @property
    def optional(self) -> set[str]:
        """Names of the tensors that only some quantized layers have."""
        return {name for name in self.shapes if name.rpartition(".")[2] in ("gain", "signs")}


def printable(text: object) -> str:
    """One line without control characters, whatever a file or a library put into it."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:1000]


def refusal(path: Path | str, reason: object) -> CheckpointError:
    """The error to raise about a weight file, on one line."""
    return CheckpointError(printable(f"{str(path)[:300]}: {reason}"))


def skeleton(
    config: VGGTConfig,
    recipe: Recipe | None = None,
    dtype: torch.dtype = torch.float32,
    optional: Container[str] = (),
) -> VGGT:
    """The network without memory, on the meta device, quantized where a recipe says so."""
    with torch.device("meta"):
        model = VGGT(config)
    if recipe is not None:
        swap(model, recipe, dtype, optional)
        model.recipe = recipe
    return model


def expected_shapes(
    config: VGGTConfig, recipe: Recipe | None = None, optional: Container[str] = ()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network."""
    model = skeleton(config, recipe, optional=optional)
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


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
        raise refusal(path, f"does not fit this network: {'; '.join(problems)}")


def check_floats(
    path: Path | str, dtypes: dict[str, str], quantized: Mapping[str, torch.dtype] = EMPTY
) -> None:
    """Refuse integers: taken for weights without their scales they give silent nonsense.

    Raises:
        CheckpointError: on any tensor that is not stored as a float of ``FLOATS``, or as what
            ``quantized`` says.
    """
    for name, dtype in dtypes.items():
        if name in quantized:
            if dtype != PACKED.get(quantized[name]):
                raise refusal(path, f"{name} is stored as {dtype}, not as its recipe says")
        elif dtype not in FLOATS.values():
            raise refusal(path, f"{name} is stored as {dtype}, which is no plain float")


def recognise(path: Path | str, shapes: dict[str, tuple[int, ...]]) -> VGGTConfig:
    """Config of a file without metadata, by its names and shapes.

    Raises:
        CheckpointError: when it is no VGGT this package knows.
    """
    heads = tuple(
        head for head in HEADS if any(name.startswith(f"{head}_head.") for name in shapes)
    )
    width = (shapes.get("aggregator.camera_token") or (0,))[-1]
    for preset in PRESETS.values():
        if preset.width == width:
            config = replace(preset, heads=heads)
            check_shapes(path, shapes, expected_shapes(config))
            return config
    if width:
        raise refusal(
            path,
            f"a VGGT of width {width} without a config inside; build the module and save it "
            "with vggt_edge.save, which stores the config",
        )
    raise refusal(path, "holds no VGGT (no tensor aggregator.camera_token)")


def _parse_metadata(path: Path, metadata: dict[str, str]) -> dict[str, Any] | None:
    if METADATA_KEY not in metadata:
        return None
    try:
        data = json.loads(metadata[METADATA_KEY])
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"format {data.get('format') if isinstance(data, dict) else data!r}")
        data["config"] = VGGTConfig.from_dict(data["config"])
        if data.get("recipe") is not None:
            data["recipe"] = Recipe.from_data(data["recipe"])
    except (ValueError, TypeError, KeyError, RecursionError, RecipeError) as error:
        raise refusal(
            path, f"metadata this version cannot read ({type(error).__name__}: {error})"
        ) from error
    return data


def _check_against_config(header: Header) -> None:
    path, shapes, config = header.path, header.shapes, header.config
    # A config out of a file may ask for a network that takes forever to build, even on meta.
    if config.encoder_depth + 2 * config.depth + config.camera_depth > len(shapes):
        raise refusal(path, f"its config has more blocks than it has tensors ({len(shapes)})")
    try:
        model = skeleton(config, header.recipe, optional=header.optional)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        raise refusal(path, f"its config is impossible to build ({error})") from error
    check_shapes(path, shapes, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    check_floats(path, header.dtypes, packed_dtypes(model))


def read_layout(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], dict[str, str]]:
    """Shapes and dtypes of the tensors of any ``.safetensors`` file, and its metadata.

    Raises:
        CheckpointError: when it is corrupt.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
            dtypes = {name: s.get_dtype() for name, s in slices.items()}
            return shapes, dtypes, file.metadata() or {}
    except FileNotFoundError as error:
        raise refusal(path, "no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise refusal(path, f"not a readable safetensors file ({error})") from error


def read_header(path: Path) -> Header:
    """Read a ``.safetensors`` file's header: names, shapes, config, recipe, licence.

    Raises:
        CheckpointError: when it is corrupt or no VGGT.
    """
    shapes, dtypes, metadata = read_layout(path)
    data = _parse_metadata(path, metadata)
    if data is None:
        config = recognise(path, shapes)
        check_floats(path, dtypes)
        return Header(path, config, shapes, dtypes, None, hub.UNKNOWN_LICENSE)
    licence = printable(data.get("license") or hub.UNKNOWN_LICENSE)
    header = Header(path, data["config"], shapes, dtypes, data.get("recipe"), licence)
    _check_against_config(header)
    return header


def read_safetensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one by one, from a mapping that is renewed before it weighs."""
    seen = REMAP_BYTES
    with ExitStack() as stack:
        for name in names:
            if seen >= REMAP_BYTES:
                stack.close()
                file = stack.enter_context(safe_open(path, framework="pt"))
                seen = 0
            tensor = file.get_tensor(name)
            seen += tensor.nbytes
            yield name, tensor


def read_pickle(path: Path) -> dict[str, Tensor]:
    """State dict of a ``torch.save`` file, read as data only."""
    try:
        # Only the zip format, torch's own since 1.6, can be mapped.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols and the like: what counts is the end
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise refusal(path, "no such file") from error
    except pickle.UnpicklingError as error:
        raise refusal(
            path,
            "is damaged, or holds more than tensors and could run code when opened; refused. "
            "Ask its author for a safetensors file",
        ) from error
    except PICKLE_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise refusal(path, f"not a readable torch file ({reason})") from error
    # Training checkpoints wrap the weights.
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise refusal(path, "holds no state dict of tensors")
    check_floats(path, dtypes_of(content))
    return content


def shapes_of(content: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape."""
    return {name: tuple(tensor.shape) for name, tensor in content.items()}


def dtypes_of(content: dict[str, Tensor]) -> dict[str, str]:
    """Tensor name to dtype under safetensors' name."""
    return {name: FLOATS.get(tensor.dtype, str(tensor.dtype)) for name, tensor in content.items()}
