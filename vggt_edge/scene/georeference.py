"""A scene in metres: aligned to GPS, or to cameras that are known.

A handful of GPS positions, metres off and all at eye level, says where north is and how long a
metre is, but hardly which way is up. Photographers and drones, however, hold the horizon level. So
up is taken from the cameras where they agree on it, and GPS is asked for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from .. import geometry
from ..errors import InputError
from ..geometry import Similarity
from ..types import Cameras, Scene
from .gps import Positions, enu_from_geodetic
from .robust_fit import robust_similarity, tukey
from .sim3 import rotation_of

# Cameras agree on what is level when their x axes leave a plane by no more than this, radians.
_LEVEL = 0.17
# What a phone's GPS may be off by, metres, when it does not say.
_ACCURACY = 5.0
_PAIRS = 2000

Up = Literal["auto", "cameras", "gps"]


@dataclass(frozen=True)
class Georeference:
    """Where on Earth a scene is.

    Fields
        enu_from_world  to metres east, north and up of ``origin``.
        origin          latitude and longitude in degrees, altitude in metres, WGS 84.
        residuals       (S,) metres from each camera to its GPS position, level where that has no
                        altitude; NaN where there is none.
        inliers         (S,) bool: cameras whose GPS was believed.
        up              what decided which way is up, "cameras" or "gps".
    """

    enu_from_world: Similarity
    origin: tuple[float, float, float]
    residuals: np.ndarray
    inliers: np.ndarray
    up: str

    def to_json(self, metres_from_world: float = 1.0) -> dict[str, Any]:
        """For a file beside the scene.

        Args:
            metres_from_world: what the scene has been scaled by since.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = (
            self.enu_from_world.scale / metres_from_world * self.enu_from_world.rotation
        )
        matrix[:3, 3] = self.enu_from_world.translation
        return {
            "origin": dict(zip(("latitude", "longitude", "altitude"), self.origin, strict=True)),
            "enu_from_world": matrix.tolist(),
            "up": self.up,
            "inliers": int(self.inliers.sum()),
            "median_residual": round(float(np.median(self.residuals[self.inliers])), 3),
        }


def georeference(cameras: Cameras, positions: Positions, *, up: Up = "auto") -> Georeference:
    """Align cameras to GPS by a robust similarity; wrong positions are left aside.

    Args:
        cameras: of a scene.
        positions: one a camera, from ``read_positions``.
        up: which way is up is decided by the "cameras", whose horizons are level, or by "gps",
            whose altitudes then matter; "auto" asks the cameras if they agree with each other.

    Raises:
        InputError: too few positions, or so close together that they say nothing.
    """
    known = np.flatnonzero(positions.known)
    if len(known) < 2:
        raise InputError(
            f"{len(known)} of {len(cameras)} views have a GPS position, alignment needs 2: "
            "use pictures as the camera wrote them, with EXIF data"
        )
    latitude, longitude = positions.latitude[known], positions.longitude[known]
    altitude = positions.altitude[known]
    has_altitude = np.isfinite(altitude)
    ground = float(np.median(altitude[has_altitude])) if has_altitude.any() else 0.0
    origin = (float(np.median(latitude)), float(np.median(longitude)), ground)
    target = enu_from_geodetic(
        latitude, longitude, np.where(has_altitude, altitude, ground), origin
    )
    accuracy = np.where(np.isfinite(positions.accuracy), positions.accuracy, _ACCURACY)[known]
    accuracy = np.clip(accuracy, 1.0, 50.0)
    spread = float(np.linalg.norm(np.ptp(target[:, :2], axis=0)))
    if spread < 2 * np.median(accuracy):
        raise InputError(
            f"the GPS positions lie within {spread:.1f} m, no more than they may be wrong: "
            "they cannot tell how large the scene is"
        )
    source = cameras.centers[known]
    level, agree = _up_of_cameras(cameras)
    # Within three times its accuracy a position counts as right.
    tolerance = 3 * accuracy
    by_cameras = up == "cameras" or (
        up == "auto" and (agree or not _fixes_up(target, has_altitude))
    )
    try:
        if by_cameras:
            fitted = _fit_level(source, target, has_altitude, tolerance, level)
        else:
            if not has_altitude.all():
                source, target, tolerance = (
                    part[has_altitude] for part in (source, target, tolerance)
                )
            fitted = robust_similarity(source, target, tolerance).similarity
    except ValueError as error:
        raise InputError(f"GPS does not fit the cameras: {error}") from error
    placed = fitted.apply(cameras.centers)
    everywhere = enu_from_geodetic(
        positions.latitude,
        positions.longitude,
        np.where(np.isfinite(positions.altitude), positions.altitude, ground),
        origin,
    )
    gap = placed - everywhere
    flat = by_cameras | ~np.isfinite(positions.altitude)
    gap[:, 2] = np.where(flat, 0.0, gap[:, 2])
    residuals = np.linalg.norm(gap, axis=1)
    inliers = np.zeros(len(cameras), dtype=bool)
    inliers[known] = residuals[known] <= 3 * accuracy
    if inliers.sum() <= len(known) / 2:
        raise InputError(
            f"only {inliers.sum()} of {len(known)} GPS positions fit the cameras: one or the other "
            "is wrong"
        )
    return Georeference(fitted, origin, residuals, inliers, "cameras" if by_cameras else "gps")


def _up_of_cameras(cameras: Cameras) -> tuple[np.ndarray, bool]:
    """Unit vector up in the world, and whether the cameras agree on it.

    Level cameras, however they are pitched, have their x axes in the horizontal plane.
    """
    x, y, z = np.moveaxis(cameras.camera_from_world[:, :, :3], 1, 0)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    up = vectors[:, 0]
    if values[1] < 2 * _LEVEL**2:
        # All look one way: any direction across x is as level. Then they are held upright.
        across = vectors[:, 2]
        mean = -y.mean(axis=0)
        up = mean - across * (across @ mean)
        up = up / max(float(np.linalg.norm(up)), 1e-12)
    # People hold cameras upright; drones look down.
    if float(np.mean(-y @ up)) + 0.5 * float(np.mean(-z @ up)) < 0:
        up = -up
    return up, bool(values[0] < _LEVEL**2)


def _fixes_up(target: np.ndarray, has_altitude: np.ndarray) -> bool:
    """Whether positions with altitude are no line, so that no turn about it is left free."""
    if has_altitude.sum() < 3:
        return False
    spread = np.linalg.svd(target[has_altitude] - target[has_altitude].mean(axis=0))[1]
    return bool(spread[1] > 0.1 * spread[0])


def _fit_level(
    source: np.ndarray,
    target: np.ndarray,
    has_altitude: np.ndarray,
    tolerance: np.ndarray,
    up: np.ndarray,
) -> Similarity:
    """Scale, heading and place of cameras of which up is known."""
    axis = np.cross(up, [0.0, 0.0, 1.0])
    sine, cosine = np.linalg.norm(axis), up[2]
    axis = axis / sine if sine > 1e-12 else np.array([1.0, 0.0, 0.0])
    upright = rotation_of(axis * np.arctan2(sine, cosine))
    turned = source @ upright.T
    # In the plane a similarity is a complex factor and a shift.
    here, there = turned[:, 0] + 1j * turned[:, 1], target[:, 0] + 1j * target[:, 1]
    factor, shift = _fit_plane(here, there, tolerance)
    scale, heading = abs(factor), float(np.angle(factor))
    height = target[:, 2] - scale * turned[:, 2]
    rise = float(np.median(height[has_altitude] if has_altitude.any() else height))
    heading_only = rotation_of(np.array([0.0, 0.0, heading]))
    return Similarity(scale, heading_only @ upright, np.array([shift.real, shift.imag, rise]))


def _fit_plane(
    here: np.ndarray, there: np.ndarray, tolerance: np.ndarray
) -> tuple[complex, complex]:
    pairs = np.array(list(combinations(range(len(here)), 2)))
    if len(pairs) > _PAIRS:
        pairs = pairs[np.random.default_rng(0).choice(len(pairs), _PAIRS, replace=False)]
    run = here[pairs[:, 1]] - here[pairs[:, 0]]
    apart = np.abs(run) > 1e-9 * max(float(np.abs(here).max()), 1e-300)
    if not apart.any():
        raise ValueError("the cameras are all in one place")
    factors = (there[pairs[:, 1]] - there[pairs[:, 0]])[apart] / run[apart]
    shifts = there[pairs[apart, 0]] - factors * here[pairs[apart, 0]]

    def errors_of(factor: complex, shift: complex) -> np.ndarray:
        return np.abs(factor * here + shift - there) / tolerance

    def cost_of(model: tuple[complex, complex]) -> float:
        return float(np.sum(np.minimum(errors_of(*model) ** 2, 1.0)))

    best = min(zip(factors.tolist(), shifts.tolist(), strict=True), key=cost_of)
    for _ in range(20):
        weights = tukey(errors_of(*best)) / tolerance**2
        if np.count_nonzero(weights) < 2:
            break
        weights = weights / weights.sum()
        a, b = here - weights @ here, there - weights @ there
        factor = complex(np.sum(weights * a.conj() * b) / np.sum(weights * np.abs(a) ** 2))
        fitted = (factor, complex(weights @ there - factor * (weights @ here)))
        if not cost_of(fitted) <= cost_of(best) * (1 + 1e-9):
            break
        best = fitted
    if abs(best[0]) < 1e-12:
        raise ValueError("the positions do not move with the cameras")
    return best


def similarity_to_cameras(
    cameras: Cameras, known: Cameras, *, tolerance: float = 0.05
) -> Similarity:
    """``known_from_world``: onto cameras of the same views that are known, robustly.

    Centres give the scale, centres and viewing directions the rest, so cameras on a line, or two of
    them, are enough.

    Args:
        cameras: of a scene.
        known: as many, in the same order, in their own world.
        tolerance: share of the known cameras' extent that a right one may be off by.

    Raises:
        InputError: numbers differ, or fewer than two cameras that are apart.
    """
    if len(cameras) != len(known) or len(cameras) < 2:
        raise InputError(
            f"{len(cameras)} cameras cannot be aligned to {len(known)}: give as many, at least 2"
        )
    here, there = cameras.centers, known.centers
    pairs = np.array(list(combinations(range(len(here)), 2)))
    if len(pairs) > _PAIRS:
        pairs = pairs[np.random.default_rng(0).choice(len(pairs), _PAIRS, replace=False)]
    run, way = (np.linalg.norm(c[pairs[:, 1]] - c[pairs[:, 0]], axis=1) for c in (here, there))
    long = (run > 1e-9) & (way > 0.05 * way.max()) & (way > 1e-9)
    if not long.any():
        raise InputError("the cameras are all in one place: nothing tells how large the scene is")
    scale = float(np.median(way[long] / run[long]))
    reach = float(way.max())
    # Each camera stands for its centre and a point along each of its axes.
    axes = [
        np.concatenate([np.zeros((1, 3)), np.eye(3) * length]) for length in (reach / scale, reach)
    ]
    source, target = (
        geometry.transform(c.world_from_camera, np.tile(points, (len(c), 1, 1))).reshape(-1, 3)
        for c, points in zip((cameras, known), axes, strict=True)
    )
    try:
        return robust_similarity(source, target, tolerance * reach * 2).similarity
    except ValueError as error:
        raise InputError(f"the cameras do not fit the known ones: {error}") from error


def moved(scene: Scene, new_from_world: Similarity, units: str = "metres") -> Scene:
    """The scene in another world, its depths scaled with it."""
    prediction = scene.prediction
    cameras, scale = scene.cameras, new_from_world.scale
    poses = new_from_world.apply_to_cameras(cameras.camera_from_world)

    def apply(points: np.ndarray) -> np.ndarray:
        return new_from_world.apply(points).astype(np.float32)

    return replace(
        scene,
        prediction=replace(
            prediction,
            cameras=replace(cameras, camera_from_world=poses),
            depth=None
            if prediction.depth is None
            else (scale * prediction.depth).astype(np.float32),
            points=None if prediction.points is None else apply(prediction.points),
        ),
        points=apply(scene.points),
        units=units,
    )


def in_metres(scene: Scene, enu_from_world: Similarity) -> Scene:
    """The scene in metres, still in its first camera's frame, as viewers and formats expect."""
    return moved(scene, Similarity(enu_from_world.scale, np.eye(3), np.zeros(3)))
