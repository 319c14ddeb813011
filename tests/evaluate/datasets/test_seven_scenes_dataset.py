from __future__ import annotations

import shutil

import numpy as np
import pytest
from posed_miniature import assert_consistent, assert_same_cameras, make_world, save

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset
from vggt_edge.evaluate.datasets.seven_scenes import SCENES

INVALID, EMPTY = (3, 5), (4, 6)
TENTH = np.array([[0.1, 0, -0.45], [0, 0.1, -0.45], [0, 0, 1]])  # a tenth of 640x480


def make(focal):
    return make_world(3, 48, 64, TENTH @ [[focal, 0, 320], [0, focal, 240], [0, 0, 1]])


@pytest.fixture(scope="module")
def world():
    return make(585)


def write_sequence(folder, world, ending="depth.png"):
    """Frames as the archives hold them: poses of six or so digits, tab separated."""
    poses = geometry.invert_rigid(world.cameras.camera_from_world)
    for i, image in enumerate(world.images):
        stem = folder / f"frame-{i:06d}"
        save(image, stem.with_name(f"{stem.name}.color.png"))
        counts = np.rint(world.depth[i] * 1000).astype(np.uint16)
        counts[INVALID], counts[EMPTY] = 65535, 0
        save(counts, stem.with_name(f"{stem.name}.{ending}"))
        rows = [*poses[i].tolist(), [0, 0, 0, 1]]
        text = "\n".join("\t ".join(f"{x: .7e}" for x in row) + "\t " for row in rows)
        stem.with_name(f"{stem.name}.pose.txt").write_text(text + "\n")


@pytest.fixture
def root(tmp_path, world):
    for scene in ("chess", "stairs"):
        for number in (1, 2, 12):
            write_sequence(tmp_path / scene / f"seq-{number:02d}", world)
        (tmp_path / scene / "TrainSplit.txt").write_text("sequence1\r\n")
        (tmp_path / scene / "TestSplit.txt").write_text("sequence2\r\nsequence12\r\n")
    return tmp_path


def test_reads_its_layout(root, world):
    recordings = dataset("7scenes").read(root, "test")
    names = ["chess/seq-02", "chess/seq-12", "stairs/seq-02", "stairs/seq-12"]
    assert [one.name for one in recordings] == names
    first = recordings[0]
    assert first.units == "metres"
    assert [path.name for path in first.paths] == [f"frame-{i:06d}.color.png" for i in range(3)]
    assert_same_cameras(first.cameras, world)
    assert_consistent(first)
    depth = first.depth(1)
    assert depth[INVALID] == depth[EMPTY] == 0
    depth[INVALID], depth[EMPTY] = world.depth[1][INVALID], world.depth[1][EMPTY]
    np.testing.assert_allclose(depth, world.depth[1], atol=0.00051)
    assert [r.name for r in dataset("7scenes").read(root, "train")] == [
        "chess/seq-01",
        "stairs/seq-01",
    ]


def test_conventions_of_the_color_camera(root):
    seen = make(525)
    write_sequence(root / "chess/seq-02", seen, "depth.proj.png")
    with pytest.raises(InputError, match=r"lacks chess/seq-12/frame-000000.depth.proj.png"):
        dataset("7scenes").read(root, "test-proj")
    for sequence in ("chess/seq-12", "stairs/seq-02", "stairs/seq-12"):
        write_sequence(root / sequence, seen, "depth.proj.png")
    first = dataset("7scenes").read(root, "test-proj")[0]
    assert_same_cameras(first.cameras, seen)
    assert_consistent(first)
    mixed = dataset("7scenes").read(root, "test-525")[0]
    assert_same_cameras(mixed.cameras, seen)
    raw = dataset("7scenes").read(root, "test")[0]
    np.testing.assert_array_equal(mixed.depth(0), raw.depth(0))


def test_the_check_can_fail(root):
    """A pose read the wrong way round is noticed."""
    one = dataset("7scenes").read(root, "test")[0]
    one.cameras.camera_from_world[:] = one.cameras.world_from_camera
    with pytest.raises(AssertionError):
        assert_consistent(one)


def test_what_is_missing_is_named(root):
    shutil.rmtree(root / "chess/seq-12")
    with pytest.raises(InputError, match=r"lacks chess/seq-12, which TestSplit.txt names"):
        dataset("7scenes").read(root, "test")
    (root / "chess/TestSplit.txt").write_text("sequence2\n")
    (root / "chess/seq-02/frame-000001.pose.txt").write_text("1 0 0 0\n")
    with pytest.raises(InputError, match=r"frame-000001.pose.txt: not a 4x4 matrix"):
        dataset("7scenes").read(root, "test")


def test_knows_seven():
    assert len(SCENES) == 7
