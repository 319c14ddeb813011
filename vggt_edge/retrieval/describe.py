"""Views to descriptors, by whichever network is there."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .. import memory
from ..distribute import Executor, LocalExecutor
from ..errors import InputError, NumericError
from ..model.megaloc import EVALUATED_SIZE, MegaLoc
from ..model.vggt import VGGT
from ..types import Views
from .tokens import Vocabulary, encode, fit_vocabulary, patches_shown

METHODS = {
    "tokens": "the encoder tokens of the model itself, no second network",
    "megaloc": "MegaLoc, a second network trained to recognise places",
}
# Cosine from which two views may well show one place. Tokens: chosen with the pocket
# model, by benchmarks/retrieval.py. MegaLoc: what GTSfM uses (min_score); not measured here.
SAME_PLACE = {"tokens": 0.35, "megaloc": 0.5}
MEGALOC_CHUNK = 8


def method(network: VGGT | MegaLoc) -> str:
    """Which of ``METHODS`` a network stands for."""
    return "megaloc" if isinstance(network, MegaLoc) else "tokens"


def _shown(views: Views) -> torch.Tensor:
    """(N, 3, 322, 322) float32 in [0, 1]: the picture in each view, without its padding."""
    resized = []
    for image, (top, left, bottom, right) in zip(views.images, views.valid, strict=True):
        picture = np.ascontiguousarray(image[top:bottom, left:right])
        tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        size = (EVALUATED_SIZE, EVALUATED_SIZE)
        resized.append(F.interpolate(tensor, size, mode="bilinear", antialias=True))
    return torch.cat(resized)


class Describer:
    """A network and its vocabulary, for tokens, as what an executor maps over parts of a set."""

    def __init__(self, network: VGGT | MegaLoc, words: Vocabulary | None) -> None:
        self.network, self.words = network, words

    @torch.inference_mode()
    def __call__(self, part: tuple[int, Views]) -> tuple[int, np.ndarray]:
        """The number of a part, and (N, D) float32 descriptors of its views."""
        number, views = part
        if isinstance(self.network, MegaLoc):
            device = next(self.network.parameters()).device
            found = self.network(_shown(views).to(device))
        else:
            assert self.words is not None
            tokens = encode(self.network, views)
            shown = torch.from_numpy(patches_shown(views, self.network.config.patch_size))
            found = self.words.describe(tokens, shown.to(tokens.device))
        return number, found.float().cpu().numpy()


@torch.inference_mode()
def descriptors(
    network: VGGT | MegaLoc,
    views: Views,
    *,
    vocabulary: Vocabulary | None = None,
    progress: bool = False,
    executor: Executor | None = None,
) -> np.ndarray:
    """(S, D) float32 unit descriptors; the higher a cosine, the likelier two views see one place.

    A few views are in flight at a time, so that memory grows by the descriptors alone: D is 256
    for tokens and 8448 for MegaLoc. Padding is left out.

    Args:
        network: a VGGT, whose encoder is used ("tokens"), or a MegaLoc, which sees each picture
            as a square of 322 pixels, as its authors evaluate it.
        views: any number from one.
        vocabulary: for tokens, from ``fit_vocabulary`` on other views, so that descriptors of views
            that come later compare with theirs; fitted on ``views`` when None.
        progress: show a bar on standard error for work over two seconds.
        executor: who describes; this process when None.

    Raises:
        InputError: no views, or for tokens views that are no multiple of the patch size.
        NumericError: when a descriptor is not finite.
    """
    if not len(views):
        raise InputError("no views to describe")
    chunk, words = MEGALOC_CHUNK, None
    if not isinstance(network, MegaLoc):
        patch, (height, width) = network.config.patch_size, views.size
        if height % patch or width % patch:
            raise InputError(
                f"views of {height}x{width} are no multiple of the patch size {patch}; "
                "read them with read_views"
            )
        chunk = memory.aggregator_chunk(network.config, height, width)
        words = vocabulary or fit_vocabulary(network, views, chunk)
    parts: dict[int, np.ndarray] = {}
    items = ((start, views[start : start + chunk]) for start in range(0, len(views), chunk))
    with tqdm(
        total=len(views), desc="describe", unit="view", delay=2, leave=False, disable=not progress
    ) as bar:
        for start, found in (executor or LocalExecutor()).map(Describer(network, words), items):
            parts[start] = found
            bar.update(len(found))
    result = np.concatenate([parts[start] for start in sorted(parts)])
    if not np.isfinite(result).all():
        raise NumericError(
            f"the descriptors by {method(network)} are not finite: the weights are damaged, or "
            "overflow in half precision; try --dtype float32"
        )
    return result
