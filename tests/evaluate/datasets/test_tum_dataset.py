from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posed_miniature import assert_consistent, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset
from vggt_edge.evaluate.datasets.tum import REACH, associate

TENTH = np.array([[0.1, 0, -0.45], [0, 0.1, -0.45], [0, 0, 1]])
K = TENTH @ [[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]]
START = 1341846313.592
DESK, WALK = "rgbd_dataset_freiburg1_desk", "rgbd_dataset_freiburg3_walking_xyz"


@pytest.fixture(scope="module")
def world():
    return make_world(5, 48, 64, K)


def write(folder, world, without_depth=3, without_pose=4):
    """Colour at 30 Hz, depth a few milliseconds later, the trajectory at 100 Hz or so.

    One picture has no depth map near it, another no pose.
    """
    poses = geometry.invert_rigid(world.cameras.camera_from_world)
    rgb, depth, truth = ["# color images"], ["# depth maps"], ["# ground truth trajectory"]
    for i, image in enumerate(world.images):
        stamp = START + i / 30
        save(image, folder / "rgb" / f"{stamp:.6f}.png")
        rgb.append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        if i != without_depth:
            later = stamp + 0.004
            save(
                np.rint(world.depth[i] * 5000).astype(np.uint16) * (image[..., 0] > 80),
                folder / "depth" / f"{later:.6f}.png",
            )
            depth.append(f"{later:.6f} depth/{later:.6f}.png")
        if i != without_pose:
            quaternion = geometry.matrix_to_quaternion(poses[i][:, :3])
            for lag, shift in ((-0.008, 0.1), (0.002, 0.0), (0.012, -0.1)):
                numbers = [*(poses[i][:, 3] + shift), *quaternion]
                truth.append(f"{stamp + lag:.4f} " + " ".join(f"{x:.7f}" for x in numbers))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_reads_its_layout(tmp_path, world):
    write(tmp_path / WALK, world)
    (one,) = dataset("tum").read(tmp_path, "dynamics")
    assert one.name == WALK and one.units == "metres" and len(one) == 4
    np.testing.assert_allclose(one.cameras.intrinsics[0], K, atol=1e-9)
    np.testing.assert_allclose(
        one.cameras.camera_from_world, world.cameras.camera_from_world[:4], atol=1e-5
    )
    assert_consistent(one[:3])
    dark = world.images[1][..., 0] <= 80
    assert dark.any() and (one.depth(1)[dark] == 0).all()
    np.testing.assert_allclose(one.depth(1)[~dark], world.depth[1][~dark], atol=0.00011)
    assert not one.depth(3).any() and one.depth(3).shape == (48, 64)


def test_splits_and_cameras(tmp_path, world):
    write(tmp_path / WALK, world)
    write(tmp_path / DESK, world)
    tum = dataset("tum")
    (desk,) = tum.read(tmp_path, "freiburg1")
    assert desk.name == DESK
    assert desk.cameras.intrinsics[0, 0, 0] == pytest.approx(51.73)
    assert [one.name for one in tum.read(tmp_path, "all")] == [DESK, WALK]
    assert [one.name for one in tum.read(tmp_path / DESK, "all")] == [DESK]
    with pytest.raises(InputError, match="holds no sequence of the split dynamics"):
        tum.read(tmp_path / DESK, "dynamics")


def test_malformed_files_are_named(tmp_path, world):
    write(tmp_path / DESK, world)
    truth = tmp_path / DESK / "groundtruth.txt"
    good = truth.read_text()
    truth.write_text("1.0 2.0\n")
    with pytest.raises(InputError, match=r"groundtruth.txt: .*8 columns"):
        dataset("tum").read(tmp_path, "all")
    truth.write_text("1.0 0 0 0 0 0 0 1\n")
    with pytest.raises(InputError, match="no pose lies within 0.02 s"):
        dataset("tum").read(tmp_path, "all")
    truth.write_text(good)
    (tmp_path / DESK / "rgb.txt").write_text("1.0 ../../etc/passwd\n")
    with pytest.raises(InputError, match="leaves the sequence"):
        dataset("tum").read(tmp_path, "all")


stamps = st.lists(
    st.integers(0, 300).map(lambda n: n / 500), min_size=0, max_size=12, unique=True
).map(np.array)


@given(stamps, stamps)
@settings(max_examples=60, deadline=None)
def test_association_is_the_greedy_one(first, second):
    """Against the definition: all pairs by gap, each stamp used once."""
    pairs = associate(first, second)
    assert len(set(pairs[:, 0])) == len(pairs) == len(set(pairs[:, 1]))
    gaps = np.abs(first[:, None] - second[None]) if len(first) and len(second) else np.ones((0, 0))
    taken = np.abs(first[pairs[:, 0]] - second[pairs[:, 1]]) if len(pairs) else np.zeros(0)
    assert (taken < REACH).all()
    for i, j in zip(*np.nonzero(gaps < REACH - 1e-9), strict=True):
        # A pair that was not taken lost one of its stamps to a pair at least as close.
        rivals = taken[(pairs[:, 0] == i) | (pairs[:, 1] == j)]
        assert len(rivals) and rivals.min() <= gaps[i, j] + 1e-12
