"""Which keys each view's queries see, layer by layer: a plan as plain data, and what it costs.

A plan is made for one set of views by ``sparsity`` and executed by ``model/sparse.py``. A layer
whose views see every key of every view is dense attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .types import TokenLayout

KINDS = ("all", "frame", "anchors", "neighbours", "merge")


@dataclass(frozen=True)
class LayerPlan:
    """What the queries of one global layer see. Special tokens of a key view are always kept.

    Fields
        keys    "all" views, the view's own "frame" alone, the "anchors", the view's "neighbours",
                or "merge": all views, after tokens that are alike have been merged.
        stride  (rows, cols) of the grid on which the patch tokens of key views are kept.
        own     whether a view sees all its own tokens besides; those it sees anyway count once.
        first   whether the first view's tokens are all kept whatever the stride ("all" only).
        merged  share of all tokens to merge away, at most ("merge" only).
    """

    keys: str = "all"
    stride: tuple[int, int] = (1, 1)
    own: bool = True
    first: bool = False
    merged: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", tuple(self.stride))
        if self.keys not in KINDS:
            raise ValueError(f"keys must be one of {', '.join(KINDS)}, got {self.keys!r}")
        if len(self.stride) != 2 or min(self.stride) < 1:
            raise ValueError(f"stride must be two numbers from 1, got {self.stride}")
        if self.first and self.keys != "all":
            raise ValueError("only a layer that sees all views can keep the first one whole")
        if not 0 <= self.merged <= 1:
            raise ValueError(f"merged must be a share in [0, 1], got {self.merged}")


@dataclass(frozen=True)
class SparsePlan:
    """The keys of every query, for one set of views.

    Fields
        views       S, the number of views planned for.
        layers      one entry a global layer of the aggregator.
        camera      the same for the camera head, whose tokens are one a view.
        anchors     increasing view indices; the keys of layers of kind "anchors".
        neighbours  S tuples of increasing view indices, for layers of kind "neighbours".
    """

    views: int
    layers: tuple[LayerPlan, ...]
    camera: LayerPlan = LayerPlan()
    anchors: tuple[int, ...] = ()
    neighbours: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        kinds = {layer.keys for layer in (*self.layers, self.camera)}
        for name, lists in (("anchors", (self.anchors,)), ("neighbours", self.neighbours)):
            for listed in lists:
                inside = all(0 <= view < self.views for view in listed)
                if list(listed) != sorted(set(listed)) or not inside:
                    raise ValueError(f"{name} must be increasing indices below {self.views}")
        if "neighbours" in kinds and len(self.neighbours) != self.views:
            raise ValueError(f"{len(self.neighbours)} lists of neighbours for {self.views} views")
        if self.camera.keys in ("merge", "frame") or self.camera.stride != (1, 1):
            raise ValueError("the camera head has one token a view: its keys are all or anchors")

    def key_views(self, layer: LayerPlan, view: int) -> tuple[int, ...]:
        """The views whose (kept) tokens the queries of ``view`` see in ``layer``, own apart."""
        if layer.keys == "frame":
            return (view,)
        if layer.keys == "anchors":
            return self.anchors
        if layer.keys == "neighbours":
            return self.neighbours[view]
        return tuple(range(self.views))

    @property
    def streams(self) -> bool:
        """Whether views other than the anchors are never keys, so that they can come one by one."""
        kinds = {layer.keys for layer in (*self.layers, self.camera)}
        return bool(self.anchors) and kinds <= {"frame", "anchors"}

    def anchors_alone(self) -> SparsePlan:
        """The plan of the anchors as a set of their own."""
        count = len(self.anchors)
        return replace(self, views=count, anchors=tuple(range(count)), neighbours=())

    def others(self, views: int) -> SparsePlan:
        """The plan of ``views`` further views, the anchors' keys being at hand already."""
        return replace(self, views=views, anchors=(), neighbours=())


def kept_tokens(layout: TokenLayout, stride: tuple[int, int]) -> np.ndarray:
    """Increasing indices of a view's tokens that stay as keys: special ones, and the grid's."""
    rows, cols = np.arange(0, layout.rows, stride[0]), np.arange(0, layout.cols, stride[1])
    grid = layout.special + rows[:, None] * layout.cols + cols
    return np.concatenate([np.arange(layout.special), grid.ravel()])


class Roles(NamedTuple):
    """Parts of the S * P tokens in token merging, as increasing flat indices.

    ``targets`` take others in, ``alone`` stay as they are, ``sources`` may be merged away.
    """

    targets: np.ndarray
    alone: np.ndarray
    sources: np.ndarray


def merge_roles(layout: TokenLayout) -> Roles:
    """Who merges into whom, after FastVGGT (Shen et al. 2025), without its random draw.

    Targets are all tokens of the first view, the special tokens of every view and one patch of each
    2 x 2 cell, another one from view to view; every tenth token is left alone.
    """
    view, token = np.divmod(np.arange(layout.views * layout.per_view), layout.per_view)
    row, col = np.divmod(token - layout.special, max(layout.cols, 1))
    corner = (view + row // 2 + col // 2) % 4
    target = (view == 0) | (token < layout.special) | ((row % 2) * 2 + col % 2 == corner)
    alone = ~target & (np.arange(len(token)) % 10 == 0)
    return Roles(*(np.flatnonzero(part) for part in (target, alone, ~target & ~alone)))


class AttentionCost(NamedTuple):
    """Of the global layers alone: what differs between plans.

    ``flops``: multiplications and additions of scores and weighted sums, and of matching.
    ``key_bytes``: the most that the keys and values of one layer take at a time.
    """

    flops: float
    key_bytes: int


def _keys_seen(plan: SparsePlan, layer: LayerPlan, layout: TokenLayout, view: int) -> int:
    if layer.keys == "frame":
        return layout.per_view
    kept, seen = len(kept_tokens(layout, layer.stride)), plan.key_views(layer, view)
    count = kept * len(seen)
    if layer.first:
        count += layout.per_view - kept
    if layer.own and not (layer.first and view == 0):
        count += layout.per_view - kept * (view in seen)
    return count


def attention_cost(
    plan: SparsePlan, layout: TokenLayout, width: int, itemsize: int = 4
) -> AttentionCost:
    """Count what the global layers of one pass over ``layout`` cost under ``plan``.

    Args:
        plan: for ``layout.views`` views.
        layout: of the tokens.
        width: of the aggregator.
        itemsize: bytes of a key's number.
    """
    flops, most = 0.0, 0
    for layer, times in _distinct(plan.layers):
        if layer.keys == "merge":
            roles = merge_roles(layout)
            total = layout.views * layout.per_view
            left = total - min(len(roles.sources), round(layer.merged * total))
            matching = 2.0 * len(roles.sources) * len(roles.targets) * width
            flops += times * (matching + 4.0 * left * left * width)
            most = max(most, left)
            continue
        seen = [_keys_seen(plan, layer, layout, view) for view in range(layout.views)]
        flops += times * 4.0 * layout.per_view * width * float(sum(seen))
        if layer.keys == "frame":
            continue
        kept = len(kept_tokens(layout, layer.stride))
        held = len(plan.anchors) if layer.keys == "anchors" else layout.views
        most = max(most, held * kept + (layout.per_view if layer.own else 0))
    return AttentionCost(flops, 2 * most * width * itemsize)


def _distinct(layers: tuple[LayerPlan, ...]) -> list[tuple[LayerPlan, int]]:
    return [(layer, layers.count(layer)) for layer in dict.fromkeys(layers)]


def dense_plan(views: int, depth: int) -> SparsePlan:
    """Every view sees everything, in ``depth`` layers."""
    return SparsePlan(views, (LayerPlan(),) * depth)
