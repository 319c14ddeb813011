from __future__ import annotations

import json

import numpy as np
import pytest
from known_scene import make_scene, with_pictures
from PIL import Image

from vggt_edge.errors import OutputError
from vggt_edge.outputs import source_pictures, transforms


def project_as_nerfstudio(frame, point):
    """World point to a position counted from the image's corner, by nerfstudio's documentation."""
    x, y, z, _ = np.linalg.inv(frame["transform_matrix"]) @ [*point, 1]
    u = frame["fl_x"] * x / -z + frame["cx"]
    return np.array([u, frame["fl_y"] * -y / -z + frame["cy"]])


@pytest.mark.parametrize("orientation", [1, 6])  # 6: stored a quarter turn anticlockwise
def test_points_project_to_the_source_pixels_they_came_from(tmp_path, orientation):
    scene = with_pictures(make_scene(), tmp_path / "photos", orientation)
    out = tmp_path / "out"
    pictures = [f"images/{n}" for n in source_pictures.write(scene.views, out / "images")]
    path = transforms.write(scene, out / "transforms.json", pictures, ply=out / "scene.ply")
    tree = json.loads(path.read_text("utf-8"))
    assert tree["ply_file_path"] == "scene.ply"
    for i, frame in enumerate(tree["frames"]):
        with Image.open(out / frame["file_path"]) as picture:
            assert picture.size == (64, 36) == (frame["w"], frame["h"])
            assert picture.getexif().get(0x0112, 1) == 1
        for n in np.flatnonzero(scene.view_index == i)[::97]:
            source = scene.views.source_from_view[i] @ [*scene.pixel[n], 1]
            got = project_as_nerfstudio(frame, scene.points[n])
            np.testing.assert_allclose(got, source[:2] + 0.5, atol=1e-3)


def test_without_cameras_nothing_is_written(tmp_path):
    from dataclasses import replace

    scene = make_scene()
    bare = replace(scene, prediction=replace(scene.prediction, cameras=None))
    with pytest.raises(OutputError, match="heads="):
        transforms.write(bare, tmp_path / "transforms.json", ["a.jpg"] * 3)
    assert list(tmp_path.iterdir()) == []
