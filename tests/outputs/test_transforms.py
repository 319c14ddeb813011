from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from known_scene import make_scene
from PIL import Image

from vggt_edge.outputs import transforms


def project_as_nerfstudio(frame, point):
    """World point to a position counted from the image's corner, by nerfstudio's documentation."""
    x, y, z, _ = np.linalg.inv(frame["transform_matrix"]) @ [*point, 1]
    u = frame["fl_x"] * x / -z + frame["cx"]
    return np.array([u, frame["fl_y"] * -y / -z + frame["cy"]])


def with_pictures(scene, folder, **save):
    height, width = scene.views.source_sizes[0]
    paths = []
    for i, name in enumerate(scene.views.names):
        picture = Image.fromarray(np.full((height, width, 3), 40 * i, np.uint8))
        if save:
            picture = picture.rotate(90, expand=True)
        paths.append(folder / f"{name}.jpg")
        picture.save(paths[-1], **save)
    views = replace(scene.views, sources=tuple(map(str, paths)))
    return replace(scene, prediction=replace(scene.prediction, views=views))


def test_points_project_to_the_source_pixels_they_came_from(tmp_path):
    (tmp_path / "photos").mkdir()
    scene = with_pictures(make_scene(), tmp_path / "photos")
    path = transforms.write(
        scene, tmp_path / "out" / "transforms.json", ply=tmp_path / "out" / "scene.ply"
    )
    tree = json.loads(path.read_text("utf-8"))
    assert tree["ply_file_path"] == "scene.ply"
    for i, frame in enumerate(tree["frames"]):
        assert frame["file_path"] == f"../photos/{scene.views.names[i]}.jpg"
        assert (frame["h"], frame["w"]) == (36, 64)
        for n in np.flatnonzero(scene.view_index == i)[::97]:
            source = scene.views.source_from_view[i] @ [*scene.pixel[n], 1]
            got = project_as_nerfstudio(frame, scene.points[n])
            np.testing.assert_allclose(got, source[:2] + 0.5, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["transforms.json"]


def test_views_that_are_no_files_are_stored_as_seen_without_their_padding(tmp_path):
    scene = make_scene()
    tree = json.loads(transforms.write(scene, tmp_path / "transforms.json").read_text("utf-8"))
    for i, frame in enumerate(tree["frames"]):
        with Image.open(tmp_path / frame["file_path"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), scene.views.images[i, 3:21])
            assert picture.size == (frame["w"], frame["h"])
        n = np.flatnonzero(scene.view_index == i)[50]
        column, row = scene.pixel[n]
        got = project_as_nerfstudio(frame, scene.points[n])
        np.testing.assert_allclose(got, [column + 0.5, row - 3 + 0.5], atol=1e-3)


def test_photographs_stored_turned_are_copied_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn anticlockwise
    scene = with_pictures(make_scene(), tmp_path, exif=exif)
    tree = json.loads(transforms.write(scene, tmp_path / "transforms.json").read_text("utf-8"))
    for frame in tree["frames"]:
        assert frame["file_path"].startswith("images/")
        with Image.open(tmp_path / frame["file_path"]) as picture:
            assert picture.size == (64, 36) == (frame["w"], frame["h"])
            assert picture.getexif().get(0x0112, 1) == 1
