from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggt_edge import geometry
from vggt_edge.errors import InputError
from vggt_edge.evaluate import dataset_files

sides = st.integers(20, 4000)


@given(sides, sides, st.floats(0.1, 3), st.floats(10, 5000), st.floats(-0.2, 1.2))
def test_a_resized_picture_shows_the_same_rays(height, width, factor, focal, share):
    declared = height, width
    stored = max(1, round(height * factor)), max(1, round(width * factor))
    k = dataset_files.pinhole(focal, focal * 1.1, share * width, share * height)
    try:
        small = dataset_files.resized(k, declared, stored)
    except ValueError as error:
        assert "its camera is for" in str(error)
        return
    # The picture's corners are half a pixel outside of the outermost pixel centres.
    for y, x in ((0, 0), (1, 1)):
        a = np.linalg.solve(k, [x * width - 0.5, y * height - 0.5, 1])
        b = np.linalg.solve(small, [x * stored[1] - 0.5, y * stored[0] - 0.5, 1])
        np.testing.assert_allclose(a, b, atol=1e-9, rtol=1e-9)


def test_a_picture_of_another_shape_is_refused():
    k = dataset_files.pinhole(500, 500, 320, 240)
    for stored in ((640, 480), (480, 600), (240, 330)):
        with pytest.raises(ValueError, match="its camera is for 640x480"):
            dataset_files.resized(k, (480, 640), stored)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.floats(0, 0.002))
def test_rigid_gives_the_nearest_rotation(quaternion, noise):
    if np.linalg.norm(quaternion) < 0.1:
        return
    rotation = geometry.quaternion_to_matrix(np.array(quaternion))
    rough = np.concatenate([rotation + noise * np.eye(3), [[1.0], [2], [3]]], axis=1)
    pose = dataset_files.rigid(np.vstack([rough, [0, 0, 0, 1]]))
    np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose, rough, atol=2 * noise + 1e-12)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1, -1])[:, [0, 1, 2, 2]],
        2 * np.eye(4),
        np.full((3, 4), np.nan),
        np.full((3, 4), 1e300),
        np.zeros((0, 4)),
        [[1, 2], [3, 4]],
        [["a"] * 4] * 3,
        None,
    ],
)
def test_what_is_no_pose(matrix):
    with pytest.raises((ValueError, TypeError)):
        dataset_files.rigid(matrix)


def test_json_plain_and_packed(tmp_path):
    tree = {"a": [1, "ü"]}
    for name, data in (
        ("a.json", json.dumps(tree).encode()),
        ("a.jgz", gzip.compress(json.dumps(tree).encode())),
    ):
        (tmp_path / name).write_bytes(data)
        assert dataset_files.read_json(tmp_path / name) == tree
        (tmp_path / name).write_bytes(data[:-3])
        with pytest.raises(InputError, match=f"{name}: .*fetch or export it again"):
            dataset_files.read_json(tmp_path / name)
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not JSON"):
        dataset_files.read_json(tmp_path / "deep.json")


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_files, "JSON_LIMIT", 1000)
    (tmp_path / "bomb.jgz").write_bytes(gzip.compress(b" " * 10_000_000 + b"1"))
    with pytest.raises(InputError, match="implausibly large"):
        dataset_files.read_json(tmp_path / "bomb.jgz")


def test_grey_pictures_keep_their_bits(tmp_path):
    values = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    path = tmp_path / "depth.png"
    Image.fromarray(values).save(path)
    assert (dataset_files.read_gray(path) == values).all()
    Image.new("RGB", (2, 2)).save(path)
    with pytest.raises(InputError, match="depth.png: not a grey picture .*RGB"):
        dataset_files.read_gray(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="depth.png"):
        dataset_files.read_gray(path)
    with pytest.raises(InputError, match="nowhere.png"):
        dataset_files.read_gray(tmp_path / "nowhere.png")


@given(st.text(max_size=20))
def test_safe_names(text):
    name = dataset_files.safe_name(text)
    assert dataset_files.SAFE_NAME.fullmatch(name) and "/" not in name
