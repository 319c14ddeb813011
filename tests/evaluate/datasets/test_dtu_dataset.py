from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset, dtu

MILLIMETRES = 1000.0


@pytest.fixture(scope="module")
def world():
    return make_world()


def camera_text(world, i, scale=1.0):
    pose = world.cameras.camera_from_world[i].copy()
    pose[:, 3] *= MILLIMETRES
    k = world.cameras.intrinsics[i].copy()
    k[:2] *= scale
    rows = [" ".join(f"{v:.10g}" for v in row) for row in np.vstack([pose, [0, 0, 0, 1]])]
    middle = [" ".join(f"{v:.12g}" for v in row) for row in k]
    return "\n".join(["extrinsic", *rows, "", "intrinsic", *middle, "", "425.0 2.5", ""])


def write_rectified(root, world, scan=4):
    (root / "Cameras").mkdir()
    depths = root / "Depths_raw" / f"scan{scan}"
    depths.mkdir(parents=True)
    for i, picture in enumerate(world.images):
        for light in ("0_r5000", "3_r5000", "max"):
            name = f"rect_{i + 1:03d}_{light}.png"
            save(
                picture if light[0] == "3" else picture // 2, root / f"Rectified/scan{scan}" / name
            )
        (root / "Cameras" / f"{i:08d}_cam.txt").write_text(camera_text(world, i))
        depth = (world.depth[i] * MILLIMETRES).astype("<f4")
        depth[1, 1] = np.inf
        height, width = depth.shape
        header = f"Pf\n{width} {height}\n-1.0\n".encode()
        (depths / f"depth_map_{i:04d}.pfm").write_bytes(header + depth[::-1].tobytes())
        visual = np.full(depth.shape, 200, np.uint8)
        visual[0, 3] = 10
        save(visual, depths / f"depth_visual_{i:04d}.png")
    points = world.points * MILLIMETRES
    rows = np.zeros(len(points), [(n, "f4") for n in ("x", "y", "z", "nx", "ny", "nz")])
    rows["x"], rows["y"], rows["z"] = points.T
    cloud = root / "Points" / "stl" / f"stl{scan:03d}_total.ply"
    cloud.parent.mkdir(parents=True)
    PlyData([PlyElement.describe(rows, "vertex")], text=False).write(str(cloud))


def test_rectified_layout(tmp_path, world):
    write_rectified(tmp_path, world)
    (recording,) = dtu.read(tmp_path, "test")
    assert recording.name == "scan4" and recording.units == "metres"
    assert [p.name for p in recording.paths] == [f"rect_{i:03d}_3_r5000.png" for i in range(1, 5)]
    assert_same_cameras(recording.cameras, world)
    assert_consistent(recording)
    depth = recording.depth(2)
    assert depth[1, 1] == 0 and depth[0, 3] == 0
    known = depth > 0
    np.testing.assert_allclose(depth[known], world.depth[2][known], rtol=1e-6)
    np.testing.assert_allclose(recording.points(), world.points, atol=1e-5)


def test_only_the_pictures_are_needed(tmp_path, world):
    write_rectified(tmp_path, world, scan=3)
    (tmp_path / "Points/stl/stl003_total.ply").unlink()
    (tmp_path / "Depths_raw/scan3/depth_map_0002.pfm").unlink()
    (recording,) = dtu.read(tmp_path, "val")
    assert recording.depth is None and recording.points is None


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_preprocessed_copy(tmp_path, world, scale):
    """The cameras are for the depth maps, which may be smaller than the pictures."""
    folder, step = tmp_path / "scan1", round(1 / scale)
    for name in ("cams", "depths"):
        (folder / name).mkdir(parents=True)
    for i, picture in enumerate(world.images):
        save(picture, folder / "images" / f"{i:08d}.jpg")
        depth = world.depth[i][::step, ::step] * np.float32(MILLIMETRES)
        depth[12, 12] = np.nan
        np.save(folder / "depths" / f"{i:08d}.npy", depth)
        mask = np.full(world.depth[i].shape, 255, np.uint8)
        mask[:, :8] = 0
        save(mask, folder / "binary_masks" / f"{i:08d}.png")
        (folder / "cams" / f"{i:08d}_cam.txt").write_text(camera_text(world, i, scale))
    (recording,) = dtu.read(tmp_path, "test")
    depth = recording.depth(1)
    # The mask is brought to the size of the depth, then shrunk by 10 pixels: 5 on this side.
    barred = 8 // step + 5
    assert (depth[:, :barred] == 0).all() and depth[12, 12] == 0
    assert (depth[:, barred:] > 0).mean() > 0.99
    if scale == 1:
        assert_same_cameras(recording.cameras, world)
        assert_consistent(recording)
    else:
        k, want = recording.cameras.intrinsics[0], world.cameras.intrinsics[0]
        np.testing.assert_allclose([k[0, 0], k[1, 1]], [want[0, 0], want[1, 1]])
        assert abs(k[0, 2] - want[0, 2]) <= 0.5 and abs(k[1, 2] - want[1, 2]) <= 0.5


def test_splits_and_missing_roots(tmp_path, world):
    write_rectified(tmp_path, world, scan=2)
    assert [r.name for r in dtu.read(tmp_path, "train")] == ["scan2"]
    assert [len(scans) for scans in dtu.SCANS.values()] == [22, 18, 79]
    assert len(set().union(*dtu.SCANS.values())) == 119
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            InputError, match=r"roboimagedata\.compute\.dtu\.dk.*research.*Rectified"
        ):
            dataset("dtu").read(root, "test")


def test_pictures_of_another_size_are_refused(tmp_path, world):
    write_rectified(tmp_path, world)
    save(world.images[0][:12, :16], tmp_path / "Rectified/scan4/rect_001_3_r5000.png")
    with pytest.raises(InputError, match="00000000_cam.txt: .*not for pictures of 16x12"):
        dtu.read(tmp_path, "test")


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.sampled_from("0123456789.-+einf \n") | st.characters(codec="utf-8"), max_size=60),
    st.data(),
)
@example("nan", None)
@example("1e999", None)
def test_odd_camera_files_never_do_worse_than_one_line(tmp_path_factory, text, data):
    world = make_world(views=1, height=6, width=8)
    root = tmp_path_factory.mktemp("dtu")
    save(world.images[0], root / "Rectified/scan4/rect_001_3_r5000.png")
    whole = camera_text(world, 0)
    at = 15 if data is None else data.draw(st.integers(0, len(whole)))
    (root / "Cameras").mkdir()
    (root / "Cameras" / "00000000_cam.txt").write_text(whole[:at] + text + whole[at:], "utf-8")
    try:
        (recording,) = dtu.read(root, "test")
    except InputError as error:
        assert "\n" not in str(error) and "00000000_cam.txt" in str(error)
    else:
        rotation = recording.cameras.camera_from_world[0, :, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40))
@example(b"Pf\n2 1\n-1.0\n" + bytes(8))
@example(b"Pf\n2 1\n-1.0\n" + bytes(7))
@example(b"Pf\n999999 999999\n-1.0\n")
@example(b"PF\n2 1\n-1.0\n" + bytes(24))
def test_odd_pfm_files(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("pfm") / "depth_map_0000.pfm"
    path.write_bytes(content)
    try:
        assert dtu.read_pfm(path).shape == (1, 2)
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)
