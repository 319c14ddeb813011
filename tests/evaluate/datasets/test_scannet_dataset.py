from __future__ import annotations

import numpy as np
import pytest
from posed_miniature import assert_consistent, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset
from vggt_edge.evaluate.datasets.scannet import FIFTY, TEST

# Like scene0000_00's, smaller: the two differ in size, shape and, more than there, field of view.
COLOR = np.array([[111.96, 0, 66.63], [0, 111.71, 53.99], [0, 0, 1]])
SENSOR = np.array([[57.787, 0, 31.95], [0, 57.787, 23.95], [0, 0, 1]])
LOST = 1


@pytest.fixture(scope="module")
def seen():
    return make_world(12, 97, 130, COLOR)


@pytest.fixture(scope="module")
def sensed():
    return make_world(12, 48, 64, SENSOR)


def write(folder, seen, sensed):
    """As SensReader exports: no leading zeros, six digits, -inf where tracking failed."""
    poses = geometry.invert_rigid(seen.cameras.camera_from_world)
    for i, image in enumerate(seen.images):
        save(image, folder / "color" / f"{i}.jpg")
        counts = np.rint(sensed.depth[i] * 1000).astype(np.uint16)
        counts[20, 30] = 0
        save(counts, folder / "depth" / f"{i}.png")
        matrix = np.concatenate([poses[i], [[0, 0, 0, 1]]])
        save_matrix(folder / "pose" / f"{i}.txt", np.full((4, 4), -np.inf) if i == LOST else matrix)
    for name, k in (("color", COLOR), ("depth", SENSOR)):
        matrix = np.eye(4)
        matrix[:3, :3] = k
        save_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", matrix)
        save_matrix(folder / "intrinsic" / f"extrinsic_{name}.txt", np.eye(4))


def save_matrix(path, matrix):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix, fmt="%f")


def write_mesh(path, points):
    """Binary, with colours and faces, as the published ones."""
    head = "ply\nformat binary_little_endian 1.0\ncomment VCGLIB generated\n"
    head += f"element vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
    head += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue", "alpha"))
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = np.zeros(len(points), dtype=[("xyz", "<f4", 3), ("rgba", "u1", 4)])
    rows["xyz"] = points
    path.write_bytes(head.encode() + rows.tobytes() + b"\x03" + np.arange(3, dtype="<i4").tobytes())


def test_reads_its_layout(tmp_path, seen, sensed):
    folder = tmp_path / "scans_test/scene0707_00"
    write(folder, seen, sensed)
    (one,) = dataset("scannet").read(tmp_path, "test")
    kept = [i for i in range(12) if i != LOST]
    assert one.name == "scene0707_00" and one.units == "metres" and one.points is None
    assert [path.name for path in one.paths] == [f"{i}.jpg" for i in kept]
    np.testing.assert_allclose(one.cameras.intrinsics[0], COLOR, atol=1e-6)
    np.testing.assert_allclose(
        one.cameras.camera_from_world, seen.cameras.camera_from_world[kept], atol=1e-5
    )
    assert_consistent(one)


def test_depth_is_what_the_color_camera_sees(tmp_path, seen, sensed):
    write(tmp_path / "scene0707_00", seen, sensed)
    (one,) = dataset("scannet").read(tmp_path, "test")
    depth = one.depth(0)
    assert depth.shape == (48, 64)
    # The true depth at the same places of the picture.
    shrink = np.array([[64 / 130, 0, -0.5 + 32 / 130], [0, 48 / 97, -0.5 + 24 / 97], [0, 0, 1]])
    truth = make_world(12, 48, 64, shrink @ COLOR).depth[0]
    known = depth > 0
    assert (~known).any() and known.mean() > 0.8, "the cameras see nearly the same"
    off = np.abs(depth - truth)[known] / truth[known]
    plain = np.abs(sensed.depth[0] - truth)[known] / truth[known]
    assert np.median(off) < 0.003 and np.median(off) < 0.3 * np.median(plain)


def test_points_are_the_mesh(tmp_path, seen, sensed):
    folder = tmp_path / "scans/scene0000_00"
    write(folder, seen, sensed)
    write_mesh(folder / "scene0000_00_vh_clean_2.ply", seen.points[::50])
    (one,) = dataset("scannet").read(tmp_path, "fifty")
    assert one.points is not None
    np.testing.assert_allclose(one.points(), seen.points[::50], atol=1e-5)


def test_splits(tmp_path, seen, sensed):
    for scene in ("scene0000_00", "scene0011_00", "scene0707_00"):
        place = "scans_test" if scene in TEST else "scans"
        write(tmp_path / place / scene, seen, sensed)
    (tmp_path / "scans/scene0012_00").mkdir()  # not exported
    scannet = dataset("scannet")

    def names(split):
        return [one.name for one in scannet.read(tmp_path, split)]

    assert names("test") == ["scene0707_00"]
    assert names("fifty") == ["scene0000_00"]
    assert names("all") == ["scene0000_00", "scene0011_00", "scene0707_00"]
    with pytest.raises(InputError, match=r"lacks scannetv2_val.txt"):
        names("val")
    (tmp_path / "scannetv2_val.txt").write_text("scene0011_01\nscene0011_00\n")
    assert names("val") == ["scene0011_00"]
    assert len(TEST) == 100 and len(set(FIFTY)) == 50


def test_what_is_missing_is_named(tmp_path, seen, sensed):
    folder = tmp_path / "scene0707_00"
    write(folder, seen, sensed)
    (folder / "depth/5.png").unlink()
    with pytest.raises(InputError, match=r"color/5.jpg, but no depth/5.png"):
        dataset("scannet").read(tmp_path, "test")
    for path in (folder / "pose").iterdir():
        save_matrix(path, np.full((4, 4), np.inf))
    with pytest.raises(InputError, match="no frame has a finite pose"):
        dataset("scannet").read(tmp_path, "test")
