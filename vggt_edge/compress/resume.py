"""Finished blocks of a compression on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..files import check_writable, write_tensors
from ..model.layers import Linear
from ..model.quantized import QuantLinear, seed_of
from ..recipe import Scheme
from .report import LayerReport


class Finished(NamedTuple):
    """A block that was done before.

    layers   by path.
    reports  by path.
    """

    layers: dict[str, QuantLinear]
    reports: dict[str, LayerReport]


class Journal:
    """One file a block in a folder. Files of another network, recipe, method or set are ignored.

    Args:
        folder: made if need be.
        model: before anything was done to it.
        chosen: layers and their schemes.
        settings: recipe, method and whatever else the result depends on.
        given: pictures and truths.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        model: nn.Module,
        chosen: dict[str, Scheme],
        settings: str,
        given: Iterable[np.ndarray],
    ):
        check_writable(folder)
        self.folder, self.chosen = Path(folder), chosen
        digest = hashlib.sha256(settings.encode())
        for array in given:
            digest.update(np.ascontiguousarray(array).tobytes())
        for path, scheme in chosen.items():
            linear = model.get_submodule(path)
            if isinstance(linear, Linear):
                sums = linear.weight.detach().double().sum(0).cpu().numpy()
                digest.update(f"{path} {scheme.name}".encode() + sums.tobytes())
        self.key = digest.hexdigest()

    def _file(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"

    def write(self, stage: str, model: nn.Module, reports: Mapping[str, LayerReport]) -> None:
        """Keep a block whose layers are in place.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        tensors, shapes = {}, {}
        for path in reports:
            layer = model.get_submodule(path)
            if isinstance(layer, QuantLinear):
                shapes[path] = (layer.in_features, layer.out_features, str(layer.dtype)[6:])
                for name, tensor in layer.state_dict().items():
                    tensors[f"{path}.{name}"] = tensor.contiguous()
        metadata = {
            "key": self.key,
            "shapes": json.dumps(shapes),
            "reports": json.dumps([asdict(report) for report in reports.values()]),
        }
        write_tensors(self._file(stage), tensors, metadata)

    def read(self, stage: str) -> Finished | None:
        """A block, if it was done by an equal call."""
        try:
            with safe_open(self._file(stage), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None
        layers = {}
        for path, (inputs, outputs, dtype) in json.loads(metadata["shapes"]).items():
            state = {
                name.removeprefix(f"{path}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{path}.")
            }
            layer = QuantLinear(
                inputs, outputs, self.chosen[path], getattr(torch, dtype), "gain" in state,
                seed_of(path),
            )  # fmt: skip
            layer.load_state_dict(state, strict=True, assign=True)
            layers[path] = layer
        reports = [LayerReport(**row) for row in json.loads(metadata["reports"])]
        return Finished(layers, {report.path: report for report in reports})


def remove(folder: str | Path) -> None:
    """Throw a journal's folder away, when the result is safe elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
