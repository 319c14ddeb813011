"""Where pictures say they were taken, and metres around there."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import pictures
from ..errors import ImageError

# WGS 84: half the equatorial axis in metres, and the first eccentricity squared.
_AXIS = 6_378_137.0
_FLATTENING = 1 / 298.257223563
_ECCENTRICITY = _FLATTENING * (2 - _FLATTENING)


@dataclass(frozen=True)
class Positions:
    """What GPS says of S pictures; NaN where it says nothing.

    Fields
        latitude   (S,) degrees north, WGS 84.
        longitude  (S,) degrees east.
        altitude   (S,) metres, above what the device took for zero.
        accuracy   (S,) metres, horizontal, as the device judged it.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    altitude: np.ndarray
    accuracy: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """(S,) bool: pictures with latitude and longitude."""
        known: np.ndarray = np.isfinite(self.latitude) & np.isfinite(self.longitude)
        return known


def read_positions(sources: Sequence[str]) -> Positions:
    """GPS from the EXIF data of pictures (Exif 3.0, 4.6.7).

    Args:
        sources: as in ``Views.sources``. Frames of videos, URLs and files that cannot be read have
            no position.
    """
    rows = np.full((len(sources), 4), np.nan)
    with pictures.quiet():
        for row, source in zip(rows, sources, strict=True):
            if os.path.isfile(source):
                try:
                    row[:] = _position(pictures.gps_of(source))
                except ImageError:
                    continue  # whoever needs its pixels will say so
    return Positions(*rows.T)


def _position(tags: dict[int, Any]) -> tuple[float, float, float, float]:
    nothing = (math.nan,) * 4
    latitude, longitude = _degrees(tags.get(2), tags.get(1)), _degrees(tags.get(4), tags.get(3))
    # Devices without a fix write zeros; nobody takes pictures where the equator meets Greenwich.
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or latitude == longitude == 0:
        return nothing
    altitude = _number(tags.get(6))
    if tags.get(5) in (1, b"\x01"):  # below sea level
        altitude = -altitude
    return latitude, longitude, altitude, _number(tags.get(31))


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _degrees(value: Any, reference: Any) -> float:
    """Degrees of a triple of degrees, minutes and seconds, of which the last two may be missing."""
    if not isinstance(value, (tuple, list)) or not 1 <= len(value) <= 3:
        return math.nan
    first, *rest = (_number(part) for part in value)
    if isinstance(reference, bytes):
        reference = reference.decode("ascii", "replace")
    negative = str(reference).strip("\x00 ").upper()[:1] in ("S", "W")
    # Some devices leave minutes or seconds undefined, 0/0.
    parts = [part if math.isfinite(part) else 0.0 for part in rest]
    degrees = first + sum(part / 60**power for power, part in enumerate(parts, start=1))
    return -degrees if negative else degrees


def enu_from_geodetic(
    latitude: np.ndarray, longitude: np.ndarray, altitude: np.ndarray, origin: Sequence[float]
) -> np.ndarray:
    """(..., 3) metres east, north and up of an origin (latitude, longitude, altitude), WGS 84."""
    center = _earth_centered(*(np.asarray(value, dtype=np.float64) for value in origin))
    offset = _earth_centered(latitude, longitude, altitude) - center
    enu: np.ndarray = offset @ _enu_axes(origin).T
    return enu


def geodetic_from_enu(
    enu: np.ndarray, origin: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latitude and longitude in degrees, altitude in metres, of (..., 3) metres around an origin.

    The iteration of Heiskanen and Moritz (1967), exact to a micrometre within 100 km of the ground.
    """
    center = _earth_centered(*(np.asarray(value, dtype=np.float64) for value in origin))
    x, y, z = np.moveaxis(enu @ _enu_axes(origin) + center, -1, 0)
    across = np.hypot(x, y)
    latitude = np.arctan2(z, across * (1 - _ECCENTRICITY))
    for _ in range(6):
        radius = _AXIS / np.sqrt(1 - _ECCENTRICITY * np.sin(latitude) ** 2)
        latitude = np.arctan2(z + _ECCENTRICITY * radius * np.sin(latitude), across)
    radius = _AXIS / np.sqrt(1 - _ECCENTRICITY * np.sin(latitude) ** 2)
    # Divided by whichever is not small: the cosine vanishes at the poles, the sine at the equator.
    polar = np.abs(np.sin(latitude)) > 0.7
    safe_cos = np.where(polar, 1.0, np.cos(latitude))
    safe_sin = np.where(polar, np.sin(latitude), 1.0)
    level, polar_level = across / safe_cos - radius, z / safe_sin - radius * (1 - _ECCENTRICITY)
    altitude = np.where(polar, polar_level, level)
    return np.degrees(latitude), np.degrees(np.arctan2(y, x)), altitude


def _earth_centered(
    latitude: np.ndarray, longitude: np.ndarray, altitude: np.ndarray
) -> np.ndarray:
    phi, lam = np.radians(latitude), np.radians(longitude)
    radius = _AXIS / np.sqrt(1 - _ECCENTRICITY * np.sin(phi) ** 2)
    across = (radius + altitude) * np.cos(phi)
    up = (radius * (1 - _ECCENTRICITY) + altitude) * np.sin(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), up], axis=-1)


def _enu_axes(origin: Sequence[float]) -> np.ndarray:
    """(3, 3): rows are east, north and up of the origin, in earth-centred axes."""
    phi, lam = math.radians(origin[0]), math.radians(origin[1])
    s, c, sl, cl = math.sin(phi), math.cos(phi), math.sin(lam), math.cos(lam)
    return np.array([[-sl, cl, 0.0], [-s * cl, -s * sl, c], [c * cl, c * sl, s]])
