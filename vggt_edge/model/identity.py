"""Which network this is."""

from __future__ import annotations

import hashlib
import json

import torch

from .vggt import VGGT


def identity_of(model: VGGT) -> str:
    """SHA-256 of a network's architecture, sparsity, precision, device kind and every weight."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict()).encode())
    digest.update(f"{model}{model.sparsity}{next(model.parameters()).device.type}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy().data)
    return digest.hexdigest()
