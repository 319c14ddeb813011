from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file

from vggt_edge.model.config import VGGTConfig
from vggt_edge.model.megaloc import MegaLocConfig
from vggt_edge.model.vggt import VGGT
from vggt_edge.train.initialize import initialize

# A shell may have us, and so the programs that tests start, ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Tiny networks: threads that wait for a busy machine's cores cost twenty times what they do.
torch.set_num_threads(1)
# What an example computes is tested, not how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

GOLDEN = Path(__file__).parent / "golden"

GOLDEN_CONFIG = VGGTConfig(
    image_size=70,
    width=64,
    attention_heads=4,
    encoder_depth=3,
    depth=4,
    taps=(0, 1, 2, 3),
    camera_attention_heads=8,
    dense_features=16,
    dense_channels=(16, 24, 32, 32),
    heads=("camera", "depth", "point"),
)

MEGALOC_CONFIG = MegaLocConfig(
    image_size=70,
    width=64,
    attention_heads=4,
    depth=3,
    clusters=8,
    cluster_features=16,
    token_features=12,
    hidden=24,
    descriptor=40,
)

TINY_CONFIG = dataclasses.replace(
    GOLDEN_CONFIG,
    width=32,
    encoder_depth=1,
    camera_depth=1,
    track_features=16,
    track_hidden=48,
    track_correlation_levels=3,
    track_correlation_radius=2,
    heads=("camera", "depth", "point", "track"),
)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vggt_small.safetensors")


@pytest.fixture(scope="session")
def golden_model(golden: dict[str, torch.Tensor]) -> VGGT:
    model = VGGT(GOLDEN_CONFIG)
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def make_views_matter(model: VGGT) -> VGGT:
    """Large weights where views look at each other, so that what they see shows in the output."""
    for block in model.aggregator.global_blocks:
        block.attn.qkv.weight.mul_(8)
        block.ls1.gamma.fill_(1.0)
    head = model.camera_head
    for block in head.trunk:
        block.attn.qkv.weight.mul_(8)
        block.ls1.gamma.fill_(1.0)
    head.embed_pose.weight.mul_(20)
    head.poseLN_modulation[1].weight.mul_(20)
    head.pose_branch.fc2.weight.mul_(100)
    return model


@pytest.fixture
def tiny_model() -> VGGT:
    """A network with all heads and random weights, milliseconds a pass."""
    return initialize(VGGT(TINY_CONFIG), seed=1).eval().requires_grad_(False)
