from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement
from posed_miniature import (
    WORLD_FROM_ROOM,
    assert_consistent,
    assert_same_cameras,
    make_world,
    save,
)
from synthetic import trace

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset, eth3d

HEIGHT, WIDTH = 90, 120  # of the distorted pictures
LENS = [98.0, 96.0, 61.0, 44.0, 0.11, -0.05, 0.002, -0.001, 0.01, 0.003, 0.0015, -0.002]
NAMES = [f"DSC_{286 + i:04d}.JPG" for i in range(3)]


@pytest.fixture(scope="module")
def world():
    return make_world(views=3, height=72, width=96)


def distorted_depth(world, i):
    """Depth along the bent rays of COLMAP's own camera model."""
    camera = pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=WIDTH, height=HEIGHT, params=LENS)
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    pixels = np.stack([column, row], -1).reshape(-1, 2) + 0.5
    rays = np.concatenate([camera.cam_from_img(pixels), np.ones((len(pixels), 1))], axis=1)
    pose = geometry.compose_rigid(world.cameras.camera_from_world[i], WORLD_FROM_ROOM)
    room_from_camera = geometry.invert_rigid(pose)
    directions = rays @ room_from_camera[:, :3].T
    return trace(room_from_camera[:, 3], directions)[0].reshape(HEIGHT, WIDTH)


def calibration(folder, world, camera_line, prefix):
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n{camera_line}\n")
    lines = ["# Image list"]
    for i in reversed(range(len(NAMES))):
        pose = world.cameras.camera_from_world[i]
        x, y, z, w = geometry.matrix_to_quaternion(pose[:, :3])
        numbers = " ".join(f"{v:.17g}" for v in (w, x, y, z, *pose[:, 3]))
        # An observation of a point that no file defines: keypoints are not needed.
        lines += [f"{9 - i} {numbers} 0 {prefix}/{NAMES[i]}", "3.5 4.5 77 1.5 2.5 -1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def write(root, world, scene="courtyard"):
    folder = root / scene
    k = world.cameras.intrinsics[0]
    pinhole = f"0 PINHOLE 96 72 {k[0, 0]} {k[1, 1]} {k[0, 2] + 0.5} {k[1, 2] + 0.5}"
    calibration(folder / "dslr_calibration_undistorted", world, pinhole, "dslr_images_undistorted")
    bent = f"0 THIN_PRISM_FISHEYE {WIDTH} {HEIGHT} {' '.join(map(str, LENS))}"
    calibration(folder / "dslr_calibration_jpg", world, bent, "dslr_images")
    depths = folder / "ground_truth_depth" / "dslr_images"
    depths.mkdir(parents=True)
    for i, name in enumerate(NAMES):
        save(world.images[i], folder / "images" / "dslr_images_undistorted" / name)
        depth = distorted_depth(world, i).astype("<f4")
        depth[40:44, 50:56] = np.inf
        depth.tofile(depths / name)


def write_ply(path, points, text):
    rows = np.zeros(len(points), [(n, "f4") for n in "xyz"] + [("red", "u1")])
    rows["x"], rows["y"], rows["z"] = points.T
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(path))


def test_published_layout(tmp_path, world):
    write(tmp_path, world)
    (recording,) = eth3d.read(tmp_path, "train")
    assert recording.name == "courtyard" and recording.units == "metres"
    assert [path.name for path in recording.paths] == NAMES
    assert all(path.is_file() for path in recording.paths)
    assert_same_cameras(recording.cameras, world)
    assert recording.points is None
    for i in range(3):
        depth = recording.depth(i)
        assert depth.shape == world.depth[i].shape and depth.dtype == np.float32
        known = depth > 0
        assert 0.7 < known.mean() < 1  # infinity, and corners that the distorted picture lacks
        error = np.abs(depth - world.depth[i])[known] / world.depth[i][known]
        assert np.median(error) < 0.004 and (error < 0.03).mean() > 0.95
    assert_consistent(recording)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_lens_is_colmaps(seed):
    rays = np.random.default_rng(seed).uniform(-0.9, 0.9, (20, 2))
    rays[0] = 0
    camera = pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=WIDTH, height=HEIGHT, params=LENS)
    with_depth = np.concatenate([rays, np.ones((20, 1))], axis=1)
    np.testing.assert_allclose(
        eth3d.distort(rays, np.array(LENS)), camera.img_from_cam(with_depth), atol=1e-9
    )


def test_scans_are_moved_by_their_alignment(tmp_path, world):
    write(tmp_path, world)
    folder = tmp_path / "courtyard" / "dslr_scan_eval"
    folder.mkdir()
    points = world.points
    write_ply(folder / "scan1.ply", points[::2], text=False)
    write_ply(
        folder / "scan2.ply",
        geometry.transform(geometry.invert_rigid(WORLD_FROM_ROOM), points[1::2]),
        text=True,
    )
    matrices = [np.eye(4), np.vstack([WORLD_FROM_ROOM, [0, 0, 0, 1]])]
    meshes = "".join(
        f'<MLMesh label="scan{i}.ply" filename="scan{i}.ply">\n<MLMatrix44>\n'
        + "".join(" ".join(f"{v:.17g}" for v in row) + " \n" for row in matrix)
        + "</MLMatrix44>\n</MLMesh>\n"
        for i, matrix in enumerate(matrices, 1)
    )
    (folder / "scan_alignment.mlp").write_text(
        "<!DOCTYPE MeshLabDocument>\n<MeshLabProject>\n<MeshGroup>\n"
        f"{meshes}</MeshGroup>\n<RasterGroup/>\n</MeshLabProject>\n"
    )
    (recording,) = eth3d.read(tmp_path, "train")
    want = np.concatenate([points[::2], points[1::2]])
    np.testing.assert_allclose(recording.points(), want, atol=1e-5)

    (folder / "scan_alignment.mlp").write_text('<MLMesh filename="/etc/passwd"></MLMesh>')
    with pytest.raises(InputError, match="scan_alignment.mlp: not a MeshLab project"):
        recording.points()


def test_preprocessed_copy(tmp_path, world):
    folder = tmp_path / "office"
    depths = folder / "ground_truth_depth" / "custom_undistorted"
    depths.mkdir(parents=True)
    (folder / "custom_undistorted_cam").mkdir()
    for i, name in enumerate(NAMES):
        save(world.images[i], folder / "images" / "custom_undistorted" / name)
        depth = world.depth[i].copy()
        depth[0, 0], depth[1, 1], depth[2, 2] = np.nan, np.inf, -1
        depth.tofile(depths / name)
        pose = np.vstack([world.cameras.camera_from_world[i], [0, 0, 0, 1]])
        np.savez(
            folder / "custom_undistorted_cam" / name.replace("JPG", "npz"),
            intrinsics=world.cameras.intrinsics[i],
            extrinsics=pose,
        )
    (recording,) = eth3d.read(tmp_path, "train")
    assert_same_cameras(recording.cameras, world)
    assert_consistent(recording)
    assert (recording.depth(1)[[0, 1, 2], [0, 1, 2]] == 0).all()
    for data in (b"", b"PK\x03\x04 no zip", b"text"):
        (folder / "custom_undistorted_cam" / NAMES[0].replace("JPG", "npz")).write_bytes(data)
        with pytest.raises(InputError, match="DSC_0286.npz"):
            eth3d.read(tmp_path, "train")


def test_splits_and_missing_roots(tmp_path, world):
    write(tmp_path, world, scene="statue")
    assert [r.name for r in eth3d.read(tmp_path, "test")] == ["statue"]
    assert len(eth3d.TRAIN) == 13 and len(eth3d.TEST) == 12
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=r"www\.eth3d\.net.*CC BY-NC-SA.*dslr_images_undist"):
            dataset("eth3d").read(root, "train")


def test_damage_gives_one_line(tmp_path, world):
    write(tmp_path, world)
    folder = tmp_path / "courtyard"
    (recording,) = eth3d.read(tmp_path, "train")
    path = folder / "ground_truth_depth" / "dslr_images" / NAMES[1]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=f"{NAMES[1]}: not 120x90 floats"):
        recording.depth(1)
    images = folder / "dslr_calibration_undistorted" / "images.txt"
    whole = images.read_text()
    for text in (
        whole.replace(" 0 dslr", " 5 dslr"),
        whole.replace("dslr_images_undistorted", "../.."),
        "",
        "0 1",
    ):
        images.write_text(text)
        with pytest.raises(InputError, match="images.txt") as caught:
            eth3d.read(tmp_path, "train")
        assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.text(max_size=20) | st.sampled_from(["nan", "1e308", "<", "-"]))
def test_odd_alignments_never_do_worse_than_one_line(tmp_path_factory, at, text):
    root = tmp_path_factory.getbasetemp() / "odd_alignment"
    folder = root / "courtyard" / "dslr_scan_eval"
    if not folder.is_dir():
        write(root, make_world(views=3, height=72, width=96))
        folder.mkdir()
        write_ply(folder / "scan1.ply", np.eye(3), text=False)
    whole = (
        '<MLMesh label="scan1.ply" filename="scan1.ply">\n<MLMatrix44>\n'
        "1 0 0 0 \n0 1 0 0 \n0 0 1 0 \n0 0 0 1 \n</MLMatrix44>\n</MLMesh>\n"
    )
    (folder / "scan_alignment.mlp").write_text(whole[:at] + text + whole[at:], "utf-8")
    (recording,) = eth3d.read(root, "train")
    try:
        assert np.isfinite(recording.points()).all()
    except InputError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
