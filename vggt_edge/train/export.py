"""From a training checkpoint to the file that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..model.config import VGGTConfig
from ..model.vggt import VGGT
from ..weights import save

LICENSE = "Apache-2.0; trained on procedural worlds only"


def export(
    checkpoint: Path, path: Path, heads: Sequence[str], dtype: torch.dtype = torch.float16
) -> Path:
    """Write the running mean of the weights as one safetensors file in half precision.

    Args:
        checkpoint: of a training run.
        path: of the file.
        heads: what is shipped; others only helped the training.
        dtype: of the tensors in the file.

    Raises:
        OutputError: when ``path`` cannot be written.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = replace(VGGTConfig.from_dict(state["model_config"]), heads=tuple(heads))
    model = VGGT(config)
    model.load_state_dict({name: state["mean"][name] for name in model.state_dict()})
    return save(model.to(dtype), path, LICENSE)
