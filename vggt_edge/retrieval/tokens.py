"""Views described by the VGGT encoder's own patch tokens: a bag of soft visual words.

Raw pooled tokens of a fine-tuned encoder are all alike (cosine .9 between rooms; SwiftVGGT had to
whiten them, too). Here tokens are centred and whitened, then each patch votes, softly, for the
words of a vocabulary, and a view is the square root of its votes (Sivic and Zisserman 2003;
Arandjelovic and Zisserman 2012 for the root) less most of their mean.

Mean, whitening and words come from the set itself and from 48 small rendered pictures that ship
with the package. From the set alone, "unlike" would mean unlike this set's average: of six views of
one corner none would be like another.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..model.vggt import VGGT
from ..types import Views

REFERENCE_SIZE = 112  # pixels a side of each picture in assets/reference.jpg
# Chosen on the photographed sets of benchmarks/retrieval.py; neighbouring values do as well there.
SAMPLED_VIEWS = 128
SAMPLED_PATCHES = 64  # of each
DIMENSIONS = 32
WORDS = 256
SHRINKAGE = 0.01  # of the mean variance, added to each
TEMPERATURE = 0.03
MEAN_SHARE = 0.8
ITERATIONS = 10


@dataclass(frozen=True)
class Vocabulary:
    """What describes views: fitted on some, it serves any others of the same network.

    Fields
        mean       (C,) of tokens.
        whitening  (C, d).
        words      (K, d) cluster centres of unit whitened tokens.
        common     (K,) root votes of all it was fitted on, times the share that is taken away.
    """

    mean: Tensor
    whitening: Tensor
    words: Tensor
    common: Tensor

    def votes(self, tokens: Tensor) -> Tensor:
        """(..., C) tokens to (..., K) shares that sum to one."""
        white = F.normalize((tokens - self.mean) @ self.whitening, dim=-1)
        likeness = white @ self.words.T - self.words.square().sum(dim=-1) / 2
        return torch.softmax(likeness / TEMPERATURE, dim=-1)

    def describe(self, tokens: Tensor, shown: Tensor) -> Tensor:
        """Unit descriptors (N, K) of (N, P, C) tokens, of whose patches (N, P) bool are picture."""
        weight = shown.to(tokens.dtype).unsqueeze(-1)
        votes = (self.votes(tokens) * weight).sum(dim=1) / weight.sum(dim=1)
        return F.normalize(F.normalize(votes.sqrt(), dim=-1) - self.common, dim=-1)


def patches_shown(views: Views, patch: int) -> np.ndarray:
    """(S, rows * cols) bool: patches whose centre shows picture; all, where no patch would be."""
    height, width = views.size
    rows, cols = np.arange(patch // 2, height, patch), np.arange(patch // 2, width, patch)
    top, left, bottom, right = (views.valid[:, i, None] for i in range(4))
    in_rows = (rows >= top) & (rows < bottom)
    in_cols = (cols >= left) & (cols < right)
    shown = (in_rows[:, :, None] & in_cols[:, None, :]).reshape(len(views), -1)
    return shown | ~shown.any(axis=1, keepdims=True)


def encode(model: VGGT, views: Views) -> Tensor:
    """(N, P, C) float32 patch tokens of the encoder, on the model's device."""
    images = np.require(views.images, requirements=("C", "W"))
    device = next(model.parameters()).device
    return model.aggregator.patch_embed(torch.from_numpy(images).to(device).permute(0, 3, 1, 2))


def reference_views(patch: int) -> Views:
    """48 rendered pictures of nothing in particular (benchmarks/reference_pictures.py)."""
    file = resources.files("vggt_edge") / "assets" / "reference.jpg"
    with file.open("rb") as opened, Image.open(opened) as mosaic:
        pixels = np.asarray(mosaic.convert("RGB"))
    rows, cols = (n // REFERENCE_SIZE for n in pixels.shape[:2])
    tiles = pixels.reshape(rows, REFERENCE_SIZE, cols, REFERENCE_SIZE, 3).swapaxes(1, 2)
    side = max(REFERENCE_SIZE // patch, 1) * patch
    return Views.from_images(tiles.reshape(-1, *tiles.shape[2:])[:, :side, :side])


def evenly(count: int, most: int) -> np.ndarray:
    """At most ``most`` numbers below ``count``, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _cluster(tokens: Tensor, count: int) -> Tensor:
    """(K, d) centres of (N, d) tokens by Lloyd's k-means from evenly spaced tokens; no seed."""
    words = tokens[torch.from_numpy(evenly(len(tokens), count))].clone()
    for _ in range(ITERATIONS):
        nearest = (tokens @ words.T - words.square().sum(dim=1) / 2).argmax(dim=1)
        total = torch.zeros_like(words).index_add_(0, nearest, tokens)
        members = torch.bincount(nearest, minlength=len(words)).unsqueeze(1)
        words = torch.where(members > 0, total / members.clamp(min=1), words)
    return words


@torch.inference_mode()
def fit_vocabulary(model: VGGT, views: Views, chunk: int = 8) -> Vocabulary:
    """A vocabulary from at most 128 of the views, evenly spaced, and the reference pictures.

    64 patches of each are taken.

    Args:
        model: whose encoder is used.
        views: at least one.
        chunk: views in flight at a time.
    """
    patch = model.config.patch_size
    parts = []
    for source in (reference_views(patch), views[evenly(len(views), SAMPLED_VIEWS)]):
        shown = patches_shown(source, patch)
        for start in range(0, len(source), chunk):
            few = slice(start, start + chunk)
            for tokens, mask in zip(encode(model, source[few]).cpu(), shown[few], strict=True):
                inside = np.flatnonzero(mask)
                sample = inside[evenly(len(inside), SAMPLED_PATCHES)]
                parts.append(tokens[torch.from_numpy(sample)])
    tokens = torch.cat(parts)
    mean = tokens.mean(dim=0)
    centred = (tokens - mean).double()
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance, axes = variance.flip(0)[:DIMENSIONS], axes.flip(1)[:, :DIMENSIONS]
    floor = SHRINKAGE * centred.square().mean()
    whitening = (axes / (variance.clamp(min=0) + floor).sqrt()).float()
    white = F.normalize((tokens - mean) @ whitening, dim=-1)
    words = _cluster(white, WORDS)
    device = next(model.parameters()).device
    fitted = Vocabulary(mean, whitening, words, torch.zeros(len(words)))
    common = MEAN_SHARE * F.normalize(fitted.votes(tokens).mean(dim=0).sqrt(), dim=0)
    return Vocabulary(*(part.to(device) for part in (mean, whitening, words, common)))
