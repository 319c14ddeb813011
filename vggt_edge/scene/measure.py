"""Where views really see the points of a sparse model: small patches matched in the pictures.

The tracks of ``tracks.build_sparse_model`` come from depth and cameras, and agree with them by
construction. Here each sighting is moved to where the picture looks like the point's reference
view: translation by Gauss-Newton (Lucas and Kanade 1981; inverse compositional form of Baker and
Matthews 2004) after a warp by the surface's own tilt, on patches of zero mean and unit length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .. import geometry
from ..sparse_model import SparseModel
from ..types import Scene
from .reproject import sample_depth

_RADIUS = 4
_STEPS = 8
# How far a patch may be from a plane, second difference of inverse depth over itself.
_BENT = 0.05
# Least mean squared change of a patch of unit length a pixel, in its dullest direction.
_SHARP = 0.01
# Sightings handled at a time: 81 samples of each, a few arrays of them.
_CHUNK = 20_000


def measure_observations(
    model: SparseModel, scene: Scene, *, min_correlation: float = 0.9, max_shift: float = 3.0
) -> SparseModel:
    """The same points with measured sightings; those that cannot be measured are dropped.

    Args:
        model: from ``build_sparse_model`` of the scene.
        scene: its views, cameras and depth.
        min_correlation: of a sighting's patch with the reference's.
        max_shift: furthest a sighting may be off, view pixels.

    Returns:
        Points that two views or more see, each with its reference sighting, the first one, and
        those that were measured against it.
    """
    prediction, views = scene.prediction, scene.views
    if prediction.depth is None:
        raise ValueError("measure_observations needs a scene with depth")
    point, image = model.observation_point, model.observation_image
    rows = np.flatnonzero(point >= 0)
    order = rows[np.argsort(point[rows], kind="stable")]
    first = np.ones(len(order), dtype=bool)
    first[1:] = point[order[1:]] != point[order[:-1]]
    reference = np.full(len(model.points), -1)
    reference[point[order[first]]] = order[first]
    ones = np.ones((len(point), 1))
    to_view = np.linalg.inv(views.source_from_view)[image]
    pixels = (to_view @ np.concatenate([model.observations, ones], axis=1)[..., None])[..., :2, 0]
    grey = views.images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    kept = np.zeros(len(point), dtype=bool)
    kept[order[first]] = True
    others = order[~first]
    for start in range(0, len(others), _CHUNK):
        part = others[start : start + _CHUNK]
        base = reference[point[part]]
        tilt, usable = _tilt(scene, prediction.depth, pixels[base], image[base], image[part])
        shift, correlation = _match(
            grey, pixels[base], image[base], pixels[part], image[part], tilt
        )
        good = usable & (correlation >= min_correlation)
        good &= np.linalg.norm(shift, axis=1) <= max_shift
        kept[part] = good
        pixels[part[good]] += shift[good]
    lengths = np.bincount(point[kept], minlength=len(model.points))
    kept &= lengths[np.maximum(point, 0)] >= 2
    number = np.cumsum(lengths >= 2) - 1
    moved = (
        views.source_from_view[image[kept]]
        @ np.concatenate([pixels[kept], ones[kept]], axis=1)[..., None]
    )[..., :2, 0]
    seen = lengths >= 2
    return replace(
        model,
        points=model.points[seen],
        colors=model.colors[seen],
        errors=np.full(int(seen.sum()), -1.0),
        observations=moved,
        observation_image=image[kept],
        observation_point=number[point[kept]],
    )


def _tilt(
    scene: Scene, depths: np.ndarray, pixels: np.ndarray, base: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2, 2) derivative of the pixel in ``other`` by the pixel in ``base``, by its depth."""
    cameras, valid = scene.cameras, scene.views.valid
    tilt, usable = np.tile(np.eye(2), (len(pixels), 1, 1)), np.zeros(len(pixels), dtype=bool)
    keys, groups = np.unique(np.stack([base, other], axis=1), axis=0, return_inverse=True)
    groups = groups.ravel()
    order = np.argsort(groups, kind="stable")
    ends = np.searchsorted(groups[order], np.arange(len(keys)), side="right")
    for (i, j), rows in zip(keys.tolist(), np.split(order, ends[:-1]), strict=True):
        steps = _RADIUS * np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
        at = (pixels[rows, None] + steps).reshape(-1, 2)
        depth = sample_depth(depths[i], at, valid[i])
        ray = np.concatenate([at, np.ones((len(at), 1))], axis=1)
        camera = (ray @ np.linalg.inv(cameras.intrinsics[i]).T) * depth[:, None]
        world = geometry.transform(geometry.invert_rigid(cameras.camera_from_world[i]), camera)
        seen = geometry.project(world, cameras.intrinsics[j], cameras.camera_from_world[j])
        left, right, up, down, _ = np.moveaxis(seen[:, :2].reshape(-1, 5, 2), 1, 0)
        tilt[rows] = np.stack([right - left, down - up], axis=-1) / (2 * _RADIUS)
        # On a plane inverse depth is linear in the pixel: a patch must lie on one.
        near = (1 / depth).reshape(-1, 5)
        bent = np.abs(near[:, [0, 2]] + near[:, [1, 3]] - 2 * near[:, 4:]).max(axis=1) / near[:, 4]
        usable[rows] = np.isfinite(seen).reshape(-1, 15).all(axis=1) & (bent < _BENT)
    size = np.linalg.norm(np.where(np.isfinite(tilt), tilt, 0), axis=(1, 2))
    # Seen from the side, or across an edge of depth, a patch has nothing to be matched with.
    usable &= (size < 4) & (np.abs(np.linalg.det(np.where(usable[:, None, None], tilt, 0))) > 0.1)
    return np.where(usable[:, None, None], tilt, np.eye(2)), usable


def _match(
    grey: np.ndarray,
    base_pixel: np.ndarray,
    base: np.ndarray,
    pixel: np.ndarray,
    other: np.ndarray,
    tilt: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) shifts of the patches in ``other`` and (N,) correlations there."""
    side = np.arange(-_RADIUS, _RADIUS + 1)
    offset = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float64)
    at = base_pixel[:, None] + offset
    template = _sample(grey, base, at)
    across = (_sample(grey, base, at + [0.5, 0]) - _sample(grey, base, at - [0.5, 0]))[..., None]
    along = (_sample(grey, base, at + [0, 0.5]) - _sample(grey, base, at - [0, 0.5]))[..., None]
    slope = np.concatenate([across, along], axis=-1)
    norm = np.linalg.norm(template - template.mean(axis=1, keepdims=True), axis=1)
    safe = np.maximum(norm, 1e-6)[:, None]
    template = (template - template.mean(axis=1, keepdims=True)) / safe
    slope = (slope - slope.mean(axis=1, keepdims=True)) / safe[..., None]
    # Brightness may differ by a factor: what a step looks like is taken without it.
    slope -= template[..., None] * np.einsum("nk,nkc->nc", template, slope)[:, None]
    normal = np.einsum("nki,nkj->nij", slope, slope)
    sharp = (np.linalg.eigvalsh(normal)[:, 0] > _SHARP) & (norm > 2 * len(side))
    inverse = np.linalg.inv(np.where(sharp[:, None, None], normal, np.eye(2)))
    warped = np.einsum("nij,kj->nki", tilt, offset)
    shift = np.zeros_like(pixel)
    for _ in range(_STEPS):
        patch = _unit(_sample(grey, other, pixel[:, None] + shift[:, None] + warped))
        step = np.einsum("nij,nkj,nk->ni", inverse, slope, patch - template)
        # A step in the template's pixels, turned into the other view's and taken back.
        shift -= np.einsum("nij,nj->ni", tilt, np.clip(step, -1, 1))
        shift = np.clip(shift, -10, 10)
    patch = _unit(_sample(grey, other, pixel[:, None] + shift[:, None] + warped))
    return shift, np.where(sharp, np.einsum("nk,nk->n", patch, template), -1.0)


def _unit(patch: np.ndarray) -> np.ndarray:
    centered = patch - patch.mean(axis=1, keepdims=True)
    length: np.ndarray = np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6)
    return centered / length


def _sample(grey: np.ndarray, view: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, K) brightness at (N, K, 2) places of each view, bilinear, its border repeated."""
    height, width = grey.shape[1:]
    column = np.clip(at[..., 0], 0, width - 1.001)
    row = np.clip(at[..., 1], 0, height - 1.001)
    c, r = column.astype(np.int64), row.astype(np.int64)
    fc, fr = column - c, row - r
    v = view[:, None]
    top = grey[v, r, c] * (1 - fc) + grey[v, r, c + 1] * fc
    bottom = grey[v, r + 1, c] * (1 - fc) + grey[v, r + 1, c + 1] * fc
    result: np.ndarray = top * (1 - fr) + bottom * fr
    return result
