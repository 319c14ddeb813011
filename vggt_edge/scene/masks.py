"""Which pixels of a depth map are worth no point: flying pixels at edges, and the sky."""

from __future__ import annotations

import numpy as np


def edge_mask(depth: np.ndarray, threshold: float = 0.05) -> np.ndarray:
    """Pixels at depth discontinuities, where networks smear foreground into background.

    A pixel is marked when the depths of its 3x3 neighbourhood span more than ``threshold``,
    relative, and the surface is not planar nearby: inverse depth, linear in the pixels of a plane,
    has a second difference of more than half the threshold within two pixels. The second condition
    spares floors and walls seen at a grazing angle, whose depth changes as fast.

    Args:
        depth: (..., H, W) z in the camera frame; not positive or not finite is invalid.
        threshold: relative step of depth that makes an edge.

    Returns:
        (..., H, W) bool, False at invalid pixels.
    """
    valid = np.isfinite(depth) & (depth > 0)
    inverse = np.where(valid, 1 / np.where(valid, depth, 1), np.nan)
    span = _window(inverse, np.fmax, 1) / _window(inverse, np.fmin, 1)
    bend = np.zeros_like(inverse)
    for axis in (-1, -2):
        before, after = _shifted(inverse, axis, 1, np.nan), _shifted(inverse, axis, -1, np.nan)
        bend = np.fmax(bend, np.abs(before - 2 * inverse + after) / inverse)
    bent = _window(bend, np.fmax, 2) > threshold / 2
    mask: np.ndarray = valid & (span > 1 + threshold) & bent
    return mask


def sky_mask(
    images: np.ndarray,
    depth: np.ndarray,
    confidence: np.ndarray,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """The sky, without a network: coloured like sky, smooth, reaching the top, not near.

    Colour alone cannot tell an overcast sky from a white ceiling, so the geometry decides: a sky
    pixel must be twice as far as the bulk of what has other colours in its view, or at least half
    again as far and among the tenth of all pixels that the network trusts least. Where nearly all
    of a view is coloured like sky there is nothing to compare with, and nothing is masked.

    Args:
        images: (S, H, W, 3) uint8 RGB.
        depth: (S, H, W).
        confidence: (S, H, W), compared by rank over all views.
        valid: (S, H, W) bool, True where a view shows picture; everywhere when None.

    Returns:
        (S, H, W) bool.
    """
    valid = np.ones(depth.shape, dtype=bool) if valid is None else valid
    mask = np.zeros(depth.shape, dtype=bool)
    if not valid.any():
        return mask
    doubtful = confidence <= np.percentile(confidence[valid], 10)
    for i in range(len(images)):
        # The picture proper, without the padding: its first row is the top that sky reaches.
        rows, columns = np.flatnonzero(valid[i].any(1)), np.flatnonzero(valid[i].any(0))
        if not len(rows):
            continue
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colored, smooth = _sky_colored(images[i][box])
        z = depth[i][box]
        known = np.isfinite(z) & (z > 0)
        rest = z[known & ~colored & valid[i][box]]
        if len(rest) < 0.05 * z.size:
            continue
        bulk = np.median(rest)
        far = ~known | (z > 2 * bulk) | ((z > 1.5 * bulk) & doubtful[i][box])
        sky = colored & far & valid[i][box]
        reached = _connected_to_top(sky & smooth)
        # The outlines of clouds are rough, and thin: take them in, and what they enclose.
        outlines = sky & _window(reached, np.logical_or, 3)
        reached = _connected_to_top(sky & (smooth | outlines))
        mask[i][box] = sky & _window(reached, np.logical_or, 3)
    return mask


def _sky_colored(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 to two (H, W) bool: blue, or bright and nearly grey; and without texture."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    is_blue = (blue >= green) & (green >= 0.9 * red) & (blue > 1.1 * red) & (blue > 70)
    is_overcast = (low > 150) & (high - low < 0.15 * high) & (blue >= 0.97 * red)
    grey = (red + green + blue) / 3
    rough = _window(grey, np.fmax, 1) - _window(grey, np.fmin, 1)
    return is_blue | is_overcast, rough < 24


def _connected_to_top(candidates: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels of ``candidates`` connected, by edges, with its first row."""
    height, width = candidates.shape
    runs = np.cumsum(np.diff(candidates.astype(np.int8), axis=1, prepend=0) == 1, axis=1)
    reached = np.zeros_like(candidates)
    reached[0] = candidates[0]
    before = -1
    # Sweeping down and up alternately, a row at a time: each turn of a winding border costs a
    # sweep, and skies have few.
    down, up = range(1, height), range(height - 2, -1, -1)
    while before != (before := int(reached.sum())):
        for order, step in ((down, -1), (up, 1)):
            for row in order:
                touched = (reached[row + step] | reached[row]) & candidates[row]
                hit = np.zeros(width + 1, dtype=bool)
                hit[runs[row][touched]] = True
                reached[row] = hit[runs[row]] & candidates[row]
    return reached


def _window(values: np.ndarray, reduce: np.ufunc, radius: int) -> np.ndarray:
    """A reduction over the (2 radius + 1) square around each pixel of (..., H, W)."""
    for axis in (-1, -2):
        # NaN and False are what the reductions in use ignore.
        fill = np.nan if values.dtype.kind == "f" else 0
        shifts = [_shifted(values, axis, step, fill) for step in range(-radius, radius + 1) if step]
        for shifted in shifts:
            values = reduce(values, shifted)
    return values


def _shifted(values: np.ndarray, axis: int, step: int, fill: float) -> np.ndarray:
    result = np.full_like(values, fill)
    length = values.shape[axis]
    if abs(step) < length:
        source, target = [slice(None)] * values.ndim, [slice(None)] * values.ndim
        source[axis] = slice(max(0, -step), length - max(0, step))
        target[axis] = slice(max(0, step), length - max(0, -step))
        result[tuple(target)] = values[tuple(source)]
    return result
