"""Scenes in metres: EXIF to positions, positions to a similarity, on made and on real pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import look_at, make_scene
from walks import make_walk

from vggt_edge import geometry, pictures
from vggt_edge.errors import InputError
from vggt_edge.geometry import Similarity
from vggt_edge.scene.georeference import (
    georeference,
    in_metres,
    moved,
    similarity_to_cameras,
)
from vggt_edge.scene.gps import (
    Positions,
    enu_from_geodetic,
    geodetic_from_enu,
    read_positions,
)
from vggt_edge.scene.sim3 import compose, invert, rotation_of
from vggt_edge.types import Cameras

REAL = Path("/work/shared/data/gps")
LUND = (55.698, 13.195, 40.0)
# East, north, up of the walk's world, whose y points down.
ENU_FROM_WALK = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def photograph(path: Path, gps: dict[int, object]) -> str:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(gps)
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    return str(path)


def sexagesimal(value: float) -> tuple[float, float, float]:
    value = abs(value)
    minutes = value % 1 * 60
    return float(int(value)), float(int(minutes)), minutes % 1 * 60


def walked(size: float = 10.0, noise: float = 0.0, seed: int = 0) -> tuple[Cameras, Positions]:
    """The cameras of a walk in a world of their own, and where GPS puts them."""
    cameras, rng = make_walk(60).cameras, np.random.default_rng(seed)
    enu = size * cameras.centers @ ENU_FROM_WALK.T + noise * rng.normal(size=(60, 3))
    world = Similarity(0.3, rotation_of(rng.normal(size=3)), rng.normal(size=3))
    latitude, longitude, altitude = geodetic_from_enu(enu, LUND)
    ours = replace(cameras, camera_from_world=world.apply_to_cameras(cameras.camera_from_world))
    return ours, Positions(latitude, longitude, altitude, np.full(60, 3.0))


def deviation(fit, truth: Cameras, size: float) -> float:
    """Largest distance in metres, around its own middle, of the placed walk from the true one."""
    placed, true = fit, size * truth.centers @ ENU_FROM_WALK.T
    return float(np.linalg.norm((placed - placed.mean(0)) - (true - true.mean(0)), axis=1).max())


@settings(deadline=None)
@given(
    latitude=st.floats(-89.9, 89.9),
    longitude=st.floats(-179.9, 179.9),
    offset=st.lists(st.floats(-20_000, 20_000), min_size=3, max_size=3),
)
def test_geodetic_coordinates_come_back(latitude, longitude, offset):
    origin, enu = (latitude, longitude, 100.0), np.array(offset)
    assert np.allclose(enu_from_geodetic(*geodetic_from_enu(enu, origin), origin), enu, atol=1e-4)


def test_a_degree_is_as_long_as_it_is():
    # At 45 degrees: 111.13 km of latitude, 78.85 km of longitude on the WGS 84 ellipsoid.
    north = enu_from_geodetic(np.array(45.5), np.array(7.0), np.array(0.0), (44.5, 7.0, 0.0))
    east = enu_from_geodetic(np.array(45.0), np.array(7.5), np.array(0.0), (45.0, 6.5, 0.0))
    assert np.linalg.norm(north) == pytest.approx(111_130, abs=10)
    assert np.linalg.norm(east) == pytest.approx(78_850, abs=10)
    assert north[1] > 0 and east[0] > 0


def test_exif_is_read_as_cameras_write_it(tmp_path):
    full = {
        1: "S",
        2: (33.0, 51.0, 30.0),
        3: "W",
        4: (151.0, 12.5, 0.0),
        5: b"\x01",
        6: 12.5,
        31: 4.0,
    }
    sources = [
        photograph(tmp_path / "full.jpg", full),
        photograph(tmp_path / "flat.jpg", {k: full[k] for k in (1, 2, 3, 4)}),
        photograph(tmp_path / "zero.jpg", {1: "N", 2: (0.0,) * 3, 3: "E", 4: (0.0,) * 3}),
        photograph(tmp_path / "wild.jpg", {**full, 2: (333.0, 0.0, 0.0)}),
        photograph(tmp_path / "none.jpg", {}),
        "clip.mp4@0.50s",
        "https://example.org/a.jpg",
    ]
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe1")
    found = read_positions([*sources, str(tmp_path / "torn.jpg")])
    assert found.known.tolist() == [True, True, *[False] * 6]
    assert found.latitude[0] == pytest.approx(-(33 + 51 / 60 + 30 / 3600))
    assert found.longitude[0] == pytest.approx(-(151 + 12.5 / 60))
    assert found.altitude[0] == -12.5 and found.accuracy[0] == 4
    assert np.isnan(found.altitude[1])


def test_damaged_tags_are_no_position(tmp_path):
    path = photograph(tmp_path / "a.jpg", {1: "N", 2: 55.0, 3: "E", 4: (13.0,)})
    assert pictures.gps_of(path) and not read_positions([path]).known.any()


@pytest.mark.parametrize("up", ["auto", "cameras", "gps"])
def test_exact_positions_give_the_truth(up):
    cameras, positions = walked()
    found = georeference(cameras, positions, up=up)
    # The walk's cameras look a little up and down but are level.
    assert found.up == ("gps" if up == "gps" else "cameras")
    assert found.enu_from_world.scale == pytest.approx(10 / 0.3, rel=1e-3)
    placed = found.enu_from_world.apply(cameras.centers)
    assert deviation(placed, make_walk(60).cameras, 10) < (0.01 if up == "gps" else 0.2)
    latitude, longitude, _ = geodetic_from_enu(placed, found.origin)
    assert np.abs(latitude - positions.latitude).max() < 5e-6
    assert np.abs(longitude - positions.longitude).max() < 5e-6
    assert found.inliers.all()


def test_bad_fixes_are_left_aside():
    cameras, positions = walked(noise=1.5)
    latitude = positions.latitude.copy()
    latitude[::4] += np.random.default_rng(0).uniform(1e-3, 5e-3, 15)
    found = georeference(cameras, replace(positions, latitude=latitude))
    assert not found.inliers[::4].any() and found.inliers.sum() >= 40
    assert found.enu_from_world.scale == pytest.approx(10 / 0.3, rel=0.03)


def test_some_pictures_without_gps_and_none_with_altitude():
    cameras, positions = walked()
    latitude = positions.latitude.copy()
    latitude[10:] = np.nan
    flat = replace(positions, latitude=latitude, altitude=np.full(60, np.nan))
    found = georeference(cameras, flat)
    placed = found.enu_from_world.apply(cameras.centers)
    assert deviation(placed, make_walk(60).cameras, 10) < 0.5
    assert np.isnan(found.residuals[10:]).all() and found.inliers.sum() == 10


def test_a_straight_walk_stands_upright():
    """Positions on a line leave a turn about it free; the cameras do not."""
    poses = np.stack(
        [look_at(np.array([x, 0.0, 0.0]), np.array([x + 1, 0, 3.0])) for x in np.arange(8.0)]
    )
    cameras = replace(make_walk(8).cameras, camera_from_world=poses)
    enu = 5 * cameras.centers @ ENU_FROM_WALK.T
    found = georeference(cameras, Positions(*geodetic_from_enu(enu, LUND), np.full(8, np.nan)))
    assert found.up == "cameras"
    up = found.enu_from_world.rotation @ np.array([0.0, -1, 0])
    assert np.allclose(up, [0, 0, 1], atol=1e-3)
    assert found.enu_from_world.scale == pytest.approx(5, rel=1e-3)


def test_a_drone_that_looks_down_flies_above():
    rng = np.random.default_rng(0)
    centers = np.stack([rng.uniform(0, 9, 30), np.full(30, -4.0), rng.uniform(0, 9, 30)], axis=1)
    heading = rng.uniform(0, 6, 30)
    side = np.stack([np.cos(heading), 0 * heading, np.sin(heading)], axis=1)
    down = np.tile([0.0, 1, 0], (30, 1))
    rotation = np.stack([side, np.cross(down, side), down], axis=1)
    poses = np.concatenate([rotation, -rotation @ centers[:, :, None]], axis=2)
    cameras = replace(make_walk(30).cameras, camera_from_world=poses)
    enu = 10 * centers @ ENU_FROM_WALK.T
    found = georeference(cameras, Positions(*geodetic_from_enu(enu, LUND), np.full(30, np.nan)))
    assert np.allclose(found.enu_from_world.rotation, ENU_FROM_WALK, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latitude": np.full(60, np.nan)}, "0 of 60 views have a GPS position"),
        ({"latitude": np.full(60, 55.0), "longitude": np.full(60, 13.0)}, "within 0.0 m"),
    ],
)
def test_positions_that_say_nothing_are_refused(change, words):
    cameras, positions = walked()
    with pytest.raises(InputError, match=words):
        georeference(cameras, replace(positions, **change))


def test_cameras_in_one_place_are_refused():
    cameras, positions = walked()
    poses = np.repeat(cameras.camera_from_world[:1], 60, axis=0)
    with pytest.raises(InputError, match="one place"):
        georeference(replace(cameras, camera_from_world=poses), positions)


def test_cameras_that_do_not_move_as_gps_says_are_refused():
    cameras, positions = walked(size=30.0)
    order = np.random.default_rng(0).permutation(60)
    elsewhere = replace(cameras, camera_from_world=cameras.camera_from_world[order])
    with pytest.raises(InputError, match="of 60 GPS positions fit"):
        georeference(elsewhere, positions)


@pytest.mark.parametrize("count", [2, 5, 60])
def test_known_cameras_are_met(count):
    truth = make_walk(60).cameras
    few = replace(
        truth, camera_from_world=truth.camera_from_world[:count], sizes=truth.sizes[:count]
    )
    few = replace(few, intrinsics=truth.intrinsics[:count])
    world = Similarity(0.2, rotation_of(np.array([1.0, 2, 0.5])), np.array([3.0, 1, 4]))
    ours = replace(few, camera_from_world=world.apply_to_cameras(few.camera_from_world))
    found = similarity_to_cameras(ours, few)
    both = compose(found, world)
    assert both.scale == pytest.approx(1) and np.allclose(both.rotation, np.eye(3), atol=1e-9)
    assert np.allclose(both.translation, 0, atol=1e-9)
    if count == 60:
        poses = ours.camera_from_world.copy()
        poses[::3, :, 3] += np.random.default_rng(0).normal(size=(20, 3))
        spoilt = similarity_to_cameras(replace(ours, camera_from_world=poses), few)
        assert spoilt.scale == pytest.approx(5, rel=1e-3)


def test_known_cameras_that_do_not_match_are_refused():
    cameras = make_walk(10).cameras
    with pytest.raises(InputError, match="10 cameras cannot be aligned to 60"):
        similarity_to_cameras(cameras, make_walk(60).cameras)
    still = replace(cameras, camera_from_world=np.repeat(cameras.camera_from_world[:1], 10, axis=0))
    with pytest.raises(InputError, match="one place"):
        similarity_to_cameras(still, cameras)


def test_a_moved_scene_is_the_same_scene():
    scene = make_scene()
    to = Similarity(2.5, rotation_of(np.array([0.3, -1, 0.2])), np.array([5.0, 6, 7]))
    there = moved(scene, to)
    assert there.units == "metres"
    assert np.allclose(there.prediction.world_points().reshape(-1, 3), there.points, atol=1e-4)
    assert np.allclose(invert(to).apply(there.points), scene.points, atol=1e-5)
    matrices = scene.cameras.intrinsics[0], there.cameras.intrinsics[0]
    before = geometry.project(scene.points, matrices[0], scene.cameras.camera_from_world[0])
    after = geometry.project(there.points, matrices[1], there.cameras.camera_from_world[0])
    # Points beside the camera have no stable pixel.
    front = before[:, 2] > 0.1
    assert np.allclose(before[front, :2], after[front, :2], atol=1e-2)
    scaled = in_metres(scene, to)
    assert np.allclose(scaled.cameras.camera_from_world[0], np.eye(3, 4))
    assert np.allclose(scaled.prediction.depth, 2.5 * scene.prediction.depth)


def test_json_takes_the_scene_in_metres_to_the_earth():
    cameras, positions = walked()
    found = georeference(cameras, positions)
    scale = found.enu_from_world.scale
    told = found.to_json(metres_from_world=scale)
    matrix = np.array(told["enu_from_world"])
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))
    metres = scale * cameras.centers
    assert np.allclose(
        metres @ matrix[:3, :3].T + matrix[:3, 3], found.enu_from_world.apply(cameras.centers)
    )
    assert told["inliers"] == 60 and told["median_residual"] < 1


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_real_pictures_have_positions():
    lund = sorted(str(p) for p in (REAL / "gps_opensfm_lund" / "images").glob("*.jpg"))
    found = read_positions(lund)
    assert found.known.sum() >= 25
    assert np.nanmax(np.abs(found.latitude - 55.7)) < 0.1
    enu = enu_from_geodetic(
        found.latitude,
        found.longitude,
        found.altitude,
        (np.nanmedian(found.latitude), np.nanmedian(found.longitude), np.nanmedian(found.altitude)),
    )
    assert 10 < np.linalg.norm(np.nanmax(enu, 0) - np.nanmin(enu, 0)) < 500
