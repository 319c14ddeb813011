"""Where a method fails most, as pictures: input, predicted depth, true depth, error."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from .. import metrics
from ..types import Prediction

# Dark to light for depth (near is light), pale to dark for errors: lightness rises or falls
# steadily, so that both read in grey as well.
_DEPTH_COLORS = np.array(
    [[24, 15, 61], [70, 32, 120], [141, 41, 129], [208, 65, 111], [245, 125, 79], [252, 200, 110],
     [253, 246, 200]]
)  # fmt: skip
_ERROR_COLORS = np.array(
    [[247, 247, 244], [216, 226, 236], [145, 184, 222], [66, 120, 186], [22, 60, 128], [10, 20, 60]]
)
_UNKNOWN = (128, 128, 128)
MOST_ERROR = 0.5
"""Relative error from which on the error picture is darkest."""


class DepthCase(NamedTuple):
    """One view of one recording. Pictures are (H, W, 3) uint8.

    Fields
        recording, view, name   which one.
        score                   the recording's value of the metric it was chosen by.
        abs_rel                 of this view.
        image, predicted, true, error   pictures of one size.
        near, far               depths at the ends of the colour scale, in the truth's unit.
    """

    recording: str
    view: int
    name: str
    score: float
    abs_rel: float
    image: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    error: np.ndarray
    near: float
    far: float


def worst_recordings(
    scores: dict[str, float], count: int, higher_is_better: bool
) -> list[tuple[str, float]]:
    """The ``count`` recordings with the worst values, the worst first."""
    order = sorted(scores.items(), key=lambda pair: pair[1], reverse=not higher_is_better)
    return order[:count]


def depth_cases(
    recording: str,
    score: float,
    prediction: Prediction,
    true: np.ndarray,
    count: int = 1,
) -> list[DepthCase]:
    """The ``count`` worst views of a recording that have both depth and truth, the worst first.

    Args:
        recording: its name.
        score: of the recording.
        prediction: with depth.
        true: (S, H, W) true depth at the pixels of the *views*, 0 where unknown.
        count: at most so many.
    """
    if prediction.depth is None:
        return []
    shown = prediction.views.valid_mask()
    depth = prediction.depth.astype(np.float64)
    known = (true > 0) & np.isfinite(depth) & (depth > 0) & shown
    if not known.any():
        return []
    # One factor for the recording, as it is scored.
    depth = depth * metrics.median_scale(depth[known], true[known])
    relative = np.where(known, np.abs(depth - true) / np.where(known, true, 1.0), 0.0)
    pixels = known.sum(axis=(1, 2))
    abs_rel = relative.sum(axis=(1, 2)) / np.maximum(pixels, 1)
    cases = []
    for view in [int(i) for i in np.argsort(-abs_rel, kind="stable") if pixels[i]][:count]:
        near, far = (float(d) for d in np.percentile(true[view][known[view]], (2, 98)))
        far = max(far, near * 1.1)
        cases.append(
            DepthCase(
                recording,
                view,
                prediction.views.names[view],
                score,
                float(abs_rel[view]),
                prediction.views.images[view],
                depth_picture(depth[view], shown[view], near, far),
                depth_picture(true[view], true[view] > 0, near, far),
                _colored(relative[view] / MOST_ERROR, known[view], _ERROR_COLORS),
                near,
                far,
            )
        )
    return cases


def depth_picture(depth: np.ndarray, known: np.ndarray, near: float, far: float) -> np.ndarray:
    """(H, W) depth to (H, W, 3) uint8: near is light, by logarithm, grey where not known."""
    known = known & np.isfinite(depth) & (depth > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.log(np.where(known, depth, near) / near) / math.log(far / near)
    return _colored(1.0 - share, known, _DEPTH_COLORS)


def _colored(share: np.ndarray, known: np.ndarray, colors: np.ndarray) -> np.ndarray:
    position = np.clip(share, 0, 1) * (len(colors) - 1)
    channels = [np.interp(position, np.arange(len(colors)), channel) for channel in colors.T]
    picture = np.stack(channels, axis=-1)
    return np.rint(np.where(known[..., None], picture, _UNKNOWN)).astype(np.uint8)


def ramp(kind: str) -> str:
    """The colours of a scale as a CSS gradient: "depth", from far to near, or "error"."""
    colors = _DEPTH_COLORS if kind == "depth" else _ERROR_COLORS
    stops: Sequence[str] = [f"rgb({r},{g},{b})" for r, g, b in colors.tolist()]
    return f"linear-gradient(to right,{','.join(stops)})"


def data_url(picture: np.ndarray, photograph: bool, longest: int = 320) -> str:
    """A picture that a page can hold: JPEG for photographs, PNG for what must stay exact."""
    image = Image.fromarray(picture)
    scale = longest / max(image.size)
    if photograph and scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    stream = io.BytesIO()
    kind = "jpeg" if photograph else "png"
    image.save(stream, kind, **({"quality": 85} if photograph else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
