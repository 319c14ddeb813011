"""Putting a scene together: solids in local coordinates, lights, and room for a camera.

World and object frames have z up; metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .materials import Material
from .shapes import BOX, CONE, ELLIPSOID, HULL, LEAVES, TUBE

MAX_SOLIDS = 256

Vector = tuple[float, float, float] | np.ndarray
"""Three numbers, metres."""

Row = tuple[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray, Material, bool]
"""A solid: world centre, object_from_world, half extents, kind, extra, material, casts shadow."""


def turn_z(angle: float) -> np.ndarray:
    """(3, 3) rotation about the z axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def turn_x(angle: float) -> np.ndarray:
    """(3, 3) rotation about the x axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) rotation, uniform."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, ::-1]


@dataclass
class Interest:
    """Where cameras may be and what they may look at.

    Fields
        low, high   (3,) box, world, that holds the camera.
        targets     points worth looking at.
        distance    (least, most) metres between a camera and its target.
        orbit       whether cameras circle a target rather than wander.
    """

    low: np.ndarray
    high: np.ndarray
    targets: list[np.ndarray]
    distance: tuple[float, float]
    orbit: bool = False


@dataclass
class Light:
    """The light of one scene; fields as in ``lighting.Lights``."""

    key: np.ndarray
    sun: bool
    key_color: np.ndarray
    above: np.ndarray
    below: np.ndarray
    horizon: np.ndarray
    zenith: np.ndarray
    fill: np.ndarray = field(default_factory=lambda: np.zeros(3))
    fill_color: np.ndarray = field(default_factory=lambda: np.zeros(3))
    clouds: float = 0.0
    haze: float = 0.0
    reach: float = 0.3
    seed: float = 0.0


class Builder:
    """Collects the solids of one scene."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.rows: list[Row] = []
        self.light: Light | None = None
        self.interest: Interest | None = None
        self._origin = np.zeros(3)
        self._turn = np.eye(3)

    def finished_light(self) -> Light:
        """The scene's light.

        Raises:
            ValueError: if the scene has none.
        """
        if self.light is None:
            raise ValueError("a scene needs a light before it can be rendered")
        return self.light

    def finished_interest(self) -> Interest:
        """Where cameras go.

        Raises:
            ValueError: if the scene does not say.
        """
        if self.interest is None:
            raise ValueError("a scene needs an interest before cameras can be placed")
        return self.interest

    @contextmanager
    def placed(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Iterator[None]:
        """Build inside a frame moved to (x, y, z) and turned by ``yaw`` about z."""
        origin, turn = self._origin, self._turn
        self._origin, self._turn = origin + turn @ np.array([x, y, z]), turn @ turn_z(yaw)
        try:
            yield
        finally:
            self._origin, self._turn = origin, turn

    def world(self, x: float, y: float, z: float) -> np.ndarray:
        """(3,) world coordinates of a point of the current frame."""
        return self._origin + self._turn @ np.array([x, y, z])

    def add(
        self,
        kind: int,
        center: Vector,
        half: Vector,
        material: Material,
        rotation: np.ndarray | None = None,
        extra: np.ndarray | None = None,
        shadow: bool = True,
    ) -> None:
        """Add a solid of any kind; beyond ``MAX_SOLIDS`` further ones are left out."""
        if len(self.rows) >= MAX_SOLIDS:
            return
        turn = self._turn if rotation is None else self._turn @ rotation
        self.rows.append(
            (
                self._origin + self._turn @ np.asarray(center, dtype=float),
                turn.T,
                np.maximum(np.asarray(half, dtype=float), 1e-3),
                kind,
                np.zeros(12) if extra is None else extra,
                material,
                shadow,
            )
        )

    def box(
        self,
        x0: float,
        y0: float,
        z0: float,
        x1: float,
        y1: float,
        z1: float,
        material: Material,
        shadow: bool = True,
    ) -> None:
        """A box between two corners of the current frame."""
        low, high = np.array([x0, y0, z0]), np.array([x1, y1, z1])
        self.add(BOX, (low + high) / 2, np.abs(high - low) / 2, material, shadow=shadow)

    def ellipsoid(
        self,
        center: Vector,
        half: Vector,
        material: Material,
        rotation: np.ndarray | None = None,
    ) -> None:
        """An ellipsoid."""
        self.add(ELLIPSOID, center, half, material, rotation)

    def cylinder(
        self,
        x: float,
        y: float,
        z0: float,
        z1: float,
        radius: float,
        material: Material,
        top: float = 1.0,
        hollow: bool = False,
    ) -> None:
        """An upright cylinder, or a cone whose top radius is ``top`` times that of its base."""
        self._round((x, y, (z0 + z1) / 2), radius, (z1 - z0) / 2, material, top, None, hollow)

    def rod(
        self,
        start: Vector,
        end: Vector,
        radius: float,
        material: Material,
        top: float = 1.0,
    ) -> None:
        """A cylinder between two points."""
        a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        z = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
        x = cross(z, np.eye(3)[0 if abs(z[0]) < 0.8 else 1])
        x /= np.linalg.norm(x)
        rotation = np.stack([x, cross(z, x), z], axis=1)
        self._round((a + b) / 2, radius, float(np.linalg.norm(b - a)) / 2, material, top, rotation)

    def _round(
        self,
        center: Vector,
        radius: float,
        half: float,
        material: Material,
        top: float,
        rotation: np.ndarray | None,
        hollow: bool = False,
    ) -> None:
        # The unit cone has radius 1 half-way up; its box must hold the wider end.
        middle = radius * (1 + top) / 2
        extra = np.zeros(12)
        extra[0] = (top - 1) / (1 + top)
        self.add(
            TUBE if hollow else CONE, center, (middle, middle, half), material, rotation, extra
        )

    def hull(
        self,
        center: Vector,
        half: Vector,
        material: Material,
        cut: float | np.ndarray = 1.4,
        rotation: np.ndarray | None = None,
    ) -> None:
        """A box with its twelve edges cut: ``cut`` is one reach (2 leaves the edges) or twelve."""
        reach = np.broadcast_to(np.asarray(cut, dtype=float), (12,)).copy()
        reach[:6] *= -1
        self.add(HULL, center, half, material, rotation, reach)

    def crown(
        self,
        center: Vector,
        half: Vector,
        material: Material,
        density: float = 0.5,
        leaf: float = 0.12,
    ) -> None:
        """An ellipsoid shell of leaves with gaps between them; ``leaf`` metres across."""
        extra = np.zeros(12)
        extra[:3] = 1 - density, float(np.mean(half)) / leaf, self.rng.uniform(0, 20)
        self.add(LEAVES, center, half, material, None, extra)


def solid_bounds(row: Row) -> np.ndarray:
    """(3,) half extents, along the object's axes, of the box that holds a solid."""
    half, kind, extra = row[2], row[3], row[4]
    if kind in (CONE, TUBE):
        return half * np.array([1 + abs(extra[0]), 1 + abs(extra[0]), 1.0])
    return half


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3,) cross product; numpy's own costs fifty times as much on single vectors."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


class Boxes:
    """The boxes that hold a scene's solids, for quick questions about free space."""

    def __init__(self, builder: Builder):
        self._turn = np.stack([row[1] for row in builder.rows])
        self._half = np.stack([solid_bounds(row) for row in builder.rows])
        center = np.stack([row[0] for row in builder.rows])
        self._moved = (self._turn @ center[..., None])[..., 0]

    def _local(self, points: np.ndarray) -> np.ndarray:
        flat = points @ self._turn.reshape(-1, 3).T
        return np.asarray(flat.reshape(len(points), -1, 3))

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """(N,) distance from points (N, 3) to the nearest box; not positive inside one."""
        outside = np.abs(self._local(points) - self._moved) - self._half
        squared = (np.maximum(outside, 0) ** 2).sum(-1)
        return np.asarray((np.sqrt(squared) + np.minimum(outside.max(-1), 0)).min(1))

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) ray parameters from ``origin`` (3,) to the first box; infinite for a miss."""
        o = self._local(origin[None]) - self._moved
        inverse = 1 / (self._local(directions) + 1e-12)
        middle, reach = -o * inverse, self._half * np.abs(inverse)
        near, far = (middle - reach).max(-1), (middle + reach).min(-1)
        return np.asarray(np.where((near <= far) & (near > 0), near, np.inf).min(1))
