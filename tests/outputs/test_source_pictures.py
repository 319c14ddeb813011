from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from synthetic import make_scene

from vggt_edge.errors import ImageError
from vggt_edge.images import load_source, read_views
from vggt_edge.outputs import colmap, source_pictures
from vggt_edge.scene.tracks import build_sparse_model
from vggt_edge.types import Views


@pytest.fixture
def photos(tmp_path):
    """A folder with one picture of each awkward kind."""
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
    picture = Image.fromarray(ramp)
    picture.save(folder / "a plain.JPG", quality=90)
    exif = Image.Exif()
    exif[274] = 6
    picture.save(folder / "b_turned.jpg", exif=exif)
    picture.save(folder / "c_plain.png")
    picture.putalpha(Image.fromarray(ramp[:, :, 0]))
    picture.save(folder / "d_transparent.png")
    Image.fromarray(ramp[:, :, 0].astype(np.uint16) * 257).save(folder / "e_deep.tif")
    return folder


def test_pictures_are_upright_complete_and_named_after_their_sources(photos, tmp_path):
    views = read_views(photos, size=70)
    names = source_pictures.write(views, tmp_path / "out")
    assert names == (
        "a plain.JPG",
        "b_turned.jpg",
        "c_plain.png",
        "d_transparent.png",
        "e_deep.png",
    )
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)
    for i, name in enumerate(names):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.getexif().get(274, 1) == 1 and image.mode == "RGB"
            assert image.size == tuple(views.source_sizes[i, ::-1])
            difference = np.asarray(image).astype(int) - load_source(views.sources[i])
            assert np.abs(difference).mean() < 2
    for same in ("a plain.JPG", "c_plain.png"):
        assert (tmp_path / "out" / same).read_bytes() == (photos / same).read_bytes()


def test_links(photos, tmp_path):
    views = read_views(photos, size=70)
    for _ in range(2):
        source_pictures.write(views, tmp_path / "out", link=True)
        assert os.path.samefile(tmp_path / "out" / "c_plain.png", photos / "c_plain.png")
    assert not os.path.samefile(tmp_path / "out" / "b_turned.jpg", photos / "b_turned.jpg")
    assert len(os.listdir(tmp_path / "out")) == 5


@pytest.mark.parametrize("link", [False, True])
def test_sources_in_the_same_folder_are_never_overwritten(photos, link):
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    names = source_pictures.write(read_views(photos, size=70), photos, link=link)
    assert names[:4] == (
        "a plain.JPG",
        "b_turned_upright.jpg",
        "c_plain.png",
        "d_transparent_upright.png",
    )
    assert {name: (photos / name).read_bytes() for name in before} == before


def test_no_two_photos_become_one_image(tmp_path):
    folder = tmp_path / "photos"
    (folder / "x").mkdir(parents=True)
    turned = Image.Exif()
    turned[274] = 6
    sources = ("a.jpg", "a.jpg.jpg", "x/A.JPG", "b.jpg", "b_upright.jpg", "b_upright_2.jpg")
    for i, source in enumerate(sources):
        exif = turned if source == "b.jpg" else Image.Exif()
        Image.new("RGB", (20, 10), (40 * i,) * 3).save(folder / source, exif=exif)
    views = Views.from_images(
        np.zeros((6, 14, 14, 3), np.uint8), ("a", "a.jpg", "A", "b", "b_upright", "b_upright_2")
    )
    views = replace(views, sources=tuple(str(folder / source) for source in sources))
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for place in (tmp_path / "out", folder):
        names = source_pictures.write(views, place)
        assert len({name.lower() for name in names}) == 6
        for i, name in enumerate(names):
            with Image.open(place / name) as image:
                assert abs(np.asarray(image).mean() - 40 * i) < 3, name
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_photo_twice_in_its_own_folder(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg")
    views = Views.from_images(np.zeros((2, 14, 14, 3), np.uint8), ("a", "a.jpg"))
    views = replace(views, sources=(str(tmp_path / "a.jpg"),) * 2)
    assert source_pictures.write(views, tmp_path) == ("a.jpg", "a_upright.jpg")
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "a_upright.jpg"]


def test_names_without_spaces(photos, tmp_path):
    views = read_views(photos, size=70)[:1]
    assert source_pictures.write(views, photos, spaces=False) == ("a_plain.JPG",)
    assert (photos / "a_plain.JPG").read_bytes() == (photos / "a plain.JPG").read_bytes()


def test_views_that_are_their_own_sources(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 14, 28, 3), dtype=np.uint8)
    names = source_pictures.write(Views.from_images(images), tmp_path)
    assert names == ("view_0000.png", "view_0001.png")
    for name, image in zip(names, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), image)


def test_a_source_that_is_gone(photos, tmp_path):
    views = read_views(photos, size=70)
    (photos / "c_plain.png").unlink()
    with pytest.raises(ImageError, match="c_plain"):
        source_pictures.write(views, tmp_path / "out")


def test_video_frames(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(0, 250, 25):
            picture = np.full((48, 64, 3), shade, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    views = read_views(tmp_path / "clip.mp4", every=3, size=70)
    names = source_pictures.write(views, tmp_path / "out")
    assert names == tuple(f"{name}.jpg" for name in views.names) and len(names) == 4
    for name, shade in zip(names, range(0, 250, 75), strict=True):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (64, 48)
            assert abs(np.asarray(image).mean() - shade) < 8


def test_a_colmap_data_set_names_its_pictures(tmp_path):
    scene = make_scene(views=3, source_scale=1)
    model = build_sparse_model(scene, target_points=300)
    pictures = source_pictures.write(scene.views, tmp_path / "images")
    colmap.write(model, tmp_path, pictures=pictures)
    read = colmap.read(tmp_path)
    assert sorted(os.listdir(tmp_path / "images")) == list(read.names)
    for name, size in zip(read.names, read.cameras.sizes, strict=True):
        with Image.open(tmp_path / "images" / name) as image:
            assert image.size == tuple(size[::-1])
