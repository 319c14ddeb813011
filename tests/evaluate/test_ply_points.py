from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from vggt_edge.errors import InputError
from vggt_edge.evaluate import ply_points


@pytest.mark.parametrize("kind", ["text", "<", ">"])
@pytest.mark.parametrize("number", ["f4", "f8"])
def test_every_form_of_plyfile(tmp_path, kind, number):
    layout = [("quality", "u1"), ("x", number), ("y", number), ("nx", "f4"), ("z", number)]
    rows = np.zeros(50, layout)
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(number)
    rows["x"], rows["y"], rows["z"] = points.T
    rows["y"][7] = np.nan
    faces = np.array([([0, 1, 2],)], [("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(rows, "vertex"), PlyElement.describe(faces, "face")]
    ply = PlyData(
        elements, text=kind == "text", byte_order="=" if kind == "text" else kind, comments=["a"]
    )
    ply.write(str(tmp_path / "cloud.ply"))
    got = ply_points.read(tmp_path / "cloud.ply")
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, np.delete(points, 7, axis=0), rtol=1e-6)


WHOLE = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\n" + b"".join(
    b"property float %c\n" % axis for axis in b"xyz"
)


def test_a_file_that_ends_early(tmp_path):
    path = tmp_path / "cloud.ply"
    for promised in (2, 2**62):
        path.write_bytes(WHOLE % promised + b"end_header\n" + bytes(23))
        with pytest.raises(InputError, match=f"cloud.ply: .*ends before its {promised} vertices"):
            ply_points.read(path)
    path.write_bytes(WHOLE % 1 + b"end_header\n" + b"\xff" * 12)
    with pytest.raises(InputError, match="holds no points"):
        ply_points.read(path)
    with pytest.raises(InputError, match="cannot read .*No such file"):
        ply_points.read(tmp_path / "nowhere.ply")


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(WHOLE)), st.binary(max_size=30))
@example(len(WHOLE), b"end_header\n" + bytes(12))
@example(0, b"\xff\xfe")
def test_odd_files(tmp_path_factory, at, content):
    path = tmp_path_factory.getbasetemp() / "odd.ply"
    path.write_bytes((WHOLE % 1)[:at] + content + (WHOLE % 1)[at:])
    try:
        assert ply_points.read(path).shape[1] == 3
    except InputError as error:
        assert "\n" not in str(error) and "odd.ply" in str(error)
