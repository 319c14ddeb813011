"""Speed of one pass at VGGT-1B's size on seeded random weights, and how far precisions drift apart.

    python benchmarks/network.py [--upstream DIR] [--views 2 --size 224x224] [--rounds 5]
        [--recipes w8a8 w4a8-g32] [--model pocket]

With ``--upstream`` (a folder that holds the upstream ``vggt`` package, with einops installed) the
upstream network runs with the same weights in the same process; variants take turns, and ratios are
of runs of the same turn. Camera and depth heads. ``--model`` takes another network's own weights,
without upstream.

After the turns each variant runs once more with a clock around every layer that w8a8 quantizes.
Their share of the time gives Amdahl's ceiling: how much faster it were if these took no time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import record
import torch

from vggt_edge import memory
from vggt_edge.checkpoint import skeleton
from vggt_edge.compress.compress import compress
from vggt_edge.hardware import keep_heap
from vggt_edge.model.config import PRESETS
from vggt_edge.model.quantized import schemes
from vggt_edge.model.quantized_conv import conv_schemes
from vggt_edge.model.vggt import VGGT, precise_parameters
from vggt_edge.recipe import Recipe
from vggt_edge.weights import from_upstream, load

HEADS = ("camera", "depth")
CONFIG = replace(PRESETS["vggt-1b"], heads=HEADS)


class Variant(NamedTuple):
    """What is timed."""

    call: Callable[[torch.Tensor], tuple]  # images to (pose encoding, depth)
    network: torch.nn.Module


class Clock:
    """Seconds spent in some layers of a network while it is in force."""

    METHODS = ("forward", "gelu", "outputs")  # upstream's layers have the first alone

    def __init__(self, network: torch.nn.Module, paths: list[str]):
        self.seconds, self.layers = 0.0, [network.get_submodule(path) for path in paths]
        self._inside, self._wrapped = False, []

    def __enter__(self) -> Clock:
        for layer in self.layers:
            for name in self.METHODS:
                if callable(getattr(layer, name, None)):
                    setattr(layer, name, self._timed(getattr(layer, name)))
                    self._wrapped.append((layer, name))
        return self

    def __exit__(self, *_: object) -> None:
        for layer, name in self._wrapped:
            delattr(layer, name)

    def _timed(self, method: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            if self._inside:  # one of them calls another
                return method(*args, **options)
            self._inside, begin = True, time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - begin

        return call


@torch.no_grad()
def seeded(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights of plausible size: activations neither vanish nor explode, every term is there."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            fan_in = tensor[0].numel() if "resize_layers" not in name else tensor.shape[0]
            tensor.copy_(noise * fan_in**-0.5)
        elif name.endswith("norm.weight") or "norm1.w" in name or "norm2.w" in name:
            tensor.copy_(1 + 0.1 * noise)
        elif name.endswith("gamma"):
            tensor.copy_(0.1 * (1 + 0.1 * noise))
        else:
            tensor.copy_(0.02 * noise)
    return model.eval().requires_grad_(False)


def build_variants(
    upstream: Path | None, model: str | None, recipes: list[str]
) -> dict[str, Variant]:
    """What is timed, by name; upstream's first, if its folder is given."""
    variants: dict[str, Variant] = {}
    if model:
        float32 = load(model, heads=HEADS, dtype="float32", device="cpu")
    elif upstream:
        sys.path.insert(0, str(upstream))
        from vggt.models.vggt import VGGT as Upstream

        theirs = seeded(Upstream())
        del theirs.point_head, theirs.track_head
        theirs.point_head = theirs.track_head = None

        def upstream_float32(images: torch.Tensor) -> tuple:
            out = theirs(images)
            return out["pose_enc"], out["depth"]

        def upstream_bf16(images: torch.Tensor) -> tuple:
            # As upstream's own scripts do: autocast for the aggregator, heads in float32.
            with torch.autocast("cpu", torch.bfloat16):
                tokens, start = theirs.aggregator(images)
            tokens = [t.float() for t in tokens]
            return theirs.camera_head(tokens)[-1], theirs.depth_head(tokens, images, start)[0]

        variants["upstream float32"] = Variant(upstream_float32, theirs)
        variants["upstream bf16 autocast"] = Variant(upstream_bf16, theirs)
        float32 = from_upstream(theirs)
    else:
        float32 = seeded(VGGT(CONFIG))

    def run(model: VGGT) -> Variant:
        def call(images: torch.Tensor) -> tuple:
            height, width = images.shape[-2:]
            out = model(
                images,
                chunk=memory.aggregator_chunk(model.config, height, width),
                dense_chunk=memory.dense_chunk(height, width),
            )
            return out.pose_enc, out.depth

        return Variant(call, model)

    precise = precise_parameters(float32)
    halves = {
        name: tensor if name in precise else tensor.to(torch.bfloat16)
        for name, tensor in float32.state_dict().items()
    }

    def half() -> VGGT:
        model = skeleton(float32.config)
        model.load_state_dict(halves, assign=True)
        return model.eval().requires_grad_(False)

    variants["float32"] = run(float32)
    variants["bf16"] = run(half())
    for recipe in recipes:
        # The search for the best clipping changes no speed.
        packed = half()
        compress(packed, recipe, method="minmax")
        variants[recipe] = run(packed)
    return variants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--upstream", type=Path)
    where.add_argument("--model", help="pocket or a file, in place of VGGT-1B's size")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--size", default="224x224", help="HEIGHTxWIDTH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipes", nargs="*", default=[], help="also quantized by these")
    parser.add_argument("--only", nargs="*", help="run these variants only")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    images = torch.rand(1, args.views, 3, height, width, generator=torch.Generator().manual_seed(1))

    keep_heap()  # as the command line does; it serves all variants alike
    variants = build_variants(args.upstream, args.model, args.recipes)
    whole = variants["float32"].network
    quantized = [*schemes(whole, Recipe("w8a8")), *conv_schemes(whole, Recipe("w8a8"))]
    if args.only:
        variants = {name: one for name, one in variants.items() if name in args.only}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    outputs = {}
    with torch.inference_mode():
        for turn in range(args.rounds + 1):
            for name, variant in variants.items():
                begin = time.perf_counter()
                outputs[name] = variant.call(images)
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - begin)
        shares = {}
        for name, variant in variants.items():
            begin = time.perf_counter()
            with Clock(variant.network, quantized) as clock:
                variant.call(images)
            shares[name] = clock.seconds / (time.perf_counter() - begin)
    reference = next(iter(outputs))
    rows = {}
    for name, times in seconds.items():
        pose, depth = outputs[name]
        exact_pose, exact_depth = outputs[reference]
        ratios = [a / b for a, b in zip(seconds[reference], times, strict=True)]
        rows[name] = {
            "seconds": record.spread(times),
            f"times faster than {reference}": record.spread(ratios),
            "depth error": round(((depth - exact_depth).abs() / exact_depth).mean().item(), 7),
            "pose error": round((pose - exact_pose).abs().max().item(), 7),
            "share in quantized layers": round(shares[name], 3),
            "Amdahl ceiling": round(1 / (1 - shares[name]), 2),
        }
        if "upstream bf16 autocast" in seconds:
            against = zip(seconds["upstream bf16 autocast"], times, strict=True)
            rows[name]["times faster than upstream bf16"] = record.spread(
                [a / b for a, b in against]
            )
        print(f"{name:<24}{rows[name]['seconds']['median']:8.2f} s  " + str(rows[name]))
    stem = f"network_{Path(args.model).stem}" if args.model else "network"
    name = f"{stem}_{args.views}x{height}x{width}"
    model = args.model or "vggt-1b, seeded weights"
    path = record.write(
        name, {"model": model, "views": args.views, "size": [height, width], "variants": rows}
    )
    print(path)


if __name__ == "__main__":
    main()
