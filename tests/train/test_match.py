"""Correspondences against geometry, and the losses that teach them."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG

from vggt_edge import geometry
from vggt_edge.model.vggt import VGGT
from vggt_edge.train.batch import make_batch
from vggt_edge.train.curriculum import Stage
from vggt_edge.train.initialize import initialize
from vggt_edge.train.match import (
    Seen,
    Teacher,
    Watched,
    look_loss,
    match_loss,
    patch_centers,
    true_matches,
)
from vggt_edge.train.trainer import TrainConfig, Trainer
from vggt_edge.worlds import render

PATCH = 14
TAUGHT = ("look", "own", "match", "place", "motion")
CONFIG = dataclasses.replace(TINY_CONFIG, depth=5, taps=(0, 1, 2, 4), heads=("camera", "depth"))


@pytest.fixture(scope="module")
def batch():
    return make_batch(render(7, 2, 3, 84, 112, overlap=0.8))


def test_matches_agree_with_geometry(batch):
    matches = true_matches(batch, PATCH)
    rows, cols = 84 // PATCH, 112 // PATCH
    v, u = np.divmod(np.arange(rows * cols), cols)
    points = patch_centers(batch.points, PATCH)
    checked = 0
    for j in range(3):
        seen = geometry.project(
            points[1, 0].double().numpy(),
            batch.intrinsics[1, j].double().numpy(),
            batch.camera_from_first[1, j].double().numpy(),
        )
        weight = matches.weight[1, 0, :, j].numpy()
        visible = weight.sum(-1) > 0
        assert np.allclose(weight[visible].sum(-1), 1, atol=1e-5)
        target = matches.target[1, 0, :, j].numpy()
        at_u = (weight * u[target]).sum(-1) * PATCH + PATCH / 2 - 0.5
        at_v = (weight * v[target]).sum(-1) * PATCH + PATCH / 2 - 0.5
        # Nearer to the border than half a patch there is no patch middle to interpolate to.
        inner = visible & (seen[:, 0] > 7) & (seen[:, 0] < 104) & (seen[:, 1] > 7)
        inner &= seen[:, 1] < 76
        assert np.allclose(at_u[inner], seen[inner, 0], atol=1e-2)
        assert np.allclose(at_v[inner], seen[inner, 1], atol=1e-2)
        checked += inner.sum()
    assert checked > 60


def test_a_view_matches_itself(batch):
    matches = true_matches(batch, PATCH)
    own = matches.weight[:, torch.arange(3), :, torch.arange(3)]
    seen = patch_centers(batch.valid, PATCH).transpose(0, 1)
    assert torch.equal(own.sum(-1) > 0.5, seen)


@pytest.mark.parametrize("first", [True, False])
def test_attention_that_knows_the_matches_loses_least(batch, first):
    """Queries made of the keys of their true matches beat blind ones and those of themselves."""
    matches = true_matches(batch, PATCH)
    per_view, special, views = matches.target.shape[2], 3, 3
    width = views * per_view
    k = torch.zeros(2, 1, views, special + per_view, width)
    k[:, 0, :, special:] = torch.eye(width).unflatten(0, (views, per_view))
    k = k.flatten(2, 3)
    # What a query should look at: (scenes, view, patch, view, patch).
    truth = torch.zeros(2, views, per_view, views, per_view)
    truth.scatter_add_(-1, matches.target, matches.weight)
    if first:
        truth[:, 0] = 0  # the first view's own patches are told nothing
        truth[:, :, :, 1:] = 0
    share = truth.sum((-2, -1), keepdim=True).clamp(min=1)
    truth = truth / share
    own = torch.eye(width).unflatten(0, (views, per_view)).expand(2, -1, -1, -1)

    def loss(wanted: torch.Tensor) -> float:
        q = torch.zeros(2, 1, views, special + per_view, width)
        q[:, 0, :, special:] = wanted * width**0.5  # undoes the scale of attention
        return float(match_loss(q.flatten(2, 3), k, matches, special, first))

    blind = loss(torch.zeros_like(own))
    assert blind == pytest.approx(np.log(views * (special + per_view)), rel=1e-4)
    # Log-probabilities as logits: attention is the truth, and the loss is its entropy.
    known = loss(truth.flatten(3).clamp(min=1e-9).log() + 30)  # special tokens stay at 0
    seen = truth.sum((-2, -1)).flatten()
    entropy = -(truth * truth.clamp(min=1e-9).log()).sum((-2, -1)).flatten()
    assert known == pytest.approx(float((entropy * seen).sum() / seen.sum()), abs=1e-3)
    assert known < blind < loss(20 * own)


def test_looking_at_the_camera_token_alone_loses_nothing():
    special, patches, width = 3, 10, 8
    k = torch.zeros(2, 1, special + patches, width)
    k[:, :, 0, 0] = 1
    q = torch.zeros_like(k)
    assert float(look_loss(q, k, special)) == pytest.approx(np.log(special + patches))
    q[..., 0] = 100
    assert float(look_loss(q, k, special)) < 1e-6


def test_tokens_that_know_themselves_lose_nothing(batch):
    teacher = Teacher(CONFIG, blocks=(0,))
    grid = batch.grid(PATCH)
    x = torch.zeros(2, 3, CONFIG.special_tokens + grid[0] * grid[1], CONFIG.width)
    n = torch.arange(grid[0] * grid[1])
    x[:, :, CONFIG.special_tokens :, 0] = (n // grid[1] + 0.5) / grid[0] - 0.5
    x[:, :, CONFIG.special_tokens :, 1] = (n % grid[1] + 0.5) / grid[1] - 0.5
    x[:, :, :, 2] = -0.5
    x[:, 0, :, 2] = 0.5
    seen = Seen(attention=[Watched(x, x, x)])
    assert 0.9 < teacher.own_loss(seen, grid) < 1.1  # a quarter, a quarter and a half
    with torch.no_grad():
        teacher.own[0].weight[:, :3] = torch.eye(3)
    assert teacher.own_loss(seen, grid) < 1e-6


def test_small_tokens_lose_nothing_and_large_ones_shrink(batch):
    teacher = Teacher(CONFIG)
    small = torch.full((1, 2, 9, CONFIG.width), 0.9)
    assert teacher.size_loss(Seen(tokens=[small, -small])) == 0
    large = small.clone()
    large[:, :, 0] = 300
    large.requires_grad_()
    loss = teacher.size_loss(Seen(tokens=[large]))
    assert float(loss.detach()) == pytest.approx((300**2 - 1) / 9)
    loss.backward()
    assert (large.grad[:, :, 0] > 0).all() and not large.grad[:, :, 1:].any()


def test_watching_stops_after_what_is_taught(batch):
    """What a short run sees is what a whole run sees; nothing behind it is touched by its step."""
    stages = (Stage(10**9, (2,), (42**2,), 4 * 42**2, (0.4, 0.8), 0.0, matching=True, rate=2.0),)
    config = TrainConfig(steps=10, warmup=1, decay=1, bf16=False)
    trainer = Trainer(initialize(VGGT(CONFIG), seed=0), config, stages)
    model, teacher = trainer.model, trainer.teacher
    with teacher.watching(model) as whole:
        model.aggregator(batch.images)
    short = teacher.watch(model, batch.images)
    assert len(short.frames) == len(teacher.frames)
    watched = zip(short.frames + short.attention, whole.frames + whole.attention, strict=True)
    for ours, theirs in watched:
        assert torch.equal(ours.q, theirs.q) and torch.equal(ours.k, theirs.k)
    assert all(map(torch.equal, short.tokens, whole.tokens))
    assert len(short.tokens) == len(teacher.blocks)
    last = teacher.blocks[-1]
    block = model.aggregator.global_blocks[last]
    assert not block._forward_hooks and not block.attn._forward_pre_hooks

    before = copy.deepcopy(model.state_dict())
    values = [trainer.train_step([batch]) for _ in range(8)]
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert f"aggregator.global_blocks.{last}.attn.qkv.weight" in changed
    assert f"aggregator.global_blocks.{last}.mlp.fc2.weight" in changed
    assert f"aggregator.frame_blocks.{last + 1}.norm1.weight" not in changed
    assert not any("head" in name for name in changed)
    assert all(values[-1][name] < values[0][name] for name in TAUGHT)
    assert "depth" not in values[0] and values[0]["rate"] == pytest.approx(2 * 6e-4)


def test_tokens_that_know_their_place_in_the_first_view_lose_nothing(batch):
    matches = true_matches(batch, PATCH)
    grid = (batch.depth.shape[2] // PATCH, batch.depth.shape[3] // PATCH)
    teacher = Teacher(CONFIG, blocks=(0,))
    seen = matches.weight[:, 1:, :, 0].sum(-1) > 0.999
    assert seen.any()
    # By geometry: a patch's middle, moved into the first view.
    points = patch_centers(batch.points, PATCH)[:, 1:]
    k = batch.intrinsics[:, 0, None, None]
    u = points[..., 0] / points[..., 2] * k[..., 0, 0] + k[..., 0, 2]
    v = points[..., 1] / points[..., 2] * k[..., 1, 1] + k[..., 1, 2]
    height, width = batch.depth.shape[2:]
    # The middles of the outermost patches are as far as a match can be told.
    low, high = 0.5, torch.tensor(grid) - 0.5
    row = ((v + 0.5) / height * grid[0]).clamp(low, float(high[0])) / grid[0] - 0.5
    col = ((u + 0.5) / width * grid[1]).clamp(low, float(high[1])) / grid[1] - 0.5
    tokens = torch.zeros(2, 3, CONFIG.special_tokens + grid[0] * grid[1], CONFIG.width)
    tokens[:, 1:, CONFIG.special_tokens :, 0] = torch.where(seen, row, 0)
    tokens[:, 1:, CONFIG.special_tokens :, 1] = torch.where(seen, col, 0)
    visible = matches.weight[:, 1:, :, 0].sum(-1) > 0.5
    tokens[:, 1:, CONFIG.special_tokens :, 2] = torch.where(visible, 50, -50)
    found = Seen(tokens=[tokens])
    ignorant = teacher.place_loss(found, matches, grid)
    with torch.no_grad():
        teacher.places[0].weight[:, :3] = torch.eye(3)
    assert teacher.place_loss(found, matches, grid) < 1e-3 < 0.1 < ignorant


def test_patches_that_vote_for_the_pose_lose_nothing(batch):
    teacher = Teacher(CONFIG, blocks=(0,))
    grid = batch.grid(PATCH)
    tokens = torch.zeros(2, 3, CONFIG.special_tokens + grid[0] * grid[1], CONFIG.width)
    tokens[..., :7] = 100.0  # what special tokens say does not count
    voters = CONFIG.special_tokens + 3
    tokens[:, :, CONFIG.special_tokens : voters, :7] = batch.pose[:, :, None, :7]
    tokens[:, :, CONFIG.special_tokens : voters, 7] = 100.0  # nor what those say who abstain
    with torch.no_grad():
        ignorant = teacher.motion_loss(Seen(tokens=[tokens]), batch)
        teacher.motions[0].weight[:, :8] = torch.eye(8)
        assert teacher.motion_loss(Seen(tokens=[tokens]), batch) < 1e-5 < 0.1 < ignorant
