"""A block whose views see some of the keys only: the executor of a ``SparsePlan``.

Works in place and a few views at a time, like ``Block.update``, and holds the keys and values that
are seen by others and no more. With the anchors' keys kept in a ``KeyCache``, further views can be
run later, alone or a few at a time, with the result they would have had together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..sparse_plan import LayerPlan, SparsePlan, kept_tokens
from ..types import TokenLayout
from . import attend, merge
from .layers import Block, Tables


class Keys(NamedTuple):
    """(B, heads, shared + room, head width): the first ``shared`` are what all views see."""

    k: Tensor
    v: Tensor
    shared: int


@dataclass
class KeyCache:
    """What views that come later need of the anchors: their keys and values in every layer.

    The first run with an empty cache must be the anchors' and fills it; later runs read it.
    """

    entries: dict[str, Keys] = field(default_factory=dict)
    filled: bool = False

    @property
    def nbytes(self) -> int:
        """Size on the device."""
        return sum(keys.k.nbytes + keys.v.nbytes for keys in self.entries.values())

    def tensors(self) -> dict[str, Tensor]:
        """The shared keys and values by name, for a file or another process."""
        found = {}
        for name, (k, v, count) in self.entries.items():
            found[f"{name}.k"] = k[:, :, :count].contiguous()
            found[f"{name}.v"] = v[:, :, :count].contiguous()
        return found

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> KeyCache:
        """Inverse of ``tensors``."""
        names = sorted({name.rpartition(".")[0] for name in tensors})
        entries = {}
        for name in names:
            k, v = tensors[f"{name}.k"], tensors[f"{name}.v"]
            entries[name] = Keys(k, v, k.shape[2])
        return KeyCache(entries, filled=True)


class Reach(NamedTuple):
    """Where a run stands: its plan, the arrangement of its tokens and the cache, if any."""

    plan: SparsePlan
    layout: TokenLayout
    cache: KeyCache | None = None


def update(
    block: Block,
    x: Tensor,
    tables: Tables | None,
    chunk: int,
    layer: LayerPlan,
    reach: Reach,
    name: str,
) -> None:
    """Run a block in place on (B, V, P, width) tokens, ``chunk`` views in flight at a time.

    Args:
        block: of the aggregator or the camera head.
        x: float32 tokens.
        tables: rotary tables.
        chunk: views in flight.
        layer: what is seen.
        reach: of this run.
        name: the layer's in the cache.
    """
    if layer.keys == "frame":
        for start in range(0, x.shape[1], chunk):
            part = x[:, start : start + chunk]
            part.copy_(block(part.flatten(0, 1).unsqueeze(1), tables).view_as(part))
    elif layer.keys == "merge":
        for row in x.split(1):
            merge.update(block, row, tables, chunk, layer.merged, reach.layout)
    elif layer.keys == "neighbours":
        _update_listed(block, x, tables, chunk, layer, reach)
    else:
        _update_shared(block, x, tables, chunk, layer, reach, name)


def _collect(
    block: Block,
    x: Tensor,
    tables: Tables | None,
    chunk: int,
    parts: Sequence[tuple[Sequence[int], Tensor]],
    room: int = 0,
) -> Keys:
    """Keys and values of (views, tokens) in turn, in one piece with ``room`` at its end."""
    shared = sum(len(views) * len(tokens) for views, tokens in parts)
    keys: Keys | None = None
    at = 0
    for views, tokens in parts:
        for start in range(0, len(views), chunk):
            some = x[:, list(views[start : start + chunk])]
            k, v = block.attn.keys_values(block.norm1(some), tables)
            if keys is None:
                shape = (*k.shape[:2], shared + room, k.shape[3])
                keys = Keys(k.new_empty(shape), v.new_empty(shape), shared)
            stop = at + some.shape[1] * len(tokens)
            for whole, one in ((keys.k, k), (keys.v, v)):
                kept = one.unflatten(2, some.shape[1:3])[:, :, :, tokens]
                whole[:, :, at:stop] = kept.flatten(2, 3)
            at = stop
    if keys is None:
        raise ValueError("a plan of anchors without any needs a cache that they have filled")
    return keys


def _with_room(keys: Keys, room: int) -> Keys:
    k, v, count = keys
    if k.shape[2] >= count + room:
        return keys
    free = k.new_empty(*k.shape[:2], room, k.shape[3])
    return Keys(torch.cat([k, free], dim=2), torch.cat([v, free], dim=2), count)


def _update_shared(
    block: Block,
    x: Tensor,
    tables: Tables | None,
    chunk: int,
    layer: LayerPlan,
    reach: Reach,
    name: str,
) -> None:
    kept, rest = _kept_and_rest(reach.layout, layer, x.device)
    cache = reach.cache
    seen_views: frozenset[int] = frozenset()
    if cache is not None and cache.filled:
        keys = cache.entries[name] = _with_room(cache.entries[name], x.shape[2] * layer.own)
    else:
        views = reach.plan.key_views(layer, 0)
        seen_views = frozenset(views)
        parts: list[tuple[Sequence[int], Tensor]] = [(views, kept)]
        if layer.first:
            parts.append(([0], rest))
        keys = _collect(block, x, tables, chunk, parts, room=x.shape[2] * layer.own)
        if cache is not None:
            cache.entries[name] = keys
    everything = torch.arange(x.shape[2], device=x.device)
    alone = {"nothing": everything[:0], "rest": rest, "everything": everything}
    whole = {0} if layer.first else set()  # views whose tokens are all shared

    def sees_alone(view: int) -> str:
        """Which of its own tokens a view sees that are not shared."""
        if not layer.own or view in whole:
            return "nothing"
        if view in seen_views:
            return "rest" if len(rest) else "nothing"
        return "everything"

    for start in range(0, x.shape[1], chunk):
        part = x[:, start : start + chunk]
        shape = part.shape[1:3]
        normed = block.norm1(part)
        q = block.attn.queries(normed, tables).unflatten(2, shape)
        groups: dict[str, list[int]] = {}
        for i in range(part.shape[1]):
            groups.setdefault(sees_alone(start + i), []).append(i)
        own: list[Tensor] = []
        if set(groups) != {"nothing"}:
            pair = block.attn.keys_values(normed, tables)
            own = [one.unflatten(2, shape) for one in pair]
        seen = torch.empty_like(q)
        for kind, here in groups.items():
            asking = q if len(here) == part.shape[1] else q[:, :, here]
            if kind == "nothing":
                k, v = keys.k[:, :, : keys.shared], keys.v[:, :, : keys.shared]
                found = attend.dense(asking.flatten(2, 3), k, v).unflatten(2, asking.shape[2:4])
            else:
                own_k, own_v = (one[:, :, here][:, :, :, alone[kind]] for one in own)
                found = attend.with_own(asking, *keys, own_k, own_v)
            seen[:, :, here] = found
        _finish(block, part, seen.flatten(2, 3))


def _update_listed(
    block: Block, x: Tensor, tables: Tables | None, chunk: int, layer: LayerPlan, reach: Reach
) -> None:
    kept, rest = _kept_and_rest(reach.layout, layer, x.device)
    bank = _collect(block, x, tables, chunk, [(range(x.shape[1]), kept)])
    bank_k, bank_v = (part.unflatten(2, (x.shape[1], -1)) for part in bank[:2])
    for start in range(0, x.shape[1], chunk):
        part = x[:, start : start + chunk]
        normed = block.norm1(part)
        shape = part.shape[1:3]
        q = block.attn.queries(normed, tables).unflatten(2, shape)
        own_k, own_v = (t.unflatten(2, shape) for t in block.attn.keys_values(normed, tables))
        seen = torch.empty_like(q)
        for here in range(part.shape[1]):
            view = start + here
            listed = list(reach.plan.neighbours[view])
            k, v = bank_k[:, :, listed].flatten(2, 3), bank_v[:, :, listed].flatten(2, 3)
            if layer.own:
                tokens = rest if view in listed else slice(None)
                k = torch.cat([k, own_k[:, :, here, tokens]], dim=2)
                v = torch.cat([v, own_v[:, :, here, tokens]], dim=2)
            seen[:, :, here] = attend.dense(q[:, :, here], k, v)
        _finish(block, part, seen.flatten(2, 3))


def _finish(block: Block, part: Tensor, seen: Tensor) -> None:
    """The rest of the block, in place, after its queries have seen what they may."""
    block.ls1.add_(part, block.attn.merge(seen).view_as(part))
    block.ls2.add_(part, block.mlp(block.norm2(part)))


def _kept_and_rest(
    layout: TokenLayout, layer: LayerPlan, device: torch.device
) -> tuple[Tensor, Tensor]:
    kept = kept_tokens(layout, layer.stride)
    rest = np.setdiff1d(np.arange(layout.per_view), kept)
    return torch.from_numpy(kept).to(device), torch.from_numpy(rest).to(device)
