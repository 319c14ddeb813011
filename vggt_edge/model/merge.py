"""Token merging in a global block, after FastVGGT (Shen et al. 2025) and ToMe (Bolya et al. 2023).

Tokens that are alike are averaged (queries, keys and values), attend as one, and share the answer.
Beside the reduced set it holds one matrix of similarities of a few rows at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sparse_plan import merge_roles
from ..types import TokenLayout
from . import attend
from .layers import Block, Tables

SIMILARITIES_AT_ONCE = 1 << 24


def destinations(tokens: Tensor, share: float, layout: TokenLayout) -> Tensor:
    """(N,) index, among the tokens that stay, of the one that answers for each token.

    Args:
        tokens: (N, width) what likeness is judged by, N = S * P.
        share: of all tokens that are merged away, at most; the most alike first.
        layout: their arrangement.
    """
    device = tokens.device
    targets, _, sources = (torch.from_numpy(part).to(device) for part in merge_roles(layout))
    merged = min(len(sources), round(share * len(tokens)))
    directions = F.normalize(tokens.float(), dim=-1)
    goal = directions[targets]
    step = max(1, SIMILARITIES_AT_ONCE // len(targets))
    best = [(directions[part] @ goal.T).max(dim=1) for part in sources.split(step)]
    answer = torch.arange(len(tokens), device=device)
    if merged:
        likeness = torch.cat([one.values for one in best])
        nearest = targets[torch.cat([one.indices for one in best])]
        chosen = likeness.topk(merged).indices
        answer[sources[chosen]] = nearest[chosen]
    stays = answer == torch.arange(len(tokens), device=device)
    return (stays.cumsum(0) - 1)[answer]


def update(
    block: Block, x: Tensor, tables: Tables | None, chunk: int, share: float, layout: TokenLayout
) -> None:
    """Run a block in place on (1, V, P, width) tokens, with merged tokens seen as one.

    Raises:
        ValueError: for more than one set of views at a time.
    """
    if len(x) != 1:
        raise ValueError(f"tokens of one set of views are merged at a time, got {len(x)}")
    views, per_view = x.shape[1:3]
    normed = torch.cat([block.norm1(part).flatten(1, 2)[0] for part in x.split(chunk, dim=1)])
    where = destinations(normed, share, layout)
    del normed
    count = int(where.max()) + 1
    size = torch.bincount(where, minlength=count)[:, None]
    sums: list[Tensor] = []
    for start in range(0, views, chunk):
        part = block.norm1(x[:, start : start + chunk])
        triple = (block.attn.queries(part, tables), *block.attn.keys_values(part, tables))
        here = where[start * per_view : (start + chunk) * per_view]
        for i, one in enumerate(triple):
            if len(sums) <= i:
                sums.append(one.new_zeros(one.shape[1], count, one.shape[3], dtype=torch.float32))
            sums[i].index_add_(1, here, one[0].float())
    dtype = triple[0].dtype
    q, k, v = ((total / size).to(dtype)[None] for total in sums)
    seen = attend.dense(q, k, v)
    for start in range(0, views, chunk):
        part = x[:, start : start + chunk]
        here = where[start * per_view : (start + chunk) * per_view]
        block.ls1.add_(part, block.attn.merge(seen[:, :, here]).view_as(part))
        block.ls2.add_(part, block.mlp(block.norm2(part)))
