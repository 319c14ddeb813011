"""Solids and where rays meet them.

Every solid is a unit shape in *normalised* coordinates, ``q = frame @ (x - center)`` with
``frame = diag(1 / half) @ object_from_world``: boxes are ``|q| <= 1`` per axis, ellipsoids
``|q| <= 1``, cones ``hypot(qx, qy) <= 1 + k qz`` for ``|qz| <= 1``. Rays are carried into these
coordinates without renormalising their direction, so the ray parameter keeps its unit: z-depth for
camera rays, metres for shadow rays.

Intersections avoid ``torch.where``: an arithmetic penalty for a miss is several times faster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .noise import value_noise

BOX, ELLIPSOID, CONE, HULL, TUBE, LEAVES = range(6)

FAR = 1e8
"""Ray parameters above this are misses."""

_MISS = 1e30
_NEAR = 1e-3
_TINY = 1e-9

HULL_SLABS = ((0, 1, 1.0), (0, 1, -1.0), (0, 2, 1.0), (0, 2, -1.0), (1, 2, 1.0), (1, 2, -1.0))
"""The slabs that cut a hull out of the unit box: ``low <= q[i] + sign q[j] <= high``."""


class Solids(NamedTuple):
    """The solids of a batch of scenes, ``per_scene`` to a scene, N = scenes x per_scene in all.

    Fields
        frame     (N, 3, 3) normalised coordinates from world directions.
        center    (N, 3) world, metres.
        half      (N, 3) half extents along the object's axes, metres; 0 marks an unused row.
        bound     (N, 3) half extents of the box that holds it (cones are wider than their middle).
    kind      (N,) int64, one of the kinds above.
        extra     (N, 12) cone, tube: slope k first; hull: six lows, six highs; leaves: threshold,
                  frequency, seed.
        material  (N, M), see ``materials``.
        shadow    (N,) bool: whether it blocks light.
        per_scene rows a scene.
    """

    frame: Tensor
    center: Tensor
    half: Tensor
    bound: Tensor
    kind: Tensor
    extra: Tensor
    material: Tensor
    shadow: Tensor
    per_scene: int


def _box(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = (d + _TINY).reciprocal()
    middle, reach = o * -inverse, inverse.abs()
    return (middle - reach).amax(1), (middle + reach).amin(1)


def _first(near: Tensor, far: Tensor) -> Tensor:
    return near + ((near - far).relu() + (_NEAR - near).relu()) * _MISS


def _closest_approach(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Quadrics are solved from the point nearest their centre: from far away, float32 cancels.
    dd = (d * d).sum(1)
    t = (o * d).sum(1) / -dd
    return t, o + t[:, None] * d, dd


def _ellipsoid(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    middle, q, dd = _closest_approach(o, d)
    inside = 1 - (q * q).sum(1)
    reach = (inside.relu() / dd).sqrt()
    miss = (-inside).relu() * _MISS
    return middle - reach + miss, middle + reach + miss


def _cone(o: Tensor, d: Tensor, slope: Tensor, capped: bool) -> Tensor:
    k = slope[:, None]
    middle, q, _ = _closest_approach(o, d)
    (qx, qy, qz), (dx, dy, dz) = q.unbind(1), d.unbind(1)
    radius = 1 + k * qz
    a = dx * dx + dy * dy - k * k * dz * dz + _TINY
    b = qx * dx + qy * dy - k * radius * dz
    c = qx * qx + qy * qy - radius * radius
    discriminant = b * b - a * c
    root = discriminant.relu().sqrt()
    miss = (-discriminant).relu() * _MISS
    best = torch.full_like(middle, _MISS)
    for t in ((-b - root) / a, (-b + root) / a):
        z = qz + t * dz
        outside = (z.abs() - 1).relu() + (-1 - k * z).relu() + (_NEAR - middle - t).relu()
        best = torch.minimum(best, middle + t + outside * _MISS + miss)
    if capped:
        z = -torch.sign(dz)
        t = (z - qz) / (dz + _TINY)
        x, y, r = qx + t * dx, qy + t * dy, 1 + k * z
        outside = (x * x + y * y - r * r).relu() + (_NEAR - middle - t).relu()
        best = torch.minimum(best, middle + t + outside * _MISS)
    return best.nan_to_num_(nan=_MISS, posinf=_MISS, neginf=_MISS)


def _hull(o: Tensor, d: Tensor, extra: Tensor) -> Tensor:
    near, far = _box(o, d)
    for slab, (i, j, sign) in enumerate(HULL_SLABS):
        position = o[:, i] + sign * o[:, j]
        inverse = (d[:, i] + sign * d[:, j] + _TINY).reciprocal()
        first = (extra[:, slab, None] - position) * inverse
        second = (extra[:, 6 + slab, None] - position) * inverse
        near = torch.maximum(near, torch.minimum(first, second))
        far = torch.minimum(far, torch.maximum(first, second))
    return _first(near, far)


def _leaves(o: Tensor, d: Tensor, extra: Tensor) -> Tensor:
    best = torch.full((), _MISS, device=d.device)
    for t in _ellipsoid(o, d):
        q = o + t.clamp(-FAR, FAR)[:, None] * d
        place = (q * extra[:, 1, None, None]) + extra[:, 2, None, None]
        noise = value_noise(place.movedim(1, 0).reshape(3, -1)).view_as(t)
        gap = (extra[:, :1] - noise).relu() + (_NEAR - t).relu()
        best = torch.minimum(best, t + gap * _MISS)
    return best


def intersect(kind: int, o: Tensor, d: Tensor, extra: Tensor) -> Tensor:
    """First ray parameters (P, R) above 1e-3 where rays meet solids of one kind; huge for a miss.

    Args:
        kind: the kind of all P solids.
        o: (P, 3, 1) or (P, 3, R) ray origins in normalised coordinates.
        d: (P, 3, R) ray directions, likewise.
        extra: (P, 12) parameters of the solids.
    """
    if kind == BOX:
        return _first(*_box(o, d))
    if kind == ELLIPSOID:
        near, far = _ellipsoid(o, d)
        return _first(near, far)
    if kind == HULL:
        return _hull(o, d, extra)
    if kind == LEAVES:
        return _leaves(o, d, extra)
    return _cone(o, d, extra[:, 0], capped=kind == CONE)


def gradient(kind: int, q: Tensor, extra: Tensor) -> Tensor:
    """Outward gradient (3, N), normalised coordinates, at surface points q (3, N) of one kind.

    ``extra`` is (12, N).
    """
    if kind in (ELLIPSOID, LEAVES):
        return q
    if kind == BOX:
        size = q.abs()
        return q.sign() * (size >= size.amax(0, keepdim=True))
    if kind == HULL:
        return _hull_gradient(q, extra)
    k, (x, y, z) = extra[0], q.unbind(0)
    side = torch.stack([x, y, -k * (1 + k * z)])
    if kind == TUBE:
        return side
    zero = torch.zeros_like(z)
    on_cap = (1 - z.abs()).abs() < (torch.hypot(x, y) - 1 - k * z).abs()
    return torch.where(on_cap, torch.stack([zero, zero, z.sign()]), side)


def _hull_gradient(q: Tensor, extra: Tensor) -> Tensor:
    value = torch.stack([*q.unbind(0), *(q[i] + sign * q[j] for i, j, sign in HULL_SLABS)])
    ones = torch.ones_like(q)
    high = torch.cat([ones, extra[6:]])
    low = torch.cat([-ones, extra[:6]])
    face = torch.cat([value - high, low - value]).argmax(0)
    normals = torch.zeros(9, 3)
    normals[:3] = torch.eye(3)
    for slab, (i, j, sign) in enumerate(HULL_SLABS):
        normals[3 + slab, i], normals[3 + slab, j] = 1.0, sign
    return torch.cat([normals, -normals]).T.to(q)[:, face]
