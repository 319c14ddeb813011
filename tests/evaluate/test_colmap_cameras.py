from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vggt_edge.errors import InputError
from vggt_edge.evaluate import colmap_cameras

NAMES = ("z.jpg", "a b.jpg", "m.jpg")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """COLMAP's own files in both forms, two cameras, ids in no order, keypoints without points."""
    folder = tmp_path_factory.mktemp("model")
    reconstruction = pycolmap.Reconstruction()
    for camera_id, focal in ((7, 50.0), (3, 60.0)):
        reconstruction.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=camera_id,
                model="SIMPLE_PINHOLE" if camera_id == 3 else "PINHOLE",
                width=40,
                height=30,
                params=[focal, 20.0, 15.0] if camera_id == 3 else [focal, focal + 1, 20.0, 15.0],
            )
        )
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        quaternion = rng.normal(size=4)
        rotation = pycolmap.Rotation3d(quaternion / np.linalg.norm(quaternion))
        image = pycolmap.Image(
            image_id=9 - i,
            name=name,
            camera_id=3 if i else 7,
            keypoints=rng.uniform(0, 30, (i, 2)),
        )
        pose = pycolmap.Rigid3d(rotation, rng.normal(size=3))
        reconstruction.add_image_with_trivial_frame(image, pose)
    reconstruction.write_binary(str(folder))
    reconstruction.write_text(str(folder))
    for path in folder.glob("points3D.*"):
        path.unlink()
    return folder


@pytest.mark.parametrize("form", ["bin", "txt"])
def test_cameras_are_those_of_pycolmap(model, tmp_path, form):
    place = tmp_path / "sparse" / "0"
    place.mkdir(parents=True)
    for name in ("cameras", "images"):
        (place / f"{name}.{form}").write_bytes((model / f"{name}.{form}").read_bytes())
    assert colmap_cameras.find(tmp_path) == place
    names, cameras = colmap_cameras.read(place)
    assert names == sorted(NAMES)
    assert (cameras.sizes == [30, 40]).all()
    assert cameras.intrinsics[:, 0, 0].tolist() == [60, 60, 50]
    assert cameras.intrinsics[:, 1, 1].tolist() == [60, 60, 51]
    assert (cameras.intrinsics[:, :2, 2] == [19.5, 14.5]).all()
    written = (model / "images.txt").read_text().split("\n")
    for name, pose in zip(names, cameras.camera_from_world, strict=True):
        line = next(row for row in written if row.endswith(name)).split()
        w, x, y, z, *translation = (float(v) for v in line[1:8])
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d([x, y, z, w]), translation)
        np.testing.assert_allclose(pose, rigid.matrix(), atol=1e-9)


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "cameras.bin").write_bytes(b"")
    assert colmap_cameras.find(tmp_path) is None


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["cameras", "images"]), st.booleans(), st.data())
@example("images", True, None)
def test_odd_files_give_one_line_or_sound_cameras(model, tmp_path_factory, name, binary, data):
    folder = tmp_path_factory.getbasetemp() / "odd_model"
    folder.mkdir(exist_ok=True)
    (folder / "images.bin").unlink(missing_ok=True)
    suffix = ".bin" if binary else ".txt"
    for other in ("cameras", "images"):
        (folder / f"{other}{suffix}").write_bytes((model / f"{other}{suffix}").read_bytes())
    whole = (model / f"{name}{suffix}").read_bytes()
    start, cut, inserted = len(whole) // 2, 5, b""
    if data is not None:
        start = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.integers(0, 20))
        inserted = data.draw(st.binary(max_size=20) | st.sampled_from([b"nan", b"1e308", b"-1"]))
    (folder / f"{name}{suffix}").write_bytes(whole[:start] + inserted + whole[start + cut :])
    try:
        _, cameras = colmap_cameras.read(folder)
    except InputError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
    else:
        assert np.isfinite(cameras.intrinsics).all()
        assert np.isfinite(cameras.camera_from_world).all()
