"""What many images need, on paper: bytes and FLOPs by the code's own counters, hours by rates.

Nothing is run. Rates come from results/ and, marked as published, from facts about other machines;
every assumption is in the JSON beside what follows from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import record

from vggt_edge import memory
from vggt_edge.model.config import PRESETS
from vggt_edge.sparse_plan import SparsePlan, attention_cost, dense_plan
from vggt_edge.sparsity import Sparsity
from vggt_edge.types import TokenLayout

CONFIG = replace(PRESETS["vggt-1b"], heads=("camera", "depth"))
HEIGHT, WIDTH, ITEMSIZE = 392, 518, 2
ANCHORS = 25
DEPTH_HEAD_TFLOP = 0.225  # of a view of 518x392, published: facts/scaling.md 4.2
# Published, facts/scaling.md: dense VGGT, 200 views of 518x392 on an H100 with FlashAttention-3,
# without heads (official README); anchors with K = 25 on an L40S, 300 and 500 views (GoToHunt).
H100_DENSE_SECONDS = 8.75
L40S_ANCHORS = {300: 23.8, 500: 41.2}
LINK_GBIT = 10
CLUSTER, SHARED = 1000, 50  # views of a large cluster, and those it shares with each neighbour


def layout(views: int) -> TokenLayout:
    patch = CONFIG.patch_size
    return TokenLayout(views, CONFIG.special_tokens, HEIGHT // patch, WIDTH // patch)


def anchored(views: int, anchors: int) -> SparsePlan:
    return Sparsity("anchors", anchors=anchors).plan(views, CONFIG.depth, anchors=range(anchors))


def linear_tflop() -> float:
    """Of one view: all matrix products of encoder and aggregator, and attention inside the view."""
    tokens, width = layout(1).per_view, CONFIG.width
    blocks = CONFIG.encoder_depth + 2 * CONFIG.depth
    products = blocks * 24 * width**2 * tokens
    inside = (CONFIG.encoder_depth + CONFIG.depth) * 4 * tokens**2 * width
    return (products + inside) / 1e12


def encoder_tflop() -> float:
    tokens, width = layout(1).per_view, CONFIG.width
    return CONFIG.encoder_depth * (24 * width**2 * tokens + 4 * tokens**2 * width) / 1e12


def global_tflop(plan: SparsePlan) -> float:
    return attention_cost(plan, layout(plan.views), CONFIG.width).flops / 1e12


def per_view() -> dict:
    pixels, per = HEIGHT * WIDTH, layout(1).per_view
    return {
        "tokens": per,
        "picture MB": round(pixels * 3 / 1e6, 3),
        "result MB (picture, depth, confidence; float32)": round(pixels * 11 / 1e6, 3),
        "device MB one-shot, anchors": round(
            memory.bytes_per_view(CONFIG, HEIGHT, WIDTH, ITEMSIZE, sparse=True) / 1e6, 1
        ),
        "in flight MB, whatever the views": round(
            memory.bytes_in_flight(CONFIG, HEIGHT, WIDTH, ITEMSIZE) / 1e6
        ),
        "TFLOP of products": round(linear_tflop(), 3),
        "TFLOP of the encoder, for descriptors": round(encoder_tflop(), 3),
        "TFLOP of the depth head (published)": DEPTH_HEAD_TFLOP,
    }


def anchor_costs(counts: list[int]) -> list[dict]:
    rows = []
    for count in counts:
        # Of one view more: what it adds to a pass of anchors and others.
        some = global_tflop(anchored(count + 10, count)) - global_tflop(anchored(count, count))
        kept = memory.cache_bytes(CONFIG, anchored(count, count), HEIGHT, WIDTH, ITEMSIZE)
        each = (
            memory.cache_bytes(CONFIG, anchored(count + 1, count + 1), HEIGHT, WIDTH, ITEMSIZE)
            - kept
        )
        rows.append(
            {
                "anchors": count,
                "keys and values GB": round(kept / 1e9, 2),
                "of each anchor MB": round(each / 1e6, 1),
                "seconds to send them to a machine": round(kept * 8 / LINK_GBIT / 1e9, 1),
                "global attention TFLOP a view": round(some / 10, 2),
                "TFLOP a view": round(some / 10 + linear_tflop() + DEPTH_HEAD_TFLOP, 2),
            }
        )
    return rows


def rates() -> dict:
    dense = 200 * linear_tflop() + global_tflop(dense_plan(200, CONFIG.depth))
    few, many = L40S_ANCHORS
    seconds = (L40S_ANCHORS[many] - L40S_ANCHORS[few]) / (many - few)
    ours = (
        linear_tflop()
        + DEPTH_HEAD_TFLOP
        + (global_tflop(anchored(many, ANCHORS)) - global_tflop(anchored(few, ANCHORS)))
        / (many - few)
    )
    kernel = json.loads((record.RESULTS / "scale_kernel.json").read_text())["views"]["200"]
    return {
        "H100, TFLOP/s, from published dense seconds": round(dense / H100_DENSE_SECONDS),
        "L40S, seconds a further view, published": round(seconds, 4),
        "L40S, TFLOP/s, of our count in those seconds": round(ours / seconds),
        "one processor core of scale_kernel.json, TFLOP/s": round(
            global_tflop(anchored(200, ANCHORS))
            / 200
            / kernel["anchors"]["processor seconds a view"]["median"],
            3,
        ),
    }


def ways(views: int, speeds: Sequence[tuple[str, float]]) -> list[dict]:
    """Dense, one anchor set, small dense clusters, large clusters with anchors inside."""
    clusters = json.loads((record.RESULTS / "clusters.json").read_text())["graph"]
    small = clusters[-1]
    passes = math.ceil(small["clusters"] * views / small["pictures"])
    size = small["largest"]
    large = max(1, math.ceil(views / (CLUSTER - SHARED)) if views > CLUSTER else 1)
    of_large = min(CLUSTER, views)
    linear = linear_tflop() + DEPTH_HEAD_TFLOP
    # An anchor for each 20 views, as K = 25 of 500 was published to do as well as dense.
    ratio = 20
    rows = {
        "dense, one pass": views * linear
        + global_tflop(dense_plan(min(views, 1000), CONFIG.depth))
        * (views / min(views, 1000)) ** 2,
        f"one set of {ANCHORS} anchors": views * linear
        + views * global_tflop(anchored(1000, ANCHORS)) / 1000,
        f"one set, an anchor for each {ratio} views": views * linear
        + views * global_tflop(anchored(1000, 50)) / 1000 * views / ratio / 50,
        f"{passes} dense clusters of {size}": passes
        * (size * linear + global_tflop(dense_plan(size, CONFIG.depth))),
        f"{large} clusters of {of_large}, {max(ANCHORS, of_large // ratio)} anchors in each": large
        * (of_large * linear + global_tflop(anchored(of_large, max(ANCHORS, of_large // ratio)))),
    }
    return [
        {
            "way": name,
            "PFLOP": round(tflop / 1e3, 1),
            **{f"hours of one {name}": round(tflop / rate / 3600, 3) for name, rate in speeds},
        }
        for name, tflop in rows.items()
    ]


def around(views: int, speeds: Sequence[tuple[str, float]]) -> dict:
    """What the program that hands out the work holds, sends and does alone."""
    pixels = HEIGHT * WIDTH
    graph = json.loads((record.RESULTS / "clusters.json").read_text())["graph"][-1]
    times = views / graph["pictures"]
    overlap = 60 / (graph["pictures"] / graph["clusters"])
    sent, received = views * overlap * pixels * 3, views * overlap * pixels * 11
    return {
        "pixels held GB": round(views * pixels * 3 / 1e9, 1),
        "depth and confidence merged GB": round(views * pixels * 8 / 1e9, 1),
        "sent GB (dense clusters of 60, each view so often)": [
            round(sent / 1e9, 1),
            round(overlap, 2),
        ],
        "received GB": round(received / 1e9, 1),
        f"hours at {LINK_GBIT} Gbit/s": round((sent + received) * 8 / LINK_GBIT / 1e9 / 3600, 3),
        **{
            f"descriptors, hours of one {name}": round(views * encoder_tflop() / rate / 3600, 3)
            for name, rate in speeds
        },
        "descriptors GB (256 float32)": round(views * 256 * 4 / 1e9, 3),
        "links, hours, square law from clusters.json": round(
            graph["link_seconds"] * times**2 / 3600, 3
        ),
        "division, hours, square law from clusters.json": round(
            graph["divide_seconds"] * times**2 / 3600, 3
        ),
    }


def main() -> None:
    rate = rates()
    speeds = (
        ("L40S", rate["L40S, TFLOP/s, of our count in those seconds"]),
        ("H100", rate["H100, TFLOP/s, from published dense seconds"]),
    )
    data = {
        "assumed": {
            "network": "VGGT-1B, bf16, camera and depth heads",
            "size": [WIDTH, HEIGHT],
            "depth head TFLOP a view": DEPTH_HEAD_TFLOP,
            "H100 seconds, 200 views dense": H100_DENSE_SECONDS,
            "L40S seconds by views, anchors": L40S_ANCHORS,
            "link Gbit/s": LINK_GBIT,
            "large cluster": [CLUSTER, SHARED],
        },
        "a view": per_view(),
        "anchors": anchor_costs([25, 50, 100, 400, 5000]),
        "rates": rate,
        "images": {
            views: {"network": ways(views, speeds), "around it": around(views, speeds)}
            for views in (1_000, 100_000, 10_000_000)
        },
    }
    print(json.dumps(data, indent=1))
    print(record.write("scale_plan", data))


if __name__ == "__main__":
    main()
