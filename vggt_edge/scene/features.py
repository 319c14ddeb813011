"""Whether views see one place, by the network's own features after they have looked at each other.

Descriptors say which pictures look alike; what the alternating attention makes of them says whether
they show the same things. RobustVGGT tells distractors from views of a scene by the cosine of
VGGT's last features, where descriptors fail (its tables). Here it is the cosine of each patch with
the best patch of the other view, since two views of one place share a part of it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .. import memory
from ..errors import NumericError
from ..model.vggt import VGGT
from ..predict import check_views, to_tensor
from ..retrieval.tokens import evenly, patches_shown
from ..types import Views

PATCHES = 256  # of each view that look for their like in the others


@torch.inference_mode()
def feature_similarity(model: VGGT, views: Views) -> np.ndarray:
    """How much of each view is found again in every other, by features of one common pass.

    All views of the call see each other. The cosines are of tokens less their mean over the call,
    and their level differs between networks and sets: compare only numbers of one call.

    Args:
        model: from ``load``; every view sees all, whatever ``make_sparse`` was told.
        views: at least two, of a size that the network takes.

    Returns:
        (S, S) float32: [i, j] is the mean over patches of view i of the best cosine among the
        patches of view j, over the global blocks that are tapped.

    Raises:
        InputError: views that are no multiple of the patch size.
        NumericError: a feature is not finite.
    """
    check_views(model.config, views)
    device = next(model.parameters()).device
    chunk = memory.aggregator_chunk(model.config, *views.size)
    taps = model.aggregator(to_tensor(views, device), chunk=chunk)
    chosen = []
    for shown in patches_shown(views, model.config.patch_size):
        inside = np.flatnonzero(shown)
        chosen.append(torch.from_numpy(inside[evenly(len(inside), PATCHES)]).to(device))
    total = torch.zeros(len(views), len(views), device=device)
    for tap in taps:
        tokens = tap.across[0, :, model.config.special_tokens :].float()
        parts = [view[few] for view, few in zip(tokens, chosen, strict=True)]
        mean = torch.cat(parts).mean(dim=0)
        parts = [F.normalize(part - mean, dim=-1) for part in parts]
        for i, part in enumerate(parts):
            for j, other in enumerate(parts):
                total[i, j] += (part @ other.T).amax(dim=1).mean()
    result = (total / len(taps)).cpu().numpy()
    if not np.isfinite(result).all():
        raise NumericError("the network's features are not finite; try --dtype float32")
    return result
