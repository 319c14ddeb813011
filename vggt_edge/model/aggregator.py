"""Alternating attention: within each view, then across all views, again and again."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..sparse_plan import SparsePlan
from ..types import TokenLayout
from . import sparse
from .config import VGGTConfig
from .layers import Block
from .rope import rotary_tables
from .vit import VisionTransformer


class Tap(NamedTuple):
    """Outputs (B, S, P, width) of one alternating pair, its frame block's and its global block's.

    Kept in the precision of the weights.
    """

    frame: Tensor
    across: Tensor

    def tokens(self, views: slice = slice(None), first: int = 0, last: int | None = None) -> Tensor:
        """(B, S', P', 2 * width) of the chosen views and tokens."""
        return torch.cat([self.frame[:, views, first:last], self.across[:, views, first:last]], -1)


class Aggregator(nn.Module):
    """Encoder and alternating attention; keeps the tapped pairs and nothing else."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        self.config = config
        width, heads = config.width, config.attention_heads
        self.patch_embed = VisionTransformer(config)
        self.frame_blocks = nn.ModuleList(
            Block(width, heads, scale=0.01, qk_norm=True) for _ in range(config.depth)
        )
        self.global_blocks = nn.ModuleList(
            Block(width, heads, scale=0.01, qk_norm=True) for _ in range(config.depth)
        )
        # Slot 0 belongs to the first view, which fixes the world frame; slot 1 to all others.
        # Not randn() * 1e-6: a product on the meta device imports torch's compiler, a second.
        self.camera_token = nn.Parameter(torch.normal(0.0, 1e-6, (1, 2, 1, width)))
        self.register_token = nn.Parameter(torch.normal(0.0, 1e-6, (1, 2, config.registers, width)))

    def layout(self, images: Tensor) -> TokenLayout:
        """Arrangement of the tokens of (B, S, 3, H, W) images."""
        patch = self.config.patch_size
        views, height, width = images.shape[1], images.shape[3], images.shape[4]
        return TokenLayout(views, self.config.special_tokens, height // patch, width // patch)

    def special_tokens(self, batch: int, views: int, firsts: int = 1) -> Tensor:
        """(batch, views, 1 + registers, width) float32: camera and register tokens."""
        both = torch.cat([self.camera_token, self.register_token], dim=2).float()
        first = both[:, :1].expand(batch, firsts, -1, -1)
        others = both[:, 1:].expand(batch, views - firsts, -1, -1)
        return torch.cat([first, others], dim=1)

    def embed(self, images: Tensor, chunk: int | None, firsts: int = 1) -> Tensor:
        """(B, S, 3, H, W) images to (B, S, P, width) tokens, special ones first."""
        batch, views = images.shape[:2]
        flat = images.flatten(0, 1)
        parts = [self.patch_embed(part) for part in flat.split(chunk or len(flat))]
        patches = torch.cat(parts).unflatten(0, (batch, views))
        return torch.cat([self.special_tokens(batch, views, firsts), patches], dim=2)

    def forward(
        self,
        images: Tensor,
        chunk: int | None = None,
        plan: SparsePlan | None = None,
        cache: sparse.KeyCache | None = None,
    ) -> list[Tap]:
        """Tapped pairs, in order.

        Args:
            images: (B, S, 3, H, W) in [0, 1], or uint8; H and W multiples of the patch size.
            chunk: views in flight at a time, which bounds memory (inference only); None for all.
            plan: which keys each view sees (inference only); every view sees all when None.
            cache: of the anchors' keys. Views that come when it is filled are not the first view.
        """
        layout = self.layout(images)
        head_width = self.config.width // self.config.attention_heads
        tables = rotary_tables(layout, head_width, images.device)
        kept_as = self.camera_token.dtype
        if plan is not None:
            chunk = chunk or layout.views
            reach = sparse.Reach(plan, layout, cache)
        elif chunk is not None and chunk >= images.shape[0] * images.shape[1]:
            chunk = None  # all in flight at once: nothing to save
        tokens = self.embed(images, chunk, firsts=0 if cache is not None and cache.filled else 1)
        taps = []
        for index in range(self.config.depth):
            # (B * S, 1, P, width): a batch of single views, which cannot see each other.
            alone = tokens.flatten(0, 1).unsqueeze(1)
            tokens = self._step(self.frame_blocks[index], alone, tables, chunk).view_as(tokens)
            tapped = index in self.config.taps
            frame = tokens.to(kept_as, copy=chunk is not None) if tapped else tokens
            block = cast(Block, self.global_blocks[index])
            if plan is not None:
                layer = plan.layers[index]
                sparse.update(block, tokens, tables, chunk or 1, layer, reach, f"global.{index}")
            elif chunk is None:
                tokens = block(tokens, tables)
            else:
                block.update(tokens, tables, chunk)
            if tapped:
                last = index == self.config.depth - 1
                taps.append(Tap(frame, tokens.to(kept_as, copy=chunk is not None and not last)))
        return taps

    @staticmethod
    def _step(
        block: nn.Module, alone: Tensor, tables: tuple[Tensor, Tensor], chunk: int | None
    ) -> Tensor:
        """A frame block on every view, in place when chunked."""
        if chunk is None:
            return block(alone, tables)
        for start in range(0, len(alone), chunk):
            part = alone[start : start + chunk]
            part.copy_(block(part, tables))
        return alone
