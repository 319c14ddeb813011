"""Views against the reference loader's formulas, and the way back to the source pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vggt_edge.errors import ImageError, InputError
from vggt_edge.images import read_views
from vggt_edge.preprocess import keep_size, place

SHAPES = [(640, 480), (480, 640), (518, 518), (300, 1000), (1000, 120), (97, 61), (1300, 1301)]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Coarse noise, so that resizing has something to ring on."""
    rng = np.random.default_rng(seed)
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = rng.integers(0, 256, (height // 7 + 2, width // 7 + 2, bands), dtype=np.uint8)
    pixels = np.kron(noise, np.ones((7, 7, 1), np.uint8))[:height, :width]
    return Image.fromarray(pixels.squeeze())


def reference(pictures: list[Image.Image], mode: str) -> np.ndarray:
    """VGGT's load_and_preprocess_images, written anew with PIL and numpy from its description."""
    views = []
    for one in pictures:
        if one.mode == "RGBA":
            one = Image.alpha_composite(Image.new("RGBA", one.size, (255,) * 4), one)
        one = one.convert("RGB")
        w, h = one.size
        if mode == "crop" or w >= h:
            new_w, new_h = 518, round(h * (518 / w) / 14) * 14
        else:
            new_w, new_h = round(w * (518 / h) / 14) * 14, 518
        view = np.asarray(one.resize((new_w, new_h), Image.Resampling.BICUBIC))
        if mode == "crop" and new_h > 518:
            start = (new_h - 518) // 2
            view = view[start : start + 518]
        views.append(white_border(view, 518, 518) if mode == "pad" else view)
    height = max(view.shape[0] for view in views)
    width = max(view.shape[1] for view in views)
    return np.stack([white_border(view, height, width) for view in views])


def white_border(view: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, cols = height - view.shape[0], width - view.shape[1]
    margins = ((rows // 2, rows - rows // 2), (cols // 2, cols - cols // 2), (0, 0))
    return np.pad(view, margins, constant_values=255)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bands", ["RGB", "RGBA", "L"])
def test_crop_and_pad_are_the_reference_loaders(tmp_path, mode, shape, bands):
    one = picture(*shape, bands)
    one.save(tmp_path / "a.png")
    views = read_views(tmp_path, mode=mode)
    np.testing.assert_array_equal(views.images, reference([one], mode))


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_crop_and_pad_of_a_mixed_set_are_the_reference_loaders(tmp_path, mode):
    pictures = [picture(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    for i, one in enumerate(pictures):
        one.save(tmp_path / f"{i}.png")
    views = read_views(tmp_path, mode=mode)
    np.testing.assert_array_equal(views.images, reference(pictures, mode))


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_large_jpegs_are_not_decoded_at_a_fraction_in_reference_modes(tmp_path, mode):
    picture(2600, 1950).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        np.testing.assert_array_equal(
            read_views(tmp_path, mode=mode).images, reference([stored], mode)
        )


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (4000, 3000, (392, 518)),
        (3000, 4000, (518, 392)),
        (1920, 1080, (294, 518)),
        (1000, 1000, (448, 448)),
        (10000, 1000, (56, 518)),
        (1, 100000, (518, 14)),
        (640, 480, (392, 518)),
    ],
)
def test_keep_size_at_518(width, height, expected):
    assert keep_size((height, width)) == expected


@given(
    st.integers(1, 20000),
    st.integers(1, 20000),
    st.integers(1, 60),
    st.sampled_from([8, 14, 16]),
)
def test_keep_size_stays_in_budget_and_near_the_aspect(height, width, patches, patch):
    rows, cols = keep_size((height, width), patches * patch, patch)
    assert rows % patch == cols % patch == 0
    assert patch <= max(rows, cols) <= patches * patch
    assert rows * cols <= patches * max(1, round(patches * 3 / 4)) * patch * patch
    if min(rows, cols) > patch:  # the shorter side is at most half a patch off
        short = max(rows, cols) * min(height, width) / max(height, width)
        assert abs(short - min(rows, cols)) <= patch / 2 + 1e-6


def test_a_mixed_set_takes_the_most_frequent_shape(tmp_path):
    for i, shape in enumerate([(640, 480), (480, 640), (640, 480), (600, 600)]):
        Image.new("RGB", shape, (10, 20, 30)).save(tmp_path / f"{i}.png")
    views = read_views(tmp_path)
    assert views.size == (392, 518)
    assert views.valid.tolist() == [
        [0, 0, 392, 518],
        [0, 112, 392, 406],  # 294 wide, as 480:640
        [0, 0, 392, 518],
        [0, 63, 392, 455],
    ]
    inside = views.valid_mask()
    assert (views.images[inside] == (10, 20, 30)).all()
    assert (views.images[~inside] == 255).all()


def test_on_a_tie_the_shape_nearest_to_the_median_wins():
    sizes = [(480, 640), (640, 480), (500, 500)]
    assert {p.view for p in place(sizes, "keep", 518, 14)} == {(448, 448)}


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=5),
    st.sampled_from(["keep", "crop", "pad"]),
)
def test_placements_share_a_view_and_corners_map_to_corners(sizes, mode):
    placements = place(sizes, mode, 518, 14)
    (view,) = {p.view for p in placements}
    assert view[0] % 14 == view[1] % 14 == 0
    for size, p in zip(sizes, placements, strict=True):
        top, left, bottom, right = p.valid
        assert 0 <= top < bottom <= view[0] and 0 <= left < right <= view[1]
        corners = np.array([[left, top, 1], [right, bottom, 1]], dtype=float) - (0.5, 0.5, 0)
        mapped = corners @ p.source_from_view.T + (0.5, 0.5, 0)
        cropped = p.resized[0] > view[0]
        assert mapped[:, 0] == pytest.approx([0, size[1]], abs=1e-6)
        if cropped:
            assert 0 < mapped[0, 1] < mapped[1, 1] < size[0]
        else:
            assert mapped[:, 1] == pytest.approx([0, size[0]], abs=1e-6)


def blob(width: int, height: int, u: float, v: float, sigma: float) -> np.ndarray:
    """A white bump on black, centred on the pixel coordinates (u, v), integers at centres."""
    x, y = np.arange(width), np.arange(height)
    bump = np.exp(-((x - u) ** 2 + (y[:, None] - v) ** 2) / (2 * sigma**2))
    return np.round(255 * bump).astype(np.uint8)


def centroid(view: np.ndarray, valid: np.ndarray) -> np.ndarray:
    top, left, bottom, right = valid
    weight = view[top:bottom, left:right, 0].astype(float)
    rows, cols = np.mgrid[top:bottom, left:right]
    return np.array([(weight * cols).sum(), (weight * rows).sum()]) / weight.sum()


DOTS = [
    *((mode, shape, 1) for mode in ("keep", "crop", "pad") for shape in [(1200, 900), (500, 751)]),
    # (2605, 1949) is decoded at half its size, half a row and half a column too large.
    *(("keep", shape, turn) for shape in [(333, 251), (2605, 1949)] for turn in range(1, 9)),
]


@pytest.mark.parametrize(("mode", "shape", "orientation"), DOTS)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_dot_maps_back_to_where_it_was(tmp_path, mode, shape, orientation, suffix):
    width, height = shape
    u, v, sigma = 0.62 * width, 0.43 * height, width / 40
    upright = Image.fromarray(blob(width, height, u, v, sigma))
    save_turned(upright, tmp_path / f"a{suffix}", orientation)
    wide = Image.new("L", (640, 480))  # gives mode "keep" something to pad to
    for i in range(2):
        wide.save(tmp_path / f"b{i}.png")
    views = read_views(tmp_path, mode=mode)
    assert views.source_sizes[0].tolist() == [height, width]
    found = np.append(centroid(views.images[0], views.valid[0]), 1.0)
    mapped = views.source_from_view[0] @ found
    assert mapped[:2] == pytest.approx([u, v], abs=0.03 * width / 518 + 0.02)


def save_turned(upright: Image.Image, path, orientation: int) -> None:
    """Store pixels such that applying the EXIF orientation gives ``upright`` back."""
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[274] = inverse
    turned = upright.copy()
    turned.getexif()[274] = inverse
    turned = ImageOps.exif_transpose(turned)
    exif[274] = orientation
    turned.save(path, exif=exif, **({"quality": 97} if path.suffix == ".jpg" else {}))


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "stretch"}, {"size": 500}, {"size": 0}, {"size": 7}, {"patch": 0}, {"limit": 0}],
)
def test_arguments_that_make_no_sense(tmp_path, arguments):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    with pytest.raises(InputError) as caught:
        read_views(tmp_path, **arguments)
    assert not isinstance(caught.value, ImageError)


def test_a_size_off_the_patch_names_its_neighbours(tmp_path):
    with pytest.raises(InputError, match="try 490 or 504"):
        read_views(tmp_path, size=500)


def test_a_sliver_is_refused_in_crop_mode_and_read_in_keep(tmp_path):
    Image.new("RGB", (1, 20000)).save(tmp_path / "sliver.png")
    with pytest.raises(ImageError, match="sliver.png.*mode='keep'"):
        read_views(tmp_path, mode="crop")
    assert read_views(tmp_path).size == (518, 14)
