"""The network one block at a time, over all calibration scenes, with memory for one block's inputs.

Running the whole network for every block would cost the square of its depth; keeping the inputs of
all blocks, its depth in memory. Instead the tokens of each scene, (1, S, P, width), wait between
two blocks. Encoder and frame blocks get them as (S, 1, P, width), views that cannot see each other;
global blocks as (1, S, P, width), which attend over all S * P tokens, as they do in use; the camera
head gets (1, S, 2 * width), the camera tokens of the last pair.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..model.rope import rotary_tables
from ..model.vggt import VGGT
from ..types import TokenLayout

ENCODER, FRAME, GLOBAL, CAMERA = "encoder", "frame", "global", "camera"


class Stage(NamedTuple):
    """A part of the network that is run, and compressed, as one.

    path    of the module.
    module  a block, or the camera head.
    kind    "encoder", "frame", "global" or "camera".
    """

    path: str
    module: nn.Module
    kind: str


class Tokens(NamedTuple):
    """A scene between two stages.

    x        (1, S, P, width) float32; (1, S, 2 * width) before the camera head.
    layout   of the aggregator's tokens.
    special  tokens per view that are no patches, the first ones.
    camera   (1, S, width) of the last frame block's camera tokens, empty before.
    """

    x: Tensor
    layout: TokenLayout
    special: int
    camera: Tensor


def stages(model: VGGT) -> list[Stage]:
    """All parts in the order in which they run."""
    aggregator = model.aggregator
    found = [
        Stage(f"aggregator.patch_embed.blocks.{i}", block, ENCODER)
        for i, block in enumerate(aggregator.patch_embed.blocks)
    ]
    for i, pair in enumerate(zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True)):
        found.append(Stage(f"aggregator.frame_blocks.{i}", pair[0], FRAME))
        found.append(Stage(f"aggregator.global_blocks.{i}", pair[1], GLOBAL))
    if "camera" in model.config.heads:
        found.append(Stage("camera_head", model.camera_head, CAMERA))
    return found


@torch.no_grad()
def begin(model: VGGT, images: Tensor) -> Tokens:
    """(1, S, 3, H, W) images to the tokens before the first encoder block."""
    encoder = model.aggregator.patch_embed
    caught: list[Tensor] = []
    first = encoder.blocks[0]
    handle = first.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        encoder(images.flatten(0, 1))
    finally:
        handle.remove()
    x = caught[0].transpose(0, 1)
    layout = model.aggregator.layout(images)
    return Tokens(x, layout, layout.special, x.new_empty(0))


def given(stage: Stage, tokens: Tokens) -> tuple[Tensor, ...]:
    """What a stage's module is called with."""
    x = tokens.x
    if stage.kind == CAMERA:
        return (x,)
    if stage.kind == ENCODER:
        return (x.transpose(0, 1),)
    head_width = x.shape[-1] // cast(int, stage.module.attn.heads)  # type: ignore[union-attr]
    tables = rotary_tables(tokens.layout, head_width, x.device)
    x = x.transpose(0, 1) if stage.kind == FRAME else x
    return (x, tables)  # type: ignore[return-value]


def run(stage: Stage, tokens: Tokens) -> Tensor:
    """What a stage's module gives; of the camera head all refinements, stacked."""
    y = stage.module(*given(stage, tokens))
    return torch.stack(y) if stage.kind == CAMERA else y


def advance(model: VGGT, stage: Stage, tokens: Tokens, y: Tensor) -> Tokens:
    """The tokens before the next stage, from the output of this one."""
    if stage.kind == CAMERA:
        return tokens
    x = y if stage.kind == GLOBAL else y.transpose(0, 1)
    if stage.kind == FRAME:
        return tokens._replace(x=x, camera=x[:, :, 0])
    if stage.kind == GLOBAL and stage.module is model.aggregator.global_blocks[-1]:
        return tokens._replace(x=torch.cat([tokens.camera, x[:, :, 0]], -1))
    if stage.kind == ENCODER and stage.module is model.aggregator.patch_embed.blocks[-1]:
        layout, special = tokens.layout, tokens.special
        patches = model.aggregator.patch_embed.norm(x)[:, :, special:]
        firsts = model.aggregator.special_tokens(1, layout.views)
        return tokens._replace(x=torch.cat([firsts, patches], dim=2))
    return tokens._replace(x=x)
