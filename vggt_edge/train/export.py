"""From a training checkpoint to the file that is shipped."""

from __future__ import annotations

from pathlib import Path

import torch

from ..model.config import VGGTConfig
from ..model.vggt import VGGT
from ..weights import save

LICENSE = "Apache-2.0; trained on procedural worlds only"


def export(checkpoint: Path, path: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write the running mean of the weights as one safetensors file in half precision.

    Args:
        checkpoint: of a training run.
        path: of the file.
        dtype: of the tensors in the file.

    Raises:
        OutputError: when ``path`` cannot be written.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = VGGT(VGGTConfig.from_dict(state["model_config"]))
    model.load_state_dict(state["mean"])
    return save(model.to(dtype), path, LICENSE)
