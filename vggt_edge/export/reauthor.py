"""An exact rewrite of a network, with the same weights, into what accelerators take.

    rewritten = reauthor(model, Shape(2, 224, 224), ("depth",), Form())
    depth = rewritten(images)

Tensors of at most four dimensions, separate queries, keys and values, explicit attention,
LayerScale and picture normalisation folded away, every table and special token a constant, no
broadcast copies, no antialiased resampling, no transposed convolution: see ``layers`` and
``decoder``. What each form is good for is in ``shape.Form``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..model import layers, vit
from ..model.aggregator import Aggregator
from ..model.camera import CameraHead
from ..model.rope import rotary_tables
from ..model.vggt import VGGT
from .decoder import DenseHead
from .layers import Block, Norm, Rotary, linear, numbered
from .shape import Form, Shape, check_outputs


class Encoder(nn.Module):
    """Images to patch tokens: DINOv2 with registers on each view alone."""

    position: Tensor
    tokens: Tensor

    def __init__(self, source: vit.VisionTransformer, shape: Shape, form: Form):
        super().__init__()
        self.channels_last = form.channels_last
        patch = source.patch_embed.proj
        blocks = cast("Iterable[layers.Block]", source.blocks)
        deviation = torch.tensor(vit.IMAGE_STD).view(1, 3, 1, 1)
        mean = torch.tensor(vit.IMAGE_MEAN).view(1, 3, 1, 1)
        # The normalisation of the picture is part of the convolution, which pads nothing.
        weight = patch.weight.detach().float() / deviation
        bias = cast(Tensor, patch.bias).detach().float() - (weight * mean).sum(dim=(1, 2, 3))
        self.patches = nn.Conv2d(3, len(weight), source.patch_size, source.patch_size, bias=False)
        self.patches.weight = nn.Parameter(weight, requires_grad=False)
        grid = shape.height // source.patch_size, shape.width // source.patch_size
        self.register_buffer("position", source.position_embedding(*grid).detach() + bias)
        cls = source.cls_token.float() + source.pos_embed[:, :1].float()
        special = torch.cat([cls, source.register_tokens.float()], dim=1).detach()
        self.special = special.shape[1]
        self.register_buffer("tokens", special.repeat(shape.views, 1, 1))
        self.blocks = numbered(self, "block", (Block(b, shape.views, form) for b in blocks))
        self.norm = Norm(source.norm, form)

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1] in the form's layout to (V, rows * cols, width)."""
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.tokens, x], dim=1)
        shape, x = x.shape, x.flatten(0, 1)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.norm(x.reshape(shape)[:, self.special :])


class Trunk(nn.Module):
    """Patch tokens to the taps the heads read: attention within views and across them in turn."""

    tokens: Tensor

    def __init__(
        self,
        source: Aggregator,
        shape: Shape,
        form: Form,
        dense: bool,
        cameras: bool,
    ):
        super().__init__()
        config = source.config
        self.dense, self.cameras = dense, cameras
        self.taps, self.depth = config.taps, config.depth
        self.start, self.stop, self.views = 0, config.depth, shape.views
        self.special = config.special_tokens
        layout = shape.layout(config)
        tables = rotary_tables(layout, config.width // config.attention_heads)
        self.register_buffer("tokens", source.special_tokens(1, shape.views)[0].detach())
        within, across = Rotary(tables, 1), Rotary(tables, shape.views)
        frames = cast("Iterable[layers.Block]", source.frame_blocks)
        everything = cast("Iterable[layers.Block]", source.global_blocks)
        numbered(self, "frame", (Block(b, shape.views, form, within) for b in frames))
        numbered(self, "global", (Block(b, 1, form, across) for b in everything))

    def piece(self, start: int, stop: int) -> Trunk:
        """The pairs of blocks ``start:stop`` alone, for targets that take no larger graph.

        All pieces but the first take the token matrix (V * P, width) that the piece before gives
        as its first output.
        """
        made = Trunk.__new__(Trunk)
        nn.Module.__init__(made)
        for name in ("depth", "taps", "special", "dense", "cameras", "views"):
            setattr(made, name, getattr(self, name))
        made.start, made.stop = start, stop
        if start == 0:
            made.register_buffer("tokens", self.tokens)
        for index in range(start, stop):
            for kind in ("frame", "global"):
                made.add_module(f"{kind}{index}", self.get_submodule(f"{kind}{index}"))
        return made.eval()

    @property
    def output_names(self) -> tuple[str, ...]:
        """What ``forward`` gives, in order."""
        names = [] if self.stop == self.depth else [f"tokens{self.stop}"]
        if self.dense:
            inside = (tap for tap in self.taps if self.start <= tap < self.stop)
            names += [f"tap{self.taps.index(tap)}" for tap in inside]
        if self.cameras and self.stop == self.depth:
            names.append("camera_tokens")
        return tuple(names)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(V, rows * cols, width) tokens to what ``output_names`` says.

        Taps are (V, rows * cols, 2 * width), the camera tokens (V, 2 * width).
        """
        if self.start == 0:
            x = torch.cat([self.tokens, x], dim=1).flatten(0, 1)
        shape = (self.views, -1, 2 * x.shape[1])
        found = []
        for index in range(self.start, self.stop):
            alone = self.get_submodule(f"frame{index}")(x)
            x = self.get_submodule(f"global{index}")(alone)
            if index in self.taps:
                both = torch.cat([alone, x], dim=1).reshape(shape)
                if self.dense:
                    found.append(both[:, self.special :])
        if self.stop < self.depth:
            found.insert(0, x)
        elif self.cameras:
            found.append(both[:, :1].reshape(self.views, -1))
        return tuple(found)


FIRST = ("first_shift", "first_scale", "first_gate")


class Camera(nn.Module):
    """Camera tokens to pose encodings, by repeated refinement."""

    def __init__(self, source: CameraHead, form: Form):
        super().__init__()
        self.iterations = source.iterations
        self.token_norm = Norm(source.token_norm, form)
        blocks = cast("Iterable[layers.Block]", source.trunk)
        self.blocks = numbered(self, "block", (Block(block, 1, form) for block in blocks))
        self.trunk_norm = Norm(source.trunk_norm, form)
        self.adaln_norm = Norm(source.adaln_norm, form)
        embed, modulation = source.embed_pose, cast(nn.Linear, source.poseLN_modulation[1])
        self.embed_pose = linear(embed.weight, embed.bias)
        self.shift, self.scale, self.gate = (
            linear(weight, bias)
            for weight, bias in zip(
                modulation.weight.chunk(3), modulation.bias.chunk(3), strict=True
            )
        )
        self.fc1, self.fc2 = (
            linear(part.weight, part.bias)
            for part in (source.pose_branch.fc1, source.pose_branch.fc2)
        )
        # The first pass is conditioned on a constant, and so are its modulations.
        first = self.modulations(source.empty_pose_tokens.float()[0])
        for name, value in zip(FIRST, first, strict=True):
            self.register_buffer(name, value.detach())

    def modulations(self, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, scale and gate (N, 2 * width) from pose encodings (N, 9)."""
        given = nn.functional.silu(self.embed_pose(pose))
        return self.shift(given), self.scale(given), self.gate(given)

    def correction(
        self, tokens: Tensor, normed: Tensor, shift: Tensor, scale: Tensor, gate: Tensor
    ) -> Tensor:
        """One pass: (V, 9) to be added to what it was conditioned on."""
        x = tokens + gate * (normed * (scale + 1.0) + shift)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.fc2(nn.functional.gelu(self.fc1(self.trunk_norm(x))))

    def forward(self, camera_tokens: Tensor) -> Tensor:
        """(V, 2 * width) to (V, 9)."""
        tokens = self.token_norm(camera_tokens)
        normed = self.adaln_norm(tokens)
        pose = self.correction(tokens, normed, *(self.get_buffer(name) for name in FIRST))
        for _ in range(1, self.iterations):
            pose = pose + self.correction(tokens, normed, *self.modulations(pose))
        return torch.cat([pose[:, :7], pose[:, 7:].relu()], dim=1)


class Rewritten(nn.Module):
    """The whole network, in parts that can be exported alone: encoder, trunk, depth, camera.

    Attributes
        shape, outputs, form   what it was made for.
        encoder                images -> patch tokens (V, rows * cols, width)
        trunk                  patch tokens -> four taps (V, rows * cols, 2 * width), and the camera
                               tokens (V, 2 * width) when "pose" is an output
        depth                  four taps -> (V, H, W, 1) depth, and confidence when it is an output
        camera                 camera tokens -> (V, 9) pose encodings
    """

    def __init__(self, model: VGGT, shape: Shape, outputs: tuple[str, ...], form: Form):
        super().__init__()
        self.shape, self.outputs, self.form = shape, outputs, form
        self.dense, self.cameras = bool({"depth", "confidence"} & {*outputs}), "pose" in outputs
        layout = shape.layout(model.config)
        self.encoder = Encoder(model.aggregator.patch_embed, shape, form)
        self.trunk = Trunk(model.aggregator, shape, form, self.dense, self.cameras)
        if self.dense:
            confidence = "confidence" in outputs
            self.depth = DenseHead(model.depth_head, layout.rows, layout.cols, confidence, form)
        if self.cameras:
            self.camera = Camera(model.camera_head, form)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images in [0, 1] in the form's layout to the outputs, bare when it is one."""
        taps = self.trunk(self.encoder(images))
        found: list[Tensor] = []
        if self.dense:
            dense = self.depth(*taps[:4])
            found += dense if "depth" in self.outputs else dense[1:]
        if self.cameras:
            found.append(self.camera(taps[-1]))
        return found[0] if len(found) == 1 else tuple(found)

    def example(self) -> Tensor:
        """An all-grey input of the right shape and layout."""
        return torch.full(self.shape.images(self.form.channels_last), 0.5)


def reauthor(
    model: VGGT, shape: Shape, outputs: Sequence[str] = ("depth",), form: Form | None = None
) -> Rewritten:
    """Rewrite a network for a fixed shape; float32, whatever the precision of its weights.

    Linears share the network's memory where nothing was folded into them.

    Raises:
        InputError: a shape the network cannot take, or outputs it does not have.
        ExportError: weights that are not float tensors, such as a compressed network's.
    """
    shape.check(model.config)
    wanted = check_outputs(outputs, model.config)
    if odd := [name for name, p in model.named_parameters() if not p.is_floating_point()]:
        raise ExportError(
            f"{odd[0]} is not a float tensor: export the float network and name the recipe instead"
        )
    with torch.no_grad():
        rewritten = Rewritten(model, shape, wanted, form or Form())
    return rewritten.eval().requires_grad_(False)
