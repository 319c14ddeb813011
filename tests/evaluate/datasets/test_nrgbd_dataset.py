from __future__ import annotations

import numpy as np
import pytest
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset

LOST = 2  # a frame whose pose is nan
FOCAL = 55.42562584220408


@pytest.fixture(scope="module")
def world():
    return make_world(12, 48, 64, np.array([[FOCAL, 0, 32], [0, FOCAL, 24], [0, 0, 1]]))


def write(root, world, name="kitchen"):
    """OpenGL cameras, four lines a pose; names without leading zeros."""
    poses = geometry.invert_rigid(world.cameras.camera_from_world)
    lines = []
    for i, pose in enumerate(poses):
        save(world.images[i], root / name / "images" / f"img{i}.png")
        counts = np.rint(world.depth[i] * 1000).astype(np.uint16)
        counts[0, 0] = 0
        save(counts, root / name / "depth" / f"depth{i}.png")
        save(counts // 2, root / name / "depth_filtered" / f"depth{i}.png")
        opengl = np.concatenate([pose @ np.diag([1, -1, -1, 1]), [[0, 0, 0, 1]]])
        opengl[:] = np.nan if i == LOST else opengl
        lines += [" ".join(f"{x:.9f}" for x in row) for row in opengl]
    (root / name / "poses.txt").write_text("\n".join(lines) + "\n")
    (root / name / "focal.txt").write_text(f"{FOCAL}\n")


def test_reads_its_layout(tmp_path, world):
    write(tmp_path, world)
    write(tmp_path, world, "scene0000_00")
    (one,) = dataset("nrgbd").read(tmp_path, "rendered")
    assert one.name == "kitchen" and one.units == "metres"
    kept = [i for i in range(12) if i != LOST]
    assert [path.name for path in one.paths] == [f"img{i}.png" for i in kept]
    np.testing.assert_allclose(
        one.cameras.camera_from_world, world.cameras.camera_from_world[kept], atol=1e-6
    )
    assert_same_cameras(one[:2].cameras, world._replace(cameras=_first(world, 2)))
    assert_consistent(one)
    depth = one.depth(5)
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth[1:], world.depth[kept[5]][1:], atol=0.00051)
    names = [one.name for one in dataset("nrgbd").read(tmp_path, "all")]
    assert names == ["kitchen", "scene0000_00"]


def _first(world, count):
    c = world.cameras
    return type(c)(c.intrinsics[:count], c.camera_from_world[:count], c.sizes[:count])


def test_what_does_not_match_is_named(tmp_path, world):
    write(tmp_path, world)
    (tmp_path / "kitchen/depth/depth3.png").unlink()
    with pytest.raises(InputError, match="12 poses, 12 images and 11 depth maps do not match"):
        dataset("nrgbd").read(tmp_path, "rendered")
    (tmp_path / "kitchen/poses.txt").write_text("1 0 0\n")
    with pytest.raises(InputError, match=r"poses.txt: not camera poses"):
        dataset("nrgbd").read(tmp_path, "rendered")
