from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset

REAL = Path("/work/shared/data/posed")
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not on this machine")
INVALID = (2, 3)


@pytest.fixture(scope="module")
def world():
    return make_world(3, 36, 48)


def write(folder, world, flip=(1, 1), change=None, **top):
    """``flip`` turns the camera's axes x and y, as ICL-NUIM's y, and mirrors the world if need be.

    ``change`` is called with the list of frames before it is written.
    """
    axes = np.diag([*flip, 1])
    mirrored = axes if np.linalg.det(axes) < 0 else np.eye(3)
    poses = geometry.invert_rigid(world.cameras.camera_from_world)
    frames = []
    for i, image in enumerate(world.images):
        pose = np.eye(4)
        pose[:3, :3] = mirrored @ poses[i, :, :3] @ axes
        pose[:3, 3] = mirrored @ poses[i, :, 3]
        counts = np.rint(world.depth[i] * 5000).astype(np.uint16)
        counts[INVALID] = 0
        save(image, folder / f"images/{i}.jpg")
        save(counts, folder / f"depth/{i}.png")
        frames.append(
            {
                **{"image": f"images/{i}.jpg", "depth": f"depth/{i}.png", "w": 48, "h": 36},
                "K": (world.cameras.intrinsics[i] @ axes).tolist(),
                "c2w": pose.tolist(),
            }
        )
    if change:
        change(frames)
    content = {"depth_unit_m": 0.0002, **top, "frames": frames}
    (folder / "cameras.json").write_text(json.dumps(content))


def read(root):
    return dataset("cameras").read(root, "all")


@pytest.mark.parametrize("flip", [(1, 1), (1, -1), (-1, -1)])
def test_reads_its_layout(tmp_path, world, flip):
    """A negative focal length is a turned axis; two of them leave the world as it is."""
    write(tmp_path / "kitchen", world, flip)
    (one,) = read(tmp_path / "kitchen")
    assert one.name == "kitchen" and one.units == "metres"
    assert_same_cameras(one.cameras, world, 1e-9)
    assert_consistent(one)
    depth = one.depth(1)
    assert depth[INVALID] == 0
    np.testing.assert_allclose(depth[3:], world.depth[1][3:], atol=0.00011)


def test_a_folder_of_folders(tmp_path, world):
    write(tmp_path / "b", world, metric=False)
    write(tmp_path / "a", world, depth_unit_m=None, change=lambda f: [x.pop("depth") for x in f])
    (tmp_path / "c").mkdir()
    first, second = read(tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert first.depth is None and first.units == second.units == "arbitrary"


def test_frames_without_cameras(tmp_path, world):
    def forget(frames):
        frames[1]["c2w"] = frames[1]["K"] = None

    def forget_all(frames):
        for frame in frames:
            frame["c2w"] = frame["K"] = None

    write(tmp_path / "a", world, change=forget)
    write(tmp_path / "b", world, change=forget_all)
    some, none = read(tmp_path)
    assert [path.name for path in some.paths] == ["0.jpg", "2.jpg"]
    np.testing.assert_allclose(some.depth(1)[3:], world.depth[2][3:], atol=0.00011)
    assert len(none) == 3 and none.cameras is None


def flip_one(frames):
    frames[1]["K"][1][1] *= -1


def leave(frames):
    frames[0]["image"] = "../secret.jpg"


def shear(frames):
    frames[2]["c2w"][0][0] += 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [(flip_one, "some frames are negative"), (leave, "leaves the folder"), (shear, "rotation")]
    + [(list.clear, "no frames"), (lambda frames: frames[0].pop("K"), "lacks 'K'")],
)
def test_malformed_files_are_named(tmp_path, world, change, reason):
    write(tmp_path, world, change=change)
    with pytest.raises(InputError, match=rf"cameras.json: .*{reason}"):
        read(tmp_path)


def test_depth_needs_a_unit(tmp_path, world):
    write(tmp_path, world, depth_unit_m=None)
    with pytest.raises(InputError, match="no depth_unit_m"):
        read(tmp_path)


@real
def test_reads_the_real_folders():
    recordings = read(REAL)
    assert len(recordings) == sum(1 for _ in REAL.glob("*/cameras.json"))
    for one in recordings:
        assert (one.cameras.intrinsics[:, [0, 1], [0, 1]] > 0).all()
        np.testing.assert_allclose(np.linalg.det(one.cameras.camera_from_world[..., :3]), 1)
        with Image.open(one.paths[-1]) as image:
            assert image.size[::-1] == tuple(one.cameras.sizes[-1])


@real
@pytest.mark.parametrize(
    ("name", "i", "j"),
    [("rgbd_7scenes_redkitchen", 0, 5), ("rgbd_icl_nuim_5", 0, 4), ("rgbd_sun3d_lounge_5", 0, 2)],
)
def test_real_frames_warp_into_each_other(name, i, j):
    """Depth lands where the other frame has it, and so does the colour."""
    (one,) = read(REAL / name)
    k, pose = one.cameras.intrinsics, one.cameras.camera_from_world
    depth = one.depth(i)
    there = geometry.project(geometry.unproject(depth, k[i], pose[i])[depth > 0], k[j], pose[j])
    column, row = np.rint(there[:, :2]).astype(int).T
    height, width = one.cameras.sizes[j]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (there[:, 2] > 0)
    assert inside.mean() > 0.25
    found = one.depth(j)[row[inside], column[inside]]
    error = np.abs(found - there[inside, 2])[found > 0] / found[found > 0]
    assert np.median(error) < 0.01
    first, second = (np.array(Image.open(one.paths[n]).convert("L"), float) for n in (i, j))
    close = np.flatnonzero(found > 0)[error < 0.02]
    moved = first[depth > 0][inside][close]
    assert np.corrcoef(moved, second[row[inside], column[inside]][close])[0, 1] > 0.7
