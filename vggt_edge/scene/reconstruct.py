"""Views to a Scene: predict, then keep the points worth keeping."""

from __future__ import annotations

from typing import Literal

from ..model.vggt import VGGT
from ..predict import predict
from ..types import Scene, Views
from .fuse import fuse


def reconstruct(
    model: VGGT,
    views: Views,
    *,
    percentile: float = 20.0,
    mask_sky: bool = False,
    mask_edges: bool = True,
    max_points: int | None = 1_000_000,
    min_consistent_views: int = 0,
    source: Literal["depth", "points"] = "depth",
    progress: bool = False,
) -> Scene:
    """Cameras, depth and a filtered, coloured point cloud of a set of views, in one pass.

    Args:
        model: from ``load``, with camera and depth heads, and for ``source="points"`` a point head.
        views: from ``read_views``; the first one fixes the world frame.
        percentile: share of pixels with the lowest confidence to drop; see ``fuse`` for it and for
            ``mask_sky``, ``mask_edges``, ``max_points``, ``min_consistent_views`` and ``source``.
        progress: show a bar on standard error for work over two seconds.

    Raises:
        InputError: a head that is needed is missing, or views of a size the model cannot take.
        TooLargeError: when the run would not fit in memory.
    """
    heads = ("camera", "depth") if source == "depth" else ("camera", "depth", "point")
    prediction = predict(model, views, heads=heads, progress=progress)
    return fuse(
        prediction,
        percentile=percentile,
        mask_sky=mask_sky,
        mask_edges=mask_edges,
        max_points=max_points,
        min_consistent_views=min_consistent_views,
        source=source,
    )
