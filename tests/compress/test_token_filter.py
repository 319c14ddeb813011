"""The compensation token: from PCA, seen by every view, kept in the file."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import GOLDEN_CONFIG, make_views_matter

from vggt_edge import weights
from vggt_edge.attention import make_sparse, suited
from vggt_edge.compress.compress import compress
from vggt_edge.compress.token_filter import (
    TokenStatistics,
    compensate,
    compensation_token,
    token_statistics,
)
from vggt_edge.errors import InputError, RecipeError
from vggt_edge.model.vggt import VGGT
from vggt_edge.predict import predict
from vggt_edge.sparsity import Sparsity
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Views

CONFIG = dataclasses.replace(
    GOLDEN_CONFIG, encoder_depth=1, camera_depth=1, heads=("camera", "depth")
)


@pytest.fixture
def model() -> VGGT:
    network = make_views_matter(initialize(VGGT(CONFIG), seed=3))
    return network.eval().requires_grad_(False)


def make_scenes(count: int = 3, views: int = 4) -> list[Views]:
    random = np.random.default_rng(0)
    return [
        Views.from_images(random.integers(0, 256, (views, 28, 28, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def test_the_token_lies_in_the_principal_subspace():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, 3, generator=generator)).Q
    mean = torch.randn(24, generator=generator)
    tokens = mean + torch.randn(50, 3, generator=generator) @ basis.T
    token = compensation_token(TokenStatistics(tokens, 7.0), components=3)
    assert token.norm() == pytest.approx(7.0, rel=1e-4)
    part = basis @ (basis.T @ tokens.mean(0))
    assert torch.allclose(token / token.norm(), part / part.norm(), atol=1e-4)
    all_of_it = compensation_token(TokenStatistics(tokens[:5], 1.0), components=32)
    assert all_of_it.isfinite().all()
    with pytest.raises(InputError, match="two calibration views"):
        compensation_token(TokenStatistics(tokens[:1], 1.0))


def test_statistics_are_of_the_last_tap(model):
    scenes = make_scenes()
    found = token_statistics(model, scenes)
    assert found.camera.shape == (12, 2 * CONFIG.width)
    seen = []
    handle = model.camera_head.token_norm.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model(torch.from_numpy(scenes[0].images).permute(0, 3, 1, 2)[None])
    handle.remove()
    assert torch.equal(found.camera[:4], seen[0][0])
    with pytest.raises(InputError):
        token_statistics(model, [])


def test_views_see_the_token_and_only_they_answer(model):
    images = torch.rand(1, 3, 3, 28, 28)
    before, plain = model(images), copy.deepcopy(model)
    token = compensation_token(token_statistics(model, make_scenes()))
    after = compensate(model, token)(images)
    assert after.pose_enc.shape == before.pose_enc.shape
    assert (after.pose_enc - before.pose_enc).abs().max() > 1e-4
    assert torch.equal(after.depth, before.depth)
    # One more view of that token, by hand.
    head = plain.camera_head
    tokens = plain.aggregator(images)[-1].tokens(last=1).squeeze(2)
    by_hand = head(torch.cat([tokens, token.expand(1, 1, -1)], dim=1))[-1][:, :3]
    assert torch.allclose(by_hand, after.pose_enc, atol=1e-6)
    # Its length does not matter: the head normalises.
    longer = compensate(model, 3 * token)(images)
    assert torch.allclose(longer.pose_enc, after.pose_enc, atol=1e-4)


@pytest.mark.parametrize("recipe", [None, "w8a8"])
def test_it_is_saved_with_the_weights(model, recipe, tmp_path):
    compensate(model, torch.randn(2 * CONFIG.width))
    if recipe:
        compress(model, recipe, method="nearest")
    images = torch.rand(1, 2, 3, 28, 28)
    path = weights.save(model, tmp_path / "m.safetensors")
    again = weights.load(path, dtype="float32", device="cpu")
    assert again.config.compensation_tokens == 1
    assert torch.equal(again(images).pose_enc, model(images).pose_enc)


def test_sparse_attention_is_refused_and_auto_stays_dense(model):
    make_sparse(compensate(model, torch.randn(2 * CONFIG.width)), "auto", k=1)
    assert model.sparsity is None
    views = make_scenes(1, views=4)[0]
    assert np.isfinite(predict(model, views).depth).all()
    for mode in ("anchors", "covisible", "avggt", "merge"):
        with pytest.raises(InputError, match=f"cannot be {mode}: use --attention dense"):
            make_sparse(model, mode)
    assert suited(CONFIG, Sparsity("auto")).mode == "auto", "others keep their mode"


def test_compressing_makes_one_of_the_calibration(model, tmp_path):
    scenes = make_scenes()
    token = compensation_token(token_statistics(model, scenes))
    plain = copy.deepcopy(model)
    compress(plain, "w8a8")
    compress(model, "w8a8", method="nearest", calibration=scenes, compensation=True)
    images = torch.rand(1, 2, 3, 28, 28)
    path = weights.save(model, tmp_path / "m.safetensors")
    again = weights.load(path, dtype="float32", device="cpu")
    kept = again.camera_head.compensation_token
    assert again.config.compensation_tokens == 1 and torch.equal(kept[0], token)
    answer = again(images).pose_enc
    assert torch.equal(answer, model(images).pose_enc)
    assert torch.equal(answer, compensate(plain, token)(images).pose_enc)
    with pytest.raises(InputError, match="needs calibration pictures"):
        compress(initialize(VGGT(CONFIG), seed=0), "w8a8", compensation=True)


def test_what_cannot_have_one(model):
    with pytest.raises(RecipeError, match="128 are needed"):
        compensate(model, torch.zeros(5))
    make_sparse(model, "anchors", k=2)
    with pytest.raises(RecipeError, match="dense attention"):
        compensate(model, torch.zeros(2 * CONFIG.width))
    with pytest.raises(RecipeError, match="dense attention"):
        compress(model, "w8a8", calibration=make_scenes(), compensation=True)
    assert model.recipe is None
    headless = initialize(VGGT(dataclasses.replace(CONFIG, heads=("depth",))), seed=0)
    with pytest.raises(RecipeError, match="which this network lacks"):
        compensate(headless, torch.zeros(2 * CONFIG.width))
    with pytest.raises(RecipeError, match="which this network lacks"):
        token_statistics(headless, make_scenes())
