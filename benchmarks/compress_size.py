"""Bytes of compressed networks: on disk, while loading, while running; and their layers' errors.

    python benchmarks/compress_size.py [--schemes w8a8 w4a8-g32 w4a16-g128] [--scratch DIR]

VGGT-1B's size with seeded random codes, and the pocket model. Every peak is the resident set of a
fresh process, most of whose start is torch itself. The errors are of single layers at VGGT-1B's
shapes, rounded to nearest without calibration, on made-up weights and activations with the outliers
that transformers have; see ``make_weight`` and ``make_inputs``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import memory
import record
import torch
from torch import Tensor

from vggt_edge import weights
from vggt_edge.checkpoint import skeleton
from vggt_edge.compress.compress import compress
from vggt_edge.compress.scan import rounded
from vggt_edge.model.config import PRESETS
from vggt_edge.model.layers import Linear
from vggt_edge.model.packed import PackedLayer
from vggt_edge.model.quantized import fits
from vggt_edge.recipe import Recipe, Scheme

CONFIG = replace(PRESETS["vggt-1b"], heads=("camera", "depth", "point"))
GOALS = {
    "w8a8": {"file": 1.26e9, "peak": 1.7e9},
    "w4a8-g32": {"file": 0.72e9, "peak": 1.1e9},
    "w4a16-g128": {"file": 0.72e9, "peak": 1.1e9},
}
SHAPES = {
    "qkv": (1024, 3072),
    "proj": (1024, 1024),
    "fc1": (1024, 4096),
    "fc2": (4096, 1024),
    "camera qkv": (2048, 6144),
    "camera fc2": (8192, 2048),
}
ERRORS = ("w8a8", "w8a16", "fp8", "w4a16-g128", "w4a8-g32", "w4a8-g128", "w4a8", "w4a4-g32", "w4a4")
ROWS, SPECIAL = 522, 10  # two views of 224x224: 256 patches and 5 special tokens each


def generator_of(name: str) -> torch.Generator:
    """Seeded by a name, so that the order of making does not matter."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def make_weight(outputs: int, inputs: int, name: str) -> Tensor:
    """Weights with heavy tails: rows and columns of different size, one in a thousand outlying."""
    generator = generator_of(name)
    weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    weight *= (0.3 * torch.randn(outputs, 1, generator=generator)).exp()
    weight *= (0.3 * torch.randn(1, inputs, generator=generator)).exp()
    outlying = torch.rand(outputs, inputs, generator=generator) < 1e-3
    return torch.where(outlying, 5 * weight, weight)


def make_inputs(width: int, name: str) -> Tensor:
    """(ROWS, width) activations.

    Channels of log-normal size, one in 200 twenty times larger (Dettmers et al., "LLM.int8()",
    2022); special tokens ten times larger in one channel in 100 (Sun et al., "Massive activations",
    2024). Behind a GELU where the name ends in fc2.
    """
    generator = generator_of(name + " inputs")
    x = torch.randn(ROWS, width, generator=generator)
    x *= (0.7 * torch.randn(1, width, generator=generator)).exp()
    x[:, torch.randperm(width, generator=generator)[: max(1, width // 200)]] *= 20
    x[:SPECIAL, torch.randperm(width, generator=generator)[: max(1, width // 100)]] *= 10
    return torch.nn.functional.gelu(x) if name.endswith("fc2") else x


def made_up(name: str, tensor: Tensor, inputs: int) -> Tensor:
    """Codes, scales or floats of plausible size for an empty tensor of a compressed network."""
    generator, shape, leaf = generator_of(name), tensor.shape, name.rpartition(".")[2]
    if tensor.dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if leaf == "multiplier":
        return torch.randint(8, 17, shape, dtype=torch.int8, generator=generator)
    if tensor.dtype == torch.int8:
        return torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)
    if leaf == "clip":
        return torch.ones(())
    if leaf == "scale":
        return torch.full(shape, inputs**-0.5 / 73)  # 73: the spread of codes over 8 bits
    noise = torch.randn(shape, generator=generator)
    value = 1 + 0.1 * noise if name.endswith(("norm.weight", "gamma")) else 0.02 * noise
    # As the command line stores what stays float.
    return value if inputs else value.half()


@torch.no_grad()
def build(name: str, path: str) -> None:
    """Write VGGT-1B's size in a recipe, of seeded random codes: bytes do not ask what they mean."""
    model = skeleton(CONFIG, Recipe(name), torch.bfloat16)
    packed = {name: m for name, m in model.named_modules() if isinstance(m, PackedLayer)}
    state = {}
    for name, tensor in model.state_dict().items():
        layer = packed.get(name.rpartition(".")[0])
        inputs = 0 if layer is None else layer.codes.shape[1]
        state[name] = made_up(name, tensor, inputs)
    model.load_state_dict(state, strict=True, assign=True)
    weights.save(model, path, license="made-up weights")


def build_pocket(name: str, path: str) -> None:
    """Write the pocket model in a precision or a recipe."""
    model = weights.load("pocket", dtype=name if name in ("float32", "bf16") else "bf16")
    if name not in ("float32", "bf16"):
        compress(model, name, method="nearest")
    weights.save(model, path)


def elsewhere(function: str, name: str, path: Path) -> None:
    """Build in a process of its own: a child is born with the peak of its parent."""
    code = f"import compress_size; compress_size.{function}({name!r}, {str(path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


def parts_of(path: Path) -> dict[str, int]:
    """Where a file's bytes are: part and kind of tensor to bytes, largest first."""
    header = weights.describe(path)
    width = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}
    found: Counter[str] = Counter()
    for name, shape in header.shapes.items():
        part = name.split(".")[0]
        if part == "aggregator":
            part = name.split(".")[1]
        size = width[header.dtypes[name]]
        for number in shape:
            size *= number
        layer, _, leaf = name.rpartition(".")
        kind = "packed" if f"{layer}.codes" in header.shapes else header.dtypes[name]
        found[f"{part} {kind}"] += size
    return dict(found.most_common())


def measured(path: Path, dtype: str) -> dict:
    """File size and peaks of loading and of two views of 224x224, of one file."""
    size = path.stat().st_size
    run = memory.measure(path, dtype, 2, 224, 224)
    return {
        "file": size,
        "start": run["start"],
        "load over start": run["load_peak"],
        "load over file": round(run["load_peak"] / size, 3),
        "peak": run["peak"],
        "load seconds": round(run["load_seconds"], 1),
        "run seconds": round(run["seconds"], 1),
        "backends": run["backends"],
        "packed layers": run["packed layers"],
        "float linears": run["float linears"],
    }


@torch.no_grad()
def layer_errors(names: tuple[str, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """Shape to scheme to root of the relative squared output error, of all rows and of patches."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for shape, (inputs, outputs) in SHAPES.items():
        linear = Linear(inputs, outputs)
        linear.weight.copy_(make_weight(outputs, inputs, shape))
        linear.bias.zero_()
        x = make_inputs(inputs, shape)
        exact = linear(x)
        rows = found.setdefault(shape, {})
        for name in [one + end for one in names for end in ("", "-hadamard")]:
            if name == "fp8-hadamard":
                continue
            scheme = Scheme.parse(name)
            if scheme is None or not fits(inputs, outputs, scheme):
                continue
            lost = (rounded(linear, shape, scheme)(x) - exact).square()
            patches = slice(SPECIAL, None)
            rows[name] = {
                "all": round(float((lost.sum() / exact.square().sum()).sqrt()), 5),
                "patches": round(
                    float((lost[patches].sum() / exact[patches].square().sum()).sqrt()), 5
                ),
            }
            print(f"{shape:<12}{name:<24}{rows[name]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", nargs="+", default=list(GOALS))
    parser.add_argument("--errors", nargs="*", default=list(ERRORS))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    begin, big, pocket = time.time(), {}, {}
    for name in args.schemes:
        path = args.scratch / f"vggt_1b_{name}.safetensors"
        elsewhere("build", name, path)
        row = measured(path, "bf16")
        goals = GOALS.get(name, {})
        row["goals met"] = {key: bool(row[key] <= goal) for key, goal in goals.items()}
        row["goals"] = goals
        row["bytes of the file"] = parts_of(path)
        path.unlink()
        big[name] = row
        print(name, json.dumps(row, indent=1), flush=True)
    for name in ("float32", "bf16", *args.schemes):
        path = args.scratch / f"pocket_{name}.safetensors"
        elsewhere("build_pocket", name, path)
        pocket[name] = measured(path, "float32" if name == "float32" else "bf16")
        path.unlink()
        print("pocket", name, pocket[name], flush=True)
    data = {
        "note": "VGGT-1B's size, camera, depth and point heads in the file, camera and depth run; "
        "weights are made up. Seconds are of a shared machine.",
        "vggt-1b": big,
        "pocket": pocket,
        "layer output error": layer_errors(tuple(args.errors)),
        "took": round(time.time() - begin),
    }
    print(record.write("compress_size", data))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
