from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_scene import make_scene

from vggt_edge.errors import InputError
from vggt_edge.outputs import npz
from vggt_edge.types import Prediction, Scene


def assert_same(a, b):
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_a_scene_comes_back_bit_for_bit(tmp_path):
    scene = make_scene("metres")
    back = npz.read(npz.write(scene, tmp_path / "scene.npz"))
    assert isinstance(back, Scene)
    assert_same(back, scene)


@pytest.mark.parametrize("cameras", [True, False])
def test_a_prediction_comes_back_with_the_heads_it_had(tmp_path, cameras):
    prediction = make_scene().prediction
    points = prediction.world_points()
    if not cameras:
        prediction = Prediction(
            prediction.views, points=points, points_confidence=prediction.depth_confidence
        )
    assert_same(npz.read(npz.write(prediction, tmp_path / "p.npz")), prediction)


def test_plain_numpy_reads_it_without_pickle(tmp_path):
    scene = make_scene()
    with np.load(npz.write(scene, tmp_path / "scene.npz"), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file}
    assert arrays["names"].tolist() == list(scene.views.names)
    pose = np.eye(4)
    pose[:3] = arrays["world_from_camera"][1]
    np.testing.assert_allclose(arrays["camera_from_world"][1] @ pose, np.eye(4)[:3], atol=1e-12)
    # A view pixel's ray is the ray of the source pixel it comes from.
    view_ray = np.linalg.inv(arrays["intrinsics"][0]) @ [4, 5, 1]
    source_ray = np.linalg.inv(arrays["source_intrinsics"][0]) @ [8.5, 4.5, 1]
    np.testing.assert_allclose(view_ray, source_ray, atol=1e-12)


@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=3, max_size=3
    )
)
def test_any_name_survives(tmp_path_factory, names):
    scene = make_scene()
    views = replace(scene.views, names=tuple(names), sources=tuple(names))
    path = npz.write(Prediction(views), tmp_path_factory.mktemp("names") / "p.npz")
    assert npz.read(path).views.names == tuple(names)


def _without(path, target, key, array=None):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name != key}
    if array is not None:
        arrays[key] = array
    np.savez(target, **arrays)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    path, bad = npz.write(make_scene(), tmp_path / "good.npz"), tmp_path / "bad.npz"
    _without(path, bad, "colors")
    with pytest.raises(InputError, match="bad.npz lacks colors"):
        npz.read(bad)
    _without(path, bad, "depth", np.ones((3, 24, 33), np.float32))
    with pytest.raises(InputError, match="depth has shape"):
        npz.read(bad)
    _without(path, bad, "images", np.ones((3, 24, 32, 3), np.float32))
    with pytest.raises(InputError, match="images has shape"):
        npz.read(bad)
    _without(path, bad, "names", np.array([1, "a", None], dtype=object))
    with pytest.raises(InputError, match="bad.npz"):
        npz.read(bad)
    _without(path, bad, "format")
    with pytest.raises(InputError, match="not an .npz of this package"):
        npz.read(bad)


@given(cut=st.floats(0, 0.999), flip=st.integers(0, 255))
def test_damage_is_an_input_error_or_harmless(tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp("damage")
    data = bytearray(npz.write(make_scene(), folder / "a.npz").read_bytes())
    (folder / "cut.npz").write_bytes(data[: int(cut * len(data))])
    with pytest.raises(InputError, match="cut.npz"):
        npz.read(folder / "cut.npz")
    data[int(cut * len(data))] = flip
    (folder / "flip.npz").write_bytes(data)
    try:
        npz.read(folder / "flip.npz")
    except InputError as error:
        assert "flip.npz" in str(error)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="none.npz"):
        npz.read(tmp_path / "none.npz")
