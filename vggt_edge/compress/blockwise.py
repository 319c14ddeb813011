"""Gains and clips of a block, trained against the float block's output.

QuantVGGT's dual-smoothed fine-grained quantization (Feng et al., "Quantized Visual Geometry
Grounded Transformer", ICLR 2026). For one block with float output f(x), quantized by

    y = A(z g ; c) . Q(W / g ; r)^T        z = x or its rotation

the gain g (one a channel, behind the rotation), the share r of each output's largest weight that
the grid reaches to, and the share c of each token's range are trained by AdamW on the mean squared
error of the *block's* output, one scene a step, learning rates falling as a cosine. Rounding passes
gradients straight through; at the ends of a grid they reach the clips. ``g = exp(.)`` starts where
the search of ``smooth`` ended, r and c are sigmoids.

x is the float network's activation, as in the authors' code, or what the quantized blocks before
made of it (``propagate``), so that a block can make good for the errors of those before it; the
target is the float network's in either case. Global blocks are trained on (1, S * P) tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.layers import Linear
from ..model.quantized import hadamard_signs, rotate, seed_of
from ..model.swap import place
from ..recipe import Scheme
from .apply import behind
from .layer import Choice
from .nearest import Codes, Grid, bounds, round_to, split_step
from .walk import Stage, Tokens, run

GAIN_RATE = 5e-3
CLIP_RATE = 5e-2
MOST_CLIP = 0.982  # sigmoid(4)


def _round(x: Tensor) -> Tensor:
    """Rounded, with the gradient of x."""
    return x + (x.round() - x).detach()


def _logit(share: Tensor) -> Tensor:
    return share.clamp(0.05, MOST_CLIP).logit()


class TrainableLinear(nn.Module):
    """A float layer that computes as its quantized one would, and can be trained.

    Args:
        linear: the float layer; its weights are not trained.
        path: of the layer.
        scheme: integers only.
        start: gain, grid and clip to start from.
        gains, weight_clips, activation_clips: which of them to train.
    """

    def __init__(
        self,
        linear: Linear,
        path: str,
        scheme: Scheme,
        start: Choice,
        gains: bool = True,
        weight_clips: bool = True,
        activation_clips: bool = True,
    ):
        super().__init__()
        self.scheme, self.path, self.dtype = scheme, path, linear.dtype
        self.weight = behind(linear.weight.detach(), scheme, path)
        self.bias = None if linear.bias is None else linear.bias.detach().float()
        outputs, inputs = self.weight.shape
        self.groups = inputs // (scheme.group or inputs)
        gain = start.gain if start.gain is not None else self.weight.new_ones(inputs)
        self.gain = nn.Parameter(gain.log(), gains)
        steps = Grid(start.codes.scale, start.codes.multiplier).steps(inputs)
        high = bounds(scheme.weight_bits)[1]
        reach = steps[:, :: inputs // self.groups] * high
        self.reach = nn.Parameter(_logit(reach / self._largest(gain)), weight_clips)
        clip = _logit(torch.tensor(start.clip, device=gain.device))
        self.share = nn.Parameter(clip, activation_clips)
        self.signs = hadamard_signs(inputs, seed_of(path)).to(gain.device)

    def _largest(self, gain: Tensor) -> Tensor:
        """(outputs, groups) largest weight behind the gain."""
        magnitude = (self.weight / gain).abs().unflatten(1, (self.groups, -1))
        return magnitude.amax(2).clamp(min=1e-12)

    def grid(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Scale, multiplier, and (outputs, groups) steps with gradients."""
        high = bounds(self.scheme.weight_bits)[1]
        steps = self._largest(self.gain.exp()) * self.reach.sigmoid() / high
        if self.scheme.group is None:
            return steps[:, 0], None, steps
        scale, multiplier = split_step(steps.detach())
        whole = scale[:, None] * multiplier
        return scale, multiplier, steps + (whole - steps).detach()

    def _weights(self) -> Tensor:
        low, high = bounds(self.scheme.weight_bits)
        steps = self.grid()[2].repeat_interleave(self.weight.shape[1] // self.groups, dim=1)
        weight = self.weight / self.gain.exp()
        return _round(weight / steps).clamp(low, high) * steps

    def _activations(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.scheme.hadamard:
            x = rotate(x, self.signs)
        x = x * self.gain.exp()
        if self.scheme.activation_bits == 16:
            return x
        low, high = bounds(self.scheme.activation_bits)
        clip = self.share.sigmoid()
        least = x.amin(-1, keepdim=True).clamp(max=0) * clip
        most = x.amax(-1, keepdim=True).clamp(min=0) * clip
        step = ((most - least) / (high - low)).clamp(min=1e-12)
        zero = (low - least / step).detach().round().clamp(low, high)
        return ((_round(x / step) + zero).clamp(low, high) - zero) * step

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(self._activations(x), self._weights(), self.bias).to(self.dtype)

    def gelu(self, x: Tensor) -> Tensor:
        """``forward`` and an exact GELU."""
        return F.gelu(self(x))

    @torch.no_grad()
    def choice(self) -> Choice:
        """Integers of what was trained."""
        gain = self.gain.exp().detach()
        scale, multiplier, _ = self.grid()
        codes: Codes = round_to(self.weight / gain, self.scheme, Grid(scale.detach(), multiplier))
        integers = self.scheme.activation_bits < 16
        clip = float(self.share.sigmoid()) if integers else 1.0
        return Choice(codes, gain, clip, "trained")


def train(
    model: nn.Module,
    stage: Stage,
    scenes: Sequence[Tokens],
    targets: Sequence[Tensor],
    starts: Mapping[str, Choice],
    schemes: Mapping[str, Scheme],
    epochs: int = 15,
    gains: bool = True,
    weight_clips: bool = True,
    activation_clips: bool = True,
    seed: int = 0,
) -> dict[str, Choice]:
    """Train one stage's layers together.

    Args:
        model: whose layers in the stage are float; they are put back.
        stage: the block, or the camera head.
        scenes: tokens before it.
        targets: the float stage's output for each scene.
        starts: of each layer, by path.
        schemes: of each layer; 8-bit floats keep their start.
        epochs: passes over the scenes.
        gains, weight_clips, activation_clips: what to train.
        seed: of the order of scenes.
    """
    floats, trained = {}, {}
    for path, start in starts.items():
        linear = model.get_submodule(path)
        if isinstance(linear, Linear) and not schemes[path].fp8:
            floats[path] = linear
            trained[path] = TrainableLinear(
                linear, path, schemes[path], start, gains, weight_clips, activation_clips
            )
    rates = {"gain": GAIN_RATE, "reach": CLIP_RATE, "share": CLIP_RATE}
    groups = [
        {
            "params": [p for p in (getattr(t, name) for t in trained.values()) if p.requires_grad],
            "lr": rate,
        }
        for name, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    if not groups or not epochs:
        return dict(starts)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(scenes))
    generator = torch.Generator().manual_seed(seed)
    try:
        for path, layer in trained.items():
            place(model, path, layer)
        for _ in range(epochs):
            for index in torch.randperm(len(scenes), generator=generator).tolist():
                with torch.enable_grad():
                    loss = F.mse_loss(run(stage, scenes[index]), targets[index])
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                schedule.step()
    finally:
        for path, linear in floats.items():
            place(model, path, linear)
    return {path: trained[path].choice() if path in trained else starts[path] for path in starts}
