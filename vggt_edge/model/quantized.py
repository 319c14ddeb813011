"""A linear layer of integer codes. It knows how to run them, not how they were chosen.

Weights are ``w[n, k] = scale[n] * multiplier[n, k / group] * code[n, k]``: one float scale an
output and, for 4-bit codes, a small integer multiplier for each group of inputs, so that
``multiplier * code`` is an 8-bit integer again and one integer product does the whole layer
(progressive quantization, Lin et al., "QServe", 2024). Activations get a scale and a zero point per
token while the layer runs. See ``backends`` for what executes the product.
"""

from __future__ import annotations

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RecipeError
from ..kernels import integers
from ..recipe import Recipe, Scheme
from . import backends
from .layers import Linear
from .packed import PackedLayer


def fits(inputs: int, outputs: int, scheme: Scheme) -> bool:
    """Whether a linear layer of this shape can be held in a scheme."""
    group = scheme.group or 1
    block = hadamard_block(inputs) if scheme.hadamard else 16
    return (
        inputs % integers.WIDTH_MULTIPLE == 0
        and outputs % integers.COLUMN_MULTIPLE == 0
        and inputs % group == 0
        and block >= 16
    )


def hadamard_block(width: int) -> int:
    """The largest power of two that divides ``width``: how far one rotation reaches."""
    return width & -width


def hadamard_signs(width: int, seed: int) -> Tensor:
    """(width,) float32 of 1 and -1 from a seed, the random half of the rotation."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (width,), generator=generator).float() * 2 - 1


def rotate(x: Tensor, signs: Tensor) -> Tensor:
    """(..., width) through the signs and an orthonormal Walsh-Hadamard transform of each block.

    Fast transform, O(n log n); the dense matrix exists nowhere (Ashkboos et al., "QuaRot", 2024).
    """
    width = x.shape[-1]
    block = hadamard_block(width)
    x = (x.float() * signs).unflatten(-1, (width // block, block))
    half = 1
    while half < block:
        pairs = x.unflatten(-1, (-1, 2, half))
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([a + b, a - b], dim=-2).flatten(-3)
        half *= 2
    return x.flatten(-2) * block**-0.5


def pack_nibbles(codes: Tensor) -> Tensor:
    """(n, k) int8 codes from -8 to 7 to (n, k / 2) uint8, the even input in the low nibble."""
    offset = (codes + 8).to(torch.uint8)
    return offset[:, ::2] | (offset[:, 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Inverse of ``pack_nibbles``."""
    both = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    return both.to(torch.int8) - 8


class QuantLinear(PackedLayer):
    """A linear layer of packed integers.

    State (what a file holds)
        codes       (outputs, inputs) int8, or (outputs, inputs / 2) uint8 of two 4-bit codes.
        scale       (outputs,) float32.
        multiplier  (outputs, inputs / group) int8 from 1 to 16, with groups only.
        bias        (outputs,) float32.
        gain        (inputs,) float32 factors on the input (smoothing), if any.
        clip        () float32: share of each token's range that its integers cover.
        signs       (inputs,) int8, of a rotation that no seed gives (files of others), if any.

    Args:
        inputs, outputs: widths.
        scheme: the precision.
        dtype: of the output, and of the attention that reads it.
        smooth: whether there is a gain.
        seed: of the rotation's signs.
        signed: whether its signs are stored instead.

    Raises:
        RecipeError: the scheme does not fit the shape.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor
    clip: Tensor
    multiplier: Tensor | None
    gain: Tensor | None
    signs: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        scheme: Scheme,
        dtype: torch.dtype,
        smooth: bool = False,
        seed: int = 0,
        signed: bool = False,
    ):
        super().__init__()
        if not fits(inputs, outputs, scheme):
            raise RecipeError(f"a layer of {inputs} to {outputs} cannot be held in {scheme.name}")
        self.in_features, self.out_features = inputs, outputs
        self.scheme = scheme
        self.dtype = dtype
        nibbles = scheme.weight_bits == 4
        shape = (outputs, inputs // 2 if nibbles else inputs)
        kind = torch.float8_e4m3fn if scheme.fp8 else torch.uint8 if nibbles else torch.int8
        self.register_buffer("codes", torch.empty(shape, dtype=kind))
        self.register_buffer("scale", torch.empty(outputs, dtype=torch.float32))
        self.register_buffer("bias", torch.empty(outputs, dtype=torch.float32))
        self.register_buffer("clip", torch.empty((), dtype=torch.float32))
        if scheme.group:
            groups = (outputs, inputs // scheme.group)
            self.register_buffer("multiplier", torch.empty(groups, dtype=torch.int8))
        if smooth:
            self.register_buffer("gain", torch.empty(inputs, dtype=torch.float32))
        else:
            self.gain = None
        self.register_buffer("signs", torch.empty(inputs, dtype=torch.int8) if signed else None)
        self.seed = seed
        self._signs: Tensor | None = None
        self._clip = 1.0

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_features}, {self.out_features}, {self.scheme.name}"

    @property
    def backend(self) -> str:
        """What runs the product on this machine; see ``backends``."""
        return backends.choose(self.scheme, self.scale.device)

    def integer_codes(self) -> Tensor:
        """(outputs, inputs) int8 codes, or the 8-bit floats of fp8."""
        if self._panels is not None:
            return integers.unpack(self._panels, self.out_features)[0]
        return unpack_nibbles(self.codes) if self.scheme.weight_bits == 4 else self.codes

    def weight_integers(self) -> Tensor:
        """(outputs, inputs) codes times multipliers: int8, or the 8-bit floats of fp8."""
        if self._panels is not None:
            codes, multiplier = integers.unpack(self._panels, self.out_features)
        else:
            codes, multiplier = self.integer_codes(), self.multiplier
        if multiplier is None:
            return codes
        return codes * multiplier.repeat_interleave(self.scheme.group or 1, dim=1)

    def weight(self) -> Tensor:
        """(outputs, inputs) float32, as the codes stand: behind gain and rotation."""
        return self.weight_integers().float() * self.scale[:, None]

    def prepared(self, x: Tensor) -> Tensor:
        """(rows, inputs) as the codes expect it: rotated and scaled."""
        if self.scheme.hadamard:
            if self._signs is None or self._signs.device != x.device:
                given = self.signs
                seeded = hadamard_signs(self.in_features, self.seed) if given is None else given
                self._signs = seeded.float().to(x.device)
            if self.backend == "avx512-vnni":
                x = x.to(torch.float32, copy=True).contiguous()
                x = integers.rotate_(x, self._signs, hadamard_block(self.in_features))
            else:
                x = rotate(x, self._signs)
        return x

    def make_panels(self) -> integers.Panels:
        """The stored weights in panels."""
        self._clip = float(self.clip)
        bits = self.scheme.weight_bits
        read = unpack_nibbles if bits == 4 else None
        return integers.pack(self.codes, bits, self.scale, self.bias, self.multiplier, read)

    def restore(self, codes: Tensor, multiplier: Tensor | None) -> None:
        """Take unpacked codes back into the stored form."""
        nibbles = self.scheme.weight_bits == 4
        super().restore(pack_nibbles(codes) if nibbles else codes, multiplier)

    def _run(self, x: Tensor, start: int, stop: int, activate: bool) -> Tensor:
        shape, x = x.shape, self.prepared(x.flatten(0, -2))
        backend = self.backend
        if backend == "avx512-vnni":
            panels = self.panels().columns(start, stop)
            rows = integers.quantize(x, self.scheme.activation_bits, self.gain, self._clip)
            y = integers.multiply(rows, panels, stop - start, self.dtype, activate)
        else:
            if self.gain is not None:
                x = x.float() * self.gain
            y = backends.product(
                backend,
                x,
                self.weight_integers()[start:stop],
                self.scale[start:stop],
                self.bias[start:stop],
                self.scheme,
                self.clip,
                self.dtype,
            )
            y = F.gelu(y) if activate else y
        return y.view(*shape[:-1], stop - start)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return self._run(x, 0, self.out_features, False)

    def gelu(self, x: Tensor) -> Tensor:
        """``forward`` and an exact GELU in one go."""
        return self._run(x, 0, self.out_features, True)

    def outputs(self, x: Tensor, start: int, stop: int) -> Tensor:
        """(..., inputs) to the outputs ``start:stop`` alone."""
        return self._run(x, start, stop, False)


def seed_of(path: str) -> int:
    """Seed of a layer's rotation, a function of where it stands."""
    return zlib.crc32(path.encode())


def schemes(module: nn.Module, recipe: Recipe) -> dict[str, Scheme]:
    """Path of every linear layer a recipe quantizes, with its scheme.

    Layers whose shape a scheme cannot hold, a handful of tiny ones, stay float.
    """
    found = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Linear) and (scheme := recipe.scheme_of(path)):  # noqa: SIM102
            if fits(layer.in_features, layer.out_features, scheme):
                found[path] = scheme
    return found
