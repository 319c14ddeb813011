from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from posed_miniature import assert_consistent, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset

K = np.array([[71.8856, 0, 60.71928], [0, 71.8856, 18.52157], [0, 0, 1]])
# Of the published P2: the left colour camera as seen from the left grey one.
OFFSET = np.array([0.0598, -0.0003, 0.0027])


@pytest.fixture(scope="module")
def world():
    return make_world(4, 37, 124, K)


def write(root, world, name="00"):
    """Poses are those of the grey camera, which sits beside the colour camera that sees."""
    color_from_grey = np.concatenate([np.eye(3), OFFSET[:, None]], axis=1)
    world_from_grey = geometry.compose_rigid(
        geometry.invert_rigid(world.cameras.camera_from_world),
        np.broadcast_to(color_from_grey, (4, 3, 4)),
    )
    first = geometry.invert_rigid(world_from_grey[:1])
    poses = geometry.compose_rigid(np.broadcast_to(first, (4, 3, 4)), world_from_grey)
    folder = root / "sequences" / name
    for i, image in enumerate(world.images):
        save(image, folder / "image_2" / f"{i:06d}.png")
        save(image[..., 1], folder / "image_0" / f"{i:06d}.png")
    matrices = {"P0": np.zeros(3), "P1": np.array([-0.54, 0, 0]), "P2": OFFSET, "P3": -OFFSET}
    lines = [
        f"{key}: "
        + " ".join(f"{x:.12e}" for x in np.concatenate([K, (K @ t)[:, None]], axis=1).ravel())
        for key, t in matrices.items()
    ]
    (folder / "calib.txt").write_text("\n".join([*lines, "Tr: " + "0 " * 12]) + "\n")
    (root / "poses").mkdir(parents=True, exist_ok=True)
    text = "\n".join(" ".join(f"{x:.6e}" for x in pose.ravel()) for pose in poses)
    (root / "poses" / f"{name}.txt").write_text(text + "\n")
    return poses


def test_reads_its_layout(tmp_path, world):
    poses = write(tmp_path / "dataset", world)
    (one,) = dataset("kitti").read(tmp_path, "train")
    assert one.name == "00" and one.units == "metres" and one.depth is None
    np.testing.assert_allclose(one.cameras.intrinsics[2], K, atol=1e-9)
    # Relative poses are those of the camera that sees, not of the one beside it.
    np.testing.assert_allclose(relative(one.cameras), relative(world.cameras), atol=1e-5)
    (grey,) = dataset("kitti").read(tmp_path, "train-grey")
    np.testing.assert_allclose(grey.cameras.world_from_camera, poses, atol=1e-5)
    assert grey.paths[0].parent.name == "image_0"
    assert_consistent(replace(one, depth=lambda i: world.depth[i]))


def relative(cameras):
    first = np.broadcast_to(cameras.world_from_camera[:1], (len(cameras), 3, 4))
    return geometry.compose_rigid(cameras.camera_from_world, first)


def test_splits(tmp_path, world):
    for name in ("10", "01", "00"):
        write(tmp_path, world, name)
    kitti = dataset("kitti")
    assert [one.name for one in kitti.read(tmp_path, "train")] == ["00", "01", "10"]
    assert [one.name for one in kitti.read(tmp_path, "without-01")] == ["00", "10"]


def test_what_does_not_match_is_named(tmp_path, world):
    write(tmp_path, world)
    (tmp_path / "sequences/00/image_2/000003.png").unlink()
    with pytest.raises(InputError, match="4 poses, but 3 pictures"):
        dataset("kitti").read(tmp_path, "train")
    write(tmp_path, world)
    (tmp_path / "sequences/00/calib.txt").write_text("P0: 1 2 3\n")
    with pytest.raises(InputError, match=r"calib.txt: not a KITTI calibration \(it lacks 'P2'"):
        dataset("kitti").read(tmp_path, "train")
    (tmp_path / "poses/00.txt").unlink()
    with pytest.raises(InputError, match=r"lacks poses/00.txt"):
        dataset("kitti").read(tmp_path, "train")
