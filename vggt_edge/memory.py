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

# Allocator slack, interpreter and libraries; measured in results/memory_*.json.
OVERHEAD_BYTES = 450 << 20
CHUNK_TOKENS = 4096
DENSE_CHUNK_PIXELS = 2 * 518 * 518


def tokens_per_view(config: VGGTConfig, height: int, width: int) -> int:
    """Tokens of one view."""
    return config.special_tokens + (height // config.patch_size) * (width // config.patch_size)


def bytes_per_view(config: VGGTConfig, height: int, width: int, itemsize: int) -> int:
    """Growth of the peak with every further view, in bytes.

    The aggregator's peak and the dense heads' peak come one after the other, so the larger counts.
    """
    tokens, pixels = tokens_per_view(config, height, width), height * width
    token_map = tokens * config.width * itemsize
    taps = 2 * len(config.taps) * token_map
    # In the last global block its own output is not kept yet; the float32 residual stream, keys and
    # values are there.
    aggregator = taps + token_map + tokens * config.width * 4
    outputs = pixels * 4 * (2 * ("depth" in config.heads) + 4 * ("point" in config.heads))
    return max(aggregator, taps + 2 * outputs) + pixels * 3


def bytes_in_flight(config: VGGTConfig, height: int, width: int, itemsize: int) -> int:
    """Upper bound of what one chunk holds at a time."""
    tokens = max(CHUNK_TOKENS, tokens_per_view(config, height, width))
    block = 12 * tokens * config.width * itemsize
    pixels = max(DENSE_CHUNK_PIXELS, height * width)
    dense = pixels * 4 * (config.dense_features + 3 * config.dense_features // 2 + 64)
    return max(block, dense if {"depth", "point"} & set(config.heads) else 0)


def run_bytes(config: VGGTConfig, views: int, height: int, width: int, itemsize: int) -> int:
    """Peak of one pass over ``views`` views beyond the weights, in bytes."""
    per_view = bytes_per_view(config, height, width, itemsize)
    return OVERHEAD_BYTES + views * per_view + bytes_in_flight(config, height, width, itemsize)


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
) -> None:
    """Refuse a run that would not fit.

    Args:
        config: of the network, with the heads that will run.
        views: how many.
        size: (height, width) of the views.
        itemsize: bytes of a number in the network's precision.
        device: where it will run.
        weights: bytes of the weights, if they are still to be loaded.

    Raises:
        TooLargeError: with the estimate and what would make it fit.
    """
    height, width = size
    need = weights + run_bytes(config, views, height, width, itemsize)
    have = available_memory(device)
    if need <= have:
        return
    per_view = bytes_per_view(config, height, width, itemsize)
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
