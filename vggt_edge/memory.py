"""How much memory a run needs, before it starts.

The estimate follows what ``model/aggregator.py`` holds: per view the tapped tokens, the residual
stream, keys and values while a global block runs, the picture and the outputs; on top, one chunk in
flight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .errors import TooLargeError
from .hardware import available_memory
from .model.config import VGGTConfig
from .sparse_plan import SparsePlan, attention_cost, kept_tokens, merge_roles
from .types import TokenLayout

# Allocator slack, interpreter and libraries; measured in results/memory_*.json.
OVERHEAD_BYTES = 450 << 20
CHUNK_TOKENS = 4096
# A view of 224x224, or whatever one view has: more at a time is no faster (docs/LOG.md).
DENSE_CHUNK_PIXELS = 1 << 16


def tokens_per_view(config: VGGTConfig, height: int, width: int) -> int:
    """Tokens of one view."""
    return config.special_tokens + (height // config.patch_size) * (width // config.patch_size)


def bytes_per_view(
    config: VGGTConfig, height: int, width: int, itemsize: int, sparse: bool = False
) -> int:
    """Growth of the peak with every further view, in bytes.

    The aggregator's peak and the dense heads' peak come one after the other, so the larger counts.
    With a ``sparse`` plan keys and values are counted by ``plan_bytes``.
    """
    tokens, pixels = tokens_per_view(config, height, width), height * width
    token_map = tokens * config.width * itemsize
    taps = 2 * len(config.taps) * token_map
    # In the last global block its own output is not kept yet; the float32 residual stream, keys and
    # values are there.
    aggregator = taps + (-token_map if sparse else token_map) + tokens * config.width * 4
    outputs = pixels * 4 * (2 * ("depth" in config.heads) + 4 * ("point" in config.heads))
    return max(aggregator, taps + 2 * outputs) + pixels * 3


def bytes_in_flight(config: VGGTConfig, height: int, width: int, itemsize: int) -> int:
    """Upper bound of what one chunk holds at a time."""
    tokens = max(CHUNK_TOKENS, tokens_per_view(config, height, width))
    block = 12 * tokens * config.width * itemsize
    pixels = max(DENSE_CHUNK_PIXELS, height * width)
    dense = pixels * 4 * (config.dense_features + 3 * config.dense_features // 2 + 64)
    return max(block, dense if {"depth", "point"} & set(config.heads) else 0)


def run_bytes(
    config: VGGTConfig,
    views: int,
    height: int,
    width: int,
    itemsize: int,
    plan: SparsePlan | None = None,
) -> int:
    """Peak of one pass over ``views`` views beyond the weights, in bytes."""
    per_view = bytes_per_view(config, height, width, itemsize, plan is not None)
    held = 0 if plan is None else plan_bytes(config, plan, height, width, itemsize)
    in_flight = bytes_in_flight(config, height, width, itemsize)
    return OVERHEAD_BYTES + views * per_view + held + in_flight


def cache_bytes(
    config: VGGTConfig, plan: SparsePlan, height: int, width: int, itemsize: int
) -> int:
    """What the anchors' keys and values of all layers take while further views are streamed."""
    patch = config.patch_size
    layout = TokenLayout(1, config.special_tokens, height // patch, width // patch)
    anchored = [layer for layer in plan.layers if layer.keys == "anchors"]
    tokens = sum(
        len(plan.anchors) * len(kept_tokens(layout, layer.stride)) + layout.per_view
        for layer in anchored
    )
    return 2 * tokens * config.width * itemsize


def plan_bytes(config: VGGTConfig, plan: SparsePlan, height: int, width: int, itemsize: int) -> int:
    """What the global layer of a plan that needs most holds beside the tokens."""
    patch = config.patch_size
    layout = TokenLayout(plan.views, config.special_tokens, height // patch, width // patch)
    keys = attention_cost(plan, layout, config.width, itemsize).key_bytes
    if not any(layer.keys == "merge" for layer in plan.layers):
        return keys
    # Normalised tokens and targets while they are matched, or sums and means of what is merged.
    tokens = layout.views * layout.per_view
    matching = (2 * tokens + len(merge_roles(layout).targets)) * config.width * 4
    return max(matching, keys // 2 // itemsize * (3 * 4 + 4 * itemsize))


def aggregator_chunk(config: VGGTConfig, height: int, width: int) -> int:
    """Views in flight in the aggregator."""
    return max(1, CHUNK_TOKENS // tokens_per_view(config, height, width))


def dense_chunk(height: int, width: int) -> int:
    """Views in flight in a dense head."""
    return max(1, DENSE_CHUNK_PIXELS // (height * width))


def require_weights(source: object, need: int, device: torch.device) -> None:
    """Refuse weights of ``need`` bytes that would not fit.

    Raises:
        TooLargeError: with both sizes.
    """
    have = available_memory(device)
    if need > have:
        raise TooLargeError(
            f"{source}: its weights need {need / 1e9:.1f} GB on {device.type}, {have / 1e9:.1f} GB "
            "are free; load fewer heads, use --dtype bf16, or a smaller model"
        )


def require(
    config: VGGTConfig,
    views: int,
    size: Sequence[int],
    itemsize: int,
    device: torch.device,
    *,
    weights: int = 0,
    plan: SparsePlan | None = None,
    kept: int = 0,
) -> None:
    """Refuse a run that would not fit.

    Args:
        config: of the network, with the heads that will run.
        views: how many.
        size: (height, width) of the views.
        itemsize: bytes of a number in the network's precision.
        device: where it will run.
        weights: bytes of the weights, if they are still to be loaded.
        plan: of the attention, dense when None.
        kept: bytes that this run leaves behind for later ones.

    Raises:
        TooLargeError: with the estimate and what would make it fit.
    """
    height, width = size
    need = weights + kept + run_bytes(config, views, height, width, itemsize, plan)
    have = available_memory(device)
    if need <= have:
        return
    per_view = bytes_per_view(config, height, width, itemsize, plan is not None)
    fits = math.floor((have - need + views * per_view) / per_view)
    way_out = [f"at most {fits} views (--limit {fits})"] if fits > 0 else []
    if weights < have:
        way_out.append(f"a smaller --size than {max(height, width)}")
    else:
        way_out.append("the small --model pocket")
    if itemsize == 4:
        way_out.append("--dtype bf16")
    part = f", {weights / 1e9:.1f} GB of them for weights," if weights else ""
    raise TooLargeError(
        f"{views} views of {width}x{height} need about {need / 1e9:.1f} GB on "
        f"{device.type}{part} and {have / 1e9:.1f} GB are free; what fits: {', or '.join(way_out)}"
    )
