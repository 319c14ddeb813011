"""Supervision that no shipped weight carries: who sees the same point, and where it is.

From scratch, pose sits on a plateau until attention has found correspondences, which the camera
loss alone teaches slowly (docs/LOG.md). Here they are taught directly, in the order in which a
network needs them:

- a head of the first frame blocks looks at the camera token, which alone tells the first view from
  the others, and a linear map finds in each patch whether its view is the first, and its place;
- in some global blocks one head of each patch looks at the patch of the first view that sees the
  same surface point, another at those of all views (cross-entropy over all that attention sees);
- behind each of these blocks a linear map is told where in the first view the patch is seen, if it
  is, so that what attention found is written down for the next block to refine, and one pooling of
  all patches, as a single head of attention could do it, is told the camera's pose;
- another, from the last tap, is told the patch's point in the first camera's frame.

The worlds know all of it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.aggregator import Tap
from ..model.config import VGGTConfig
from ..model.layers import Attention, Block, Tables
from ..model.vggt import VGGT
from .batch import Batch
from .losses import confident_mean

# A point is occluded in another view when that view sees something this much closer or farther.
DEPTH_TOLERANCE = 0.05


class Matches(NamedTuple):
    """For P patches of S views: where the point at a patch's middle is seen in every view.

    target  (B, S, P, S, 4) indices of the four patches around it in the view of axis 3.
    weight  (B, S, P, S, 4) their bilinear weights, zero where the point is not seen.
    """

    target: Tensor
    weight: Tensor


class Watched(NamedTuple):
    """Input, queries and keys of the taught heads of one block."""

    x: Tensor
    q: Tensor
    k: Tensor


@dataclass
class Seen:
    """What was watched in a forward pass: copies, so that losses end there and not in the network.

    Fields
        frames     of each taught frame block, in order; the views stand in the batch.
        attention  of each taught global block, in order.
        tokens     (B, S, P, width) that leave each of them.
        links      a tensor of the network and its copy, for each copy.
    """

    frames: list[Watched] = field(default_factory=list)
    attention: list[Watched] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    links: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def copy(self, tensor: Tensor) -> Tensor:
        """A leaf whose gradient belongs to ``tensor``."""
        leaf = tensor.detach().requires_grad_()
        self.links.append((tensor, leaf))
        return leaf


def patch_centers(value: Tensor, patch: int) -> Tensor:
    """(B, S, H, W, ...) at the pixel nearest to each patch's middle, (B, S, P, ...)."""
    middle = patch // 2
    return value[:, :, middle::patch, middle::patch].flatten(2, 3)


def true_matches(batch: Batch, patch: int) -> Matches:
    """Correspondences between the patches of all views, by depth, pose and visibility."""
    height, width = batch.depth.shape[-2:]
    rows, cols = batch.grid(patch)
    seen = patch_centers(batch.valid, patch)
    points = patch_centers(batch.points, patch)
    rotation, translation = batch.camera_from_first[..., :3], batch.camera_from_first[..., 3]
    # (B, S of the camera, S of the patch, P, 3)
    camera = torch.einsum("bjxy,bipy->bjipx", rotation, points) + translation[:, :, None, None]
    depth = camera[..., 2].clamp(min=1e-6)
    k = batch.intrinsics[:, :, None, None]
    u = camera[..., 0] / depth * k[..., 0, 0] + k[..., 0, 2]
    v = camera[..., 1] / depth * k[..., 1, 1] + k[..., 1, 2]
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    inside &= (camera[..., 2] > 1e-3) & seen[:, None]
    at_u = u.round().clamp(0, width - 1).long()
    at_v = v.round().clamp(0, height - 1).long()
    there = batch.depth.flatten(2).gather(2, (at_v * width + at_u).flatten(2)).view_as(depth)
    valid_there = batch.valid.flatten(2).gather(2, (at_v * width + at_u).flatten(2))
    same = (there - depth).abs() < DEPTH_TOLERANCE * depth
    visible = inside & same & valid_there.view_as(same)
    # Between patch middles, clamped at the border.
    x = ((u + 0.5) / patch - 0.5).clamp(0, cols - 1)
    y = ((v + 0.5) / patch - 0.5).clamp(0, rows - 1)
    left, top = x.floor().clamp(max=max(cols - 2, 0)), y.floor().clamp(max=max(rows - 2, 0))
    right, below = (left + 1).clamp(max=cols - 1), (top + 1).clamp(max=rows - 1)
    a, b = x - left, y - top
    corners = [(top, left), (top, right), (below, left), (below, right)]
    shares = [(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]
    target = torch.stack([(r * cols + c).long() for r, c in corners], dim=-1)
    weight = torch.stack(shares, dim=-1) * visible[..., None]
    return Matches(target.permute(0, 2, 3, 1, 4), weight.permute(0, 2, 3, 1, 4))


def match_loss(q: Tensor, k: Tensor, matches: Matches, special: int, first: bool) -> Tensor:
    """Cross-entropy of attention against the same surface point in the views that see it.

    Attention is taken over everything a query sees: a head that finds the match in another view
    but looks at itself has nothing to tell.

    Args:
        q, k: (B, heads, S * (special + P), width) queries and keys of the taught heads.
        matches: the truth.
        special: tokens before the patches of each view.
        first: the patches of the other views are to look at the first view alone. Otherwise all
            are to look at all views, and at themselves: nothing but its content tells a patch of
            the second view from one of the third.
    """
    views = matches.target.shape[1]
    own, seen = slice(int(first), None), slice(0, 1 if first else None)
    q = q.unflatten(2, (views, -1))[:, :, own, special:].float()
    scores = q.flatten(2, 3) @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    whole = scores.logsumexp(-1).unflatten(2, (q.shape[2], -1))
    # (B, heads, S, P, S, P): queries' view and patch, keys' view and patch
    scores = scores.unflatten(2, (q.shape[2], -1)).unflatten(-1, (views, -1))
    scores = scores[..., seen, special:]
    target = matches.target[:, None, own, :, seen].expand(-1, scores.shape[1], -1, -1, -1, -1)
    log_p = scores.gather(-1, target) - whole[..., None, None]
    weight = matches.weight[:, own, :, seen]
    weight = weight / weight.sum((-2, -1), keepdim=True).clamp(min=1)
    return -(log_p * weight[:, None]).sum() / scores.shape[1] / weight.sum().clamp(min=1)


def look_loss(q: Tensor, k: Tensor, special: int) -> Tensor:
    """How far the patches of single views are from looking at their view's camera token.

    Args:
        q, k: (B * S, heads, special + P, width) queries and keys of the taught heads.
        special: tokens before the patches, the camera's first.
    """
    scores = q[:, :, special:].float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores.logsumexp(-1) - scores[..., 0]).mean()


class _Enough(Exception):
    """Everything taught was seen: the rest of the network need not run."""


class Teacher(nn.Module):
    """Watches the taught heads during a forward pass and holds the maps from tokens to truths.

    Of a taught global block the first head looks at the first view and the second at all views; of
    the frame blocks up to there the last head looks at the camera token.

    Args:
        config: of the network.
        blocks: which global blocks are taught; by default the second to fourth.
    """

    def __init__(self, config: VGGTConfig, blocks: tuple[int, ...] = (1, 2, 3)):
        super().__init__()
        self.blocks = tuple(b for b in blocks if b < config.depth)
        self.frames = tuple(range(min(self.blocks) + 1))
        self.special = config.special_tokens
        self.patch = config.patch_size
        self.points = nn.Linear(2 * config.width, 4)
        self.places = nn.ModuleList(nn.Linear(config.width, 3) for _ in self.blocks)
        self.motions = nn.ModuleList(nn.Linear(config.width, 8) for _ in self.blocks)
        self.own = nn.ModuleList(nn.Linear(config.width, 3) for _ in self.blocks)
        for layer in (self.points, *self.places, *self.motions, *self.own):
            layer = cast(nn.Linear, layer)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def watch(self, model: VGGT, images: Tensor) -> Seen:
        """What the taught blocks do on (B, S, 3, H, W) images; runs the network no further."""
        with self.watching(model, stop=True) as seen, suppress(_Enough):
            model.aggregator(images)
        return seen

    @contextmanager
    def watching(self, model: VGGT, stop: bool = False) -> Iterator[Seen]:
        """Collects what the taught blocks do during a forward pass."""
        seen = Seen()

        def watch(heads: slice, found: list[Watched]) -> Callable[..., None]:
            def hook(attention: nn.Module, inputs: tuple[Tensor, Tables | None]) -> None:
                x, tables = seen.copy(inputs[0]), inputs[1]
                attention = cast(Attention, attention)
                q = attention.queries(x, tables)[:, heads]
                k = attention.keys_values(x, tables)[0][:, heads]
                found.append(Watched(x, q, k))

            return hook

        def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            seen.tokens.append(seen.copy(output))
            if stop and len(seen.tokens) == len(self.blocks):
                raise _Enough

        frames = [cast(Block, model.aggregator.frame_blocks[b]) for b in self.frames]
        blocks = [cast(Block, model.aggregator.global_blocks[b]) for b in self.blocks]
        hooks = [(b, watch(slice(-1, None), seen.frames)) for b in frames]
        hooks += [(b, watch(slice(0, 2), seen.attention)) for b in blocks]
        handles = [block.attn.register_forward_pre_hook(hook) for block, hook in hooks]
        handles += [block.register_forward_hook(keep) for block in blocks]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def match_loss(self, seen: Seen, matches: Matches) -> Tensor:
        """How far the taught heads are from attending to the same surface point."""
        losses = [
            match_loss(w.q[:, head : head + 1], w.k[:, head : head + 1], matches, self.special, one)
            for w in seen.attention
            for head, one in enumerate((True, False)[: w.q.shape[1]])
        ]
        return torch.stack(losses).mean()

    def look_loss(self, seen: Seen) -> Tensor:
        """How far the taught heads of the frame blocks are from looking at the camera token."""
        return torch.stack([look_loss(w.q, w.k, self.special) for w in seen.frames]).mean()

    def size_loss(self, seen: Seen) -> Tensor:
        """Mean square of the tokens that leave the taught blocks, as far as it is beyond 1.

        Left alone, special tokens grow a constant so large that what differs between pictures is a
        thousandth of them behind the next norm, and they learn no more.
        """
        beyond = [(t.float().square().mean(-1) - 1).clamp(min=0).mean() for t in seen.tokens]
        return torch.stack(beyond).mean()

    def own_loss(self, seen: Seen, grid: tuple[int, int]) -> Tensor:
        """How far the inputs of the taught blocks are from knowing their place and first view.

        Mean L1 of each patch's row and column, in its view's height and width, and of half a unit
        with the sign of whether its view is the first.

        Args:
            seen: what was watched.
            grid: rows and columns of a view's patches.
        """
        device = seen.attention[0].x.device
        axes = [(torch.arange(n, device=device) + 0.5) / n - 0.5 for n in grid]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
        errors = []
        for watched, layer in zip(seen.attention, self.own, strict=True):
            told = layer(watched.x[:, :, self.special :].float()).float()
            first = torch.full(told.shape[:3], -0.5, device=device)
            first[:, 0] = 0.5
            truth = torch.cat([place.expand(*told.shape[:2], -1, -1), first[..., None]], dim=-1)
            errors.append((told - truth).abs().sum(-1).mean())
        return torch.stack(errors).mean()

    def place_loss(self, seen: Seen, matches: Matches, grid: tuple[int, int]) -> Tensor:
        """How far the tokens are from knowing where the first view sees their patch, if it does.

        Mean L1 over the patches of the other views, in the first view's height and width, and a
        tenth of the cross-entropy of whether it is seen there at all.

        Args:
            seen: what was watched.
            matches: the truth.
            grid: rows and columns of a view's patches.
        """
        target, weight = matches.target[:, 1:, :, 0], matches.weight[:, 1:, :, 0]
        share = weight.sum(-1)
        corners = torch.stack([target // grid[1], target % grid[1]], dim=-1) + 0.5
        truth = (corners * weight[..., None]).sum(-2) / share.clamp(min=1e-6)[..., None]
        truth = truth / truth.new_tensor(grid) - 0.5
        losses = []
        for tokens, layer in zip(seen.tokens, self.places, strict=True):
            told = layer(tokens[:, 1:, self.special :].float()).float()
            error = ((told[..., :2] - truth).abs().sum(-1) * share).sum() / share.sum().clamp(min=1)
            visible = F.binary_cross_entropy_with_logits(told[..., 2], (share > 0.5).float())
            losses.append(error + 0.1 * visible)
        return torch.stack(losses).mean()

    def motion_loss(self, seen: Seen, batch: Batch) -> Tensor:
        """How far a pooling of each later view's patches is from the camera's pose.

        Mean L1 of translation and of quaternion. What a camera's turn and its way do to a picture
        differ by nearness alone, so patches must multiply what they know; the camera token alone
        teaches them that slowly.
        """
        losses = []
        for tokens, layer in zip(seen.tokens, self.motions, strict=True):
            told = layer(tokens[:, 1:, self.special :].float()).float()
            pose = (told[..., 7:].softmax(-2) * told[..., :7]).sum(-2)
            error = (pose - batch.pose[:, 1:, :7]).abs()
            losses.append(error[..., :3].mean() + error[..., 3:].mean())
        return torch.stack(losses).mean()

    def point_loss(self, tap: Tap, batch: Batch) -> Tensor:
        """Confidence-weighted error of each patch's point, from its token of the last tap."""
        answer = self.points(tap.tokens(first=self.special).float())
        confidence = 1 + answer[..., 3].clamp(max=10).exp()
        truth = patch_centers(batch.points, self.patch)
        valid = patch_centers(batch.valid, self.patch)
        error = ((answer[..., :3] - truth) * valid[..., None]).norm(dim=-1)
        return confident_mean(error, confidence, patch_centers(batch.weight, self.patch))
