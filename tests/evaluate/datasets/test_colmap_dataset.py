from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge.errors import ImageError, InputError
from vggt_edge.evaluate.datasets import colmap, dataset

NAMES = ("b/2.png", "a/1.png", "c 3.png")  # COLMAP's order is not that of the names


@pytest.fixture(scope="module")
def world():
    return make_world(views=3)


def write(root, world, text=False, where="sparse/0", model="PINHOLE", extra=()):
    """A model as COLMAP itself writes it; image i of the names in order shows view i."""
    reconstruction = pycolmap.Reconstruction()
    k = world.cameras.intrinsics[0]
    height, width = (int(v) for v in world.cameras.sizes[0])
    params = [k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, *extra]
    camera = pycolmap.Camera(camera_id=1, model=model, width=width, height=height, params=params)
    reconstruction.add_camera_with_trivial_rig(camera)
    for number, name in enumerate(NAMES, 1):
        view = sorted(NAMES).index(name)
        pose = pycolmap.Rigid3d(world.cameras.camera_from_world[view])
        image = pycolmap.Image(image_id=number, name=name, camera_id=1)
        reconstruction.add_image_with_trivial_frame(image, pose)
        save(world.images[view], root / "images" / name)
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(folder))
    return folder


@pytest.mark.parametrize("where", ["sparse/0", "sparse", "."])
@pytest.mark.parametrize("text", [False, True])
def test_layouts(tmp_path, world, where, text):
    root = tmp_path / "a garden"
    write(root, world, text, where)
    (recording,) = colmap.read(root, "all")
    assert recording.name == "a_garden" and recording.units == "arbitrary"
    assert [p.relative_to(root / "images").as_posix() for p in recording.paths] == sorted(NAMES)
    assert_same_cameras(recording.cameras, world)
    assert recording.depth is None and recording.points is None


def test_dense_workspace(tmp_path, world):
    write(tmp_path, world, where="sparse")
    height, width = world.depth[0].shape
    for view, name in enumerate(sorted(NAMES)):
        path = tmp_path / "stereo" / "depth_maps" / f"{name}.geometric.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        depth = world.depth[view].copy()
        depth[5, 7], depth[6, 7] = 0, -1
        # As COLMAP's read_write_dense.py: columns, rows, channels in Fortran's order.
        data = depth.T[:, :, None].reshape(-1, order="F").astype("<f4").tobytes()
        path.write_bytes(f"{width}&{height}&1&".encode() + data)
    points = world.points[::5]
    rows = np.zeros(len(points), [(n, "f4") for n in ("x", "y", "z", "nx", "ny", "nz")])
    rows["x"], rows["y"], rows["z"] = points.T
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "fused.ply"))
    (recording,) = colmap.read(tmp_path, "all")
    assert_consistent(recording)
    depth = recording.depth(1)
    assert depth[5, 7] == 0 and depth[6, 7] == 0 and depth[7, 7] == world.depth[1][7, 7]
    np.testing.assert_allclose(recording.points(), points, atol=1e-5)


def test_many_scenes_and_smaller_pictures(tmp_path, world):
    write(tmp_path / "second", world)
    write(tmp_path / "first", world)
    for name in NAMES:
        view = sorted(NAMES).index(name)
        save(world.images[view][::2, ::2], tmp_path / "first" / "images" / name)
    first, second = colmap.read(tmp_path, "all")
    assert (first.name, second.name) == ("first", "second")
    assert_same_cameras(second.cameras, world)
    half, whole = first.cameras.intrinsics[0], world.cameras.intrinsics[0]
    np.testing.assert_allclose(half[:2, :2], whole[:2, :2] / 2)
    np.testing.assert_allclose(half[:2, 2] + 0.5, (whole[:2, 2] + 0.5) / 2)
    assert (first.cameras.sizes == [18, 24]).all()
    save(world.images[0][:, :20], tmp_path / "first" / "images" / NAMES[0])
    with pytest.raises(InputError, match="camera is for 48x36 pixels, but the picture has 20x36"):
        colmap.read(tmp_path, "all")


def test_distortion_is_refused_with_the_way_out(tmp_path, world):
    write(tmp_path, world, model="OPENCV", extra=(0.1, 0, 0, 0))
    with pytest.raises(InputError, match="OPENCV is not PINHOLE.*colmap image_undistorter"):
        colmap.read(tmp_path, "all")


def test_missing_roots_and_pictures(tmp_path, world):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=r"image_undistorter.*sparse/0/cameras"):
            dataset("colmap").read(root, "all")
    write(tmp_path, world)
    (tmp_path / "images" / "b/2.png").unlink()
    with pytest.raises(ImageError, match="2.png"):
        colmap.read(tmp_path, "all")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=30))
@example(b"1&1&1&" + bytes(4))
@example(b"1&1&1&" + bytes(3))
@example(b"999999&999999&1&")
@example(b"1&1&3&" + bytes(12))
def test_odd_depth_maps(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("maps") / "1.png.geometric.bin"
    path.write_bytes(content)
    try:
        assert colmap.read_map(path).size > 0
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)
