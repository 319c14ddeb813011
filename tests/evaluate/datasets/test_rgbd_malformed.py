"""Whatever happened to a file of an RGB-D dataset, the user reads one line about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_cameras_json_dataset
import test_kitti_dataset
import test_nrgbd_dataset
import test_scannet_dataset
import test_seven_scenes_dataset
import test_tum_dataset
from posed_miniature import make_world

from vggt_edge.errors import VGGTEdgeError
from vggt_edge.evaluate.datasets import dataset

CASES = {
    "7scenes": "test",
    "cameras": "all",
    "kitti": "train",
    "nrgbd": "rendered",
    "scannet": "test",
    "tum": "all",
}


def write(name: str, root: Path) -> None:
    if name == "7scenes":
        test_seven_scenes_dataset.write_sequence(
            root / "fire/seq-03", test_seven_scenes_dataset.make(585)
        )
        (root / "fire/TestSplit.txt").write_text("sequence3\n")
    elif name == "cameras":
        test_cameras_json_dataset.write(root, make_world(3, 36, 48))
    elif name == "kitti":
        test_kitti_dataset.write(root, make_world(4, 37, 124, test_kitti_dataset.K))
    elif name == "nrgbd":
        test_nrgbd_dataset.write(root, make_world(4, 48, 64))
    elif name == "scannet":
        color, sensor = test_scannet_dataset.COLOR, test_scannet_dataset.SENSOR
        test_scannet_dataset.write(
            root / "scene0707_00", make_world(3, 97, 130, color), make_world(3, 48, 64, sensor)
        )
    else:
        test_tum_dataset.write(
            root / "rgbd_dataset_freiburg2_xyz", make_world(5, 48, 64, test_tum_dataset.K)
        )


def damaged(data: bytes, rng: np.random.Generator) -> list[bytes]:
    """Versions of a file: emptied, cut, garbled, and with numbers replaced."""
    versions = [b"", data[: len(data) // 2], b"\xff\x00\xfe" * 9, data + data]
    words = data.split(b" ")
    for odd in (b"nan", b"-inf", b"1e308", b"-1e200", b"0", b"9" * 5000, b"x", b"null", b"[]"):
        changed = list(words)
        for place in rng.integers(len(words), size=1 + len(words) // 8):
            changed[place] = odd
        versions.append(b" ".join(changed))
    return versions


@pytest.mark.parametrize("name", CASES)
def test_one_line_about_any_file(tmp_path, name):
    write(name, tmp_path)
    rng = np.random.default_rng(5)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix in (".txt", ".json")]
    refused = 0
    for path in [*texts, files[0], files[-1]]:
        data = path.read_bytes()
        for version in damaged(data, rng):
            path.write_bytes(version)
            try:
                for one in dataset(name).read(tmp_path, CASES[name]):
                    assert one.cameras is None or np.isfinite(one.cameras.camera_from_world).all()
                    if one.depth is not None:
                        depth = one.depth(0)
                        assert depth.dtype == np.float32 and np.isfinite(depth).all()
            except VGGTEdgeError as error:
                refused += 1
                assert "\n" not in str(error) and str(tmp_path) in str(error)
        path.write_bytes(data)
    assert refused > 10
