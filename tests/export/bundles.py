"""A bundle of a tiny network whose file is no network: a runtime's place is taken by torch."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from vggt_edge.export import bundle_write, golden
from vggt_edge.export.exported import Exported, ExportedFile
from vggt_edge.export.litert import Port
from vggt_edge.export.module import TensorModule, as_tuple
from vggt_edge.export.shape import Shape
from vggt_edge.model.identity import identity_of

SHAPE = Shape(2, 28, 42)
OUTPUTS = ("depth", "confidence", "pose")
SIZES = {"depth": (2, 28, 42, 1), "confidence": (2, 28, 42, 1), "pose": (2, 9)}


def port(*shape):
    return Port(shape, "float32", 0.0, 0)


def exported(folder, outputs=OUTPUTS, target="litert", recipe="float32", exceptions=None):
    """What ``export`` would return, of a file of a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-2x28x42-float32.tflite"
    path.write_bytes(b"stands for a network" * 10)
    file = ExportedFile(
        path,
        "model",
        path.stat().st_size,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        {"images": port(2, 28, 42, 3)},
        {name: port(*SIZES[name]) for name in outputs},
        {"FULLY_CONNECTED": 3},
    )
    return Exported(
        (file,),
        target,
        recipe,
        SHAPE,
        outputs,
        "VHWC",
        (),
        (),
        (),
        {},
        {"torch": torch.__version__},
        exceptions or {},
    )


def torch_stage(network, outputs=OUTPUTS, change=None):
    """A stand-in for a loaded stage, and for ``run_stages``: the network itself."""
    module = TensorModule(network, outputs)

    def call(images):
        with torch.inference_mode():
            found = as_tuple(module(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()))
        values = {n: v.numpy().copy() for n, v in zip(module.outputs, found, strict=True)}
        return change(values) if change else values

    return call


def write(network, folder, path, monkeypatch, outputs=OUTPUTS, change=None, **options):
    """A bundle of a network, whose runtime is torch."""
    call = torch_stage(network, outputs, change)
    monkeypatch.setattr(bundle_write, "run_stages", lambda _m, _f, images: call(images))
    known = golden.make(network, SHAPE, outputs, scenes=2)
    return bundle_write.write(
        exported(folder, outputs, **options),
        known,
        path,
        name="tiny network",
        network=identity_of(network),
    )


def noisy(share):
    """A change of depth by a factor that differs from row to row."""

    def change(values):
        rows = 1 + share * np.sin(np.arange(values["depth"].shape[1]))[None, :, None, None]
        return {**values, "depth": (values["depth"] * rows).astype(np.float32)}

    return change
