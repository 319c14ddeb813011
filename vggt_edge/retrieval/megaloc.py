"""MegaLoc from the hub or a local file; strict, as VGGT's weights are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from .. import hub, memory
from ..checkpoint import (
    check_floats,
    check_shapes,
    dtypes_of,
    read_layout,
    read_pickle,
    read_safetensors,
    shapes_of,
)
from ..hardware import pick_device, pick_dtype
from ..model.megaloc import MegaLoc, MegaLocConfig
from ..model.vggt import precise_parameters
from ..weights import locate

HUB_NAME = "gberton/MegaLoc"


def load_megaloc(
    source: str | Path = HUB_NAME,
    *,
    config: MegaLocConfig | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    notify: Callable[[str], None] = hub.notify_stderr,
) -> MegaLoc:
    """Build MegaLoc and fill it, tensor by tensor.

    Args:
        source: the hub name, or a ``.safetensors`` or ``.pt`` file under its tensor names.
        config: of the network; the published one (228.6 M parameters) when None.
        dtype: "auto", "float32", "bf16" or "fp16", of the matrix products.
        device: "auto", "cpu", "cuda" or "mps".
        notify: receives lines for the user: the licence (MIT) on first use.

    Raises:
        CheckpointError: a corrupt or hostile file, or wrong names or shapes.
        OfflineError: not cached and cannot be fetched.
        TooLargeError: when the weights would not fit in memory.
    """
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    path = locate(source, notify)
    with torch.device("meta"):
        model = MegaLoc(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        shapes, dtypes, _ = read_layout(path)
        tensors = read_safetensors(path, expected)
    else:
        content = read_pickle(path)
        shapes, dtypes = shapes_of(content), dtypes_of(content)
        tensors = iter(content.items())
    check_shapes(path, shapes, expected)
    check_floats(path, dtypes)
    numbers = sum(math.prod(shape) for shape in expected.values())
    memory.require_weights(path, numbers * precision.itemsize, target)
    precise = precise_parameters(model)
    kept = {
        name: tensor.to(target, torch.float32 if name in precise else precision, copy=True)
        for name, tensor in tensors
    }
    model.load_state_dict(kept, strict=True, assign=True)
    known = hub.KNOWN.get(str(source))
    model.license = known.license if known else hub.UNKNOWN_LICENSE
    return model.eval().requires_grad_(False)
