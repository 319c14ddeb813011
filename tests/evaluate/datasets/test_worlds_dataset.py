from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from posed_miniature import assert_consistent

from vggt_edge import worlds
from vggt_edge.errors import InputError, OutputError
from vggt_edge.evaluate.datasets import dataset
from vggt_edge.evaluate.datasets import worlds as reader
from vggt_edge.train.curriculum import draw
from vggt_edge.train.validate import VALIDATION_SEED

KINDS = ("room", "facade")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The splits as they are, but tiny."""
    for name, plan in list(reader.SPLITS.items()):
        kinds = tuple(kind for kind in plan.kinds if kind in KINDS)
        tiny = plan._replace(kinds=kinds, scenes=1, views=3, size=48)
        monkeypatch.setitem(reader.SPLITS, name, tiny)


def read(root, split):
    return dataset("worlds").read(root, split)


def test_renders_once_and_reads_back(tmp_path, monkeypatch):
    root = tmp_path / "new" / "root"
    first = read(root, "test-224")
    assert [one.name for one in first] == ["room/00", "facade/00"]
    pictures = [path.read_bytes() for one in first for path in one.paths]

    plan = reader.SPLITS["test-224"]
    seed = reader.seed_of(plan, "room/00")
    batch = worlds.render(seed, 1, 3, 48, 48, kinds=("room",), overlap=reader.OVERLAP)
    room = first[0]
    assert room.units == "metres" and room.points is None
    np.testing.assert_allclose(
        room.cameras.camera_from_world, batch.camera_from_world[0], atol=1e-5
    )
    np.testing.assert_allclose(room.cameras.intrinsics, batch.intrinsics[0], rtol=1e-6)
    for i in range(3):
        truth, valid = batch.depth[0, i].numpy(), batch.valid[0, i].numpy()
        np.testing.assert_array_equal(room.depth(i) > 0, valid)
        np.testing.assert_allclose(room.depth(i)[valid], truth[valid], rtol=1e-3)
        image = torch.from_numpy(np.array(Image.open(room.paths[i]))).permute(2, 0, 1) / 255
        assert (image - batch.images[0, i]).abs().max() < 0.003
    assert_consistent(room)

    def never(*_args, **_options):
        raise AssertionError("rendered again")

    monkeypatch.setattr(worlds, "render", never)
    again = read(root, "test-224")
    assert [path.read_bytes() for one in again for path in one.paths] == pictures
    # One kind of it is there already.
    assert [one.paths for one in read(root, "facade-224")] == [first[1].paths]


def test_an_interrupted_scene_is_rendered_anew(tmp_path):
    (one,) = read(tmp_path, "room-224")
    before = one.paths[1].read_bytes()
    (tmp_path / "test-224/room/00/cameras.json").unlink()
    one.paths[1].write_bytes(b"half a pic")
    (one,) = read(tmp_path, "room-224")
    assert one.paths[1].read_bytes() == before


def test_walks_are_continuous(tmp_path):
    room, _facade = read(tmp_path, "walk-112")
    assert len(room) == 3
    steps = np.linalg.norm(np.diff(room.cameras.centers, axis=0), axis=1)
    assert (steps < 0.3).all()
    assert_consistent(room)


def test_another_generator_is_refused(tmp_path):
    read(tmp_path, "room-224")
    path = tmp_path / "test-224/room/00/cameras.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "generator": "older"}))
    with pytest.raises(InputError, match=rf"another version .* delete {tmp_path}/test-224 or"):
        read(tmp_path, "room-224")


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is no folder"):
        read(tmp_path / "file", "test-224")


def test_nothing_is_seen_in_training():
    """Seeds of training, of its validation, and of the splits do not meet."""
    drawn = max(draw(step, 14, seed).seed for step in range(0, 50_000, 500) for seed in (0, 7))
    used = [
        reader.seed_of(plan, f"{kind}/{number:02d}")
        for plan in reader.SPLITS.values()
        for kind in plan.kinds
        for number in range(99)
    ]
    assert drawn < 2**40 < VALIDATION_SEED and min(used) > VALIDATION_SEED + 10**9
    sets = {
        reader.seed_of(reader.SPLITS["test-224"], f"{k}/{n:02d}") for k in KINDS for n in (0, 1)
    }
    walks = {reader.seed_of(reader.SPLITS["walk-224"], f"{kind}/00") for kind in KINDS}
    assert len(sets) == 4 and len(walks) == 2 and not sets & walks


def test_every_kind_has_a_split():
    assert {f"{kind}-224" for kind in worlds.KINDS} <= set(dataset("worlds").splits)
