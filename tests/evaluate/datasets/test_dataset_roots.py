"""What every reader says about a root that is not there, or not what it should be."""

from __future__ import annotations

import pytest

from vggt_edge.errors import InputError
from vggt_edge.evaluate.datasets import dataset

NAMES = ("7scenes", "nrgbd", "scannet", "tum", "kitti", "cameras")


@pytest.mark.parametrize("name", NAMES)
def test_says_what_to_fetch(tmp_path, name):
    found = dataset(name)
    assert found.name == name
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "absent", file, tmp_path / "empty"):
        with pytest.raises(InputError) as raised:
            found.read(root, found.splits[0])
        message = str(raised.value)
        assert str(root) in message and "\n" not in message
        assert message.endswith(found.fetch) and "the root then holds" in found.fetch


@pytest.mark.parametrize("name", [*NAMES, "worlds"])
def test_names_its_splits(tmp_path, name):
    found = dataset(name)
    with pytest.raises(InputError) as raised:
        found.read(tmp_path / "absent", "nonsense")
    assert all(split in str(raised.value) for split in found.splits)
    assert not (tmp_path / "absent").exists()
