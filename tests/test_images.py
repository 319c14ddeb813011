"""The way in: formats, inputs, bad input, URLs and the way back to the source pictures."""

from __future__ import annotations

import http.server
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from vggt_edge import pictures, sources
from vggt_edge.errors import ImageError, InputError, MissingExtraError, TooLargeError
from vggt_edge.images import load_source, load_sources, read_views

SHARED = Path(__file__).parents[2] / "shared" / "data"


def gradient(width: int = 80, height: int = 60) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], axis=-1).round().astype(np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient() if pixels is None else pixels).save(path, **options)
    return path


def refused(inputs, *needed: str, **options) -> str:
    """The one line that reading ``inputs`` fails with, which must hold the ``needed`` words."""
    with pytest.raises(ImageError) as caught:
        read_views(inputs, **options)
    message = str(caught.value)
    assert "\n" not in message and ";" in message  # the culprit; the way out
    for word in needed:
        assert word in message
    return message


# Formats


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".bmp", {}, 0),
        (".tif", {"compression": "tiff_lzw"}, 0),
        (".webp", {"lossless": True}, 0),
        (".ppm", {}, 0),
        (".jpg", {"quality": 95}, 12),
        (".jpeg", {"quality": 95, "progressive": True}, 12),
        (".webp", {"quality": 95}, 14),
        (".JPG", {"quality": 95}, 12),
    ],
)
def test_formats(tmp_path, suffix, options, tolerance):
    path = save(tmp_path / f"a{suffix}", **options)
    views = read_views(tmp_path, size=70)
    assert views.names == ("a",) and views.sources == (str(path),)
    np.testing.assert_allclose(load_source(str(path)), gradient().astype(int), atol=tolerance)


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(gradient())
    heif.from_pillow(image).save(tmp_path / "a.heic", quality=95)
    views = read_views(tmp_path)
    assert views.source_sizes.tolist() == [[60, 80]]
    error = load_source(views.sources[0]).astype(int) - gradient()
    assert np.abs(error).mean() < 3


def test_heic_without_pillow_heif_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(MissingExtraError, match=r"a\.heic.*pip install 'vggt-edge\[heif\]'"):
        read_views(tmp_path)


def test_a_16_bit_png_is_scaled_by_65535(tmp_path):
    ramp = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    expected = np.round(ramp / 65535 * 255)
    for channel in np.moveaxis(load_source(str(tmp_path / "a.png")), -1, 0):
        np.testing.assert_array_equal(channel, expected)
    assert read_views(tmp_path, size=70).images.max() > 250


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_16_bit_tiff_of_either_byte_order(tmp_path, order):
    ramp = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    path = tmp_path / "a.tif"
    path.write_bytes(grey_tiff(ramp, order))
    np.testing.assert_array_equal(load_source(str(path))[..., 0], np.round(ramp / 65535 * 255))


def grey_tiff(pixels: np.ndarray, order: str) -> bytes:
    """A minimal 16-bit grey TIFF 6.0, in the given byte order; Pillow writes only one."""
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, height), (279, 2 * width * height)]
    data = pixels.astype(f"{order}u2").tobytes()
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    ifd = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return head + data + struct.pack(f"{order}H", len(tags)) + ifd + bytes(4)


def test_16_bit_rgb_png(tmp_path):
    # Pillow cannot write one, so: a hand-made PNG with one red ramp of 16 bits.
    ramp = np.zeros((4, 256, 3), ">u2")
    ramp[..., 0] = np.arange(256) * 257
    rows = b"".join(b"\x00" + row.tobytes() for row in ramp)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 256, 4, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        crc = zlib.crc32(kind + data)
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    (tmp_path / "a.png").write_bytes(png)
    picture = load_source(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(picture[0, :, 0], np.arange(256))
    assert not picture[..., 1:].any()


def test_a_float_tiff_is_scaled_from_0_to_1_and_refused_otherwise(tmp_path):
    ramp = np.linspace(0, 1, 60 * 80, dtype=np.float32).reshape(60, 80)
    path = save(tmp_path / "a.tif", ramp)
    np.testing.assert_array_equal(load_source(str(path))[..., 0], np.round(ramp * 255))
    refused(save(tmp_path / "b.tif", ramp * 3), "b.tif", "0 to 3", "8 or 16 bits")
    ramp[3, 3] = np.nan
    refused(save(tmp_path / "c.tif", ramp), "c.tif", "nan")


def test_32_bit_integers_are_refused(tmp_path):
    refused(save(tmp_path / "a.tif", np.full((60, 80), 70000, np.int32)), "a.tif", "32-bit")


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.dstack([gradient(), np.full((60, 80), 255, np.uint8)])
    rgba[:30, :, 3] = 0
    rgba[30:40, :, 3] = 128
    save(tmp_path / "rgba.png", rgba)
    expected = rgba[..., :3] * (rgba[..., 3:] / 255) + 255 * (1 - rgba[..., 3:] / 255)
    np.testing.assert_allclose(load_source(str(tmp_path / "rgba.png")), expected, atol=1)

    save(tmp_path / "la.png", rgba[..., [0, 3]])
    np.testing.assert_allclose(
        load_source(str(tmp_path / "la.png"))[..., 2], expected[..., 0], atol=1
    )

    palette = Image.fromarray(np.repeat([[0, 1]], 10, axis=0).astype(np.uint8), "P")
    palette.putpalette([200, 10, 20, 30, 40, 50])
    palette.save(tmp_path / "p.png", transparency=1)
    assert load_source(str(tmp_path / "p.png"))[0].tolist() == [[200, 10, 20], [255, 255, 255]]


def test_grey_palette_bilevel_cmyk(tmp_path):
    image = Image.fromarray(gradient())
    image.convert("L").save(tmp_path / "l.png")
    image.convert("1").save(tmp_path / "one.png")
    image.quantize(64).save(tmp_path / "p.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    views = read_views(tmp_path, size=70)
    assert views.names == ("cmyk", "l", "one", "p")
    cmyk = load_source(str(tmp_path / "cmyk.jpg")).astype(int)
    assert np.abs(cmyk - gradient()).max() < 16
    grey = load_source(str(tmp_path / "l.png"))
    np.testing.assert_array_equal(grey[..., 0], np.asarray(image.convert("L")))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    for name in ("a.gif", "b.webp", "c.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    for name in ("a.gif", "b.webp", "c.png"):
        assert load_source(str(tmp_path / name))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6  # stored turned left: upright is a quarter turn clockwise
    path = save(tmp_path / f"a{suffix}", exif=exif)
    views = read_views(path, size=70)
    assert views.source_sizes.tolist() == [[80, 60]] and views.size == (70, 56)
    upright = np.rot90(gradient(), -1).astype(int)
    assert np.abs(load_source(str(path)) - upright).mean() < 4
    assert np.abs(views.images[0, 0].astype(int) - [0, 255, 255]).max() > 100
    assert views.images[0, 0, -1, 1] < 30 < 200 < views.images[0, 0, 0, 1]


# Inputs


def test_a_folder_is_sorted_naturally_and_hidden_files_are_left_out(tmp_path):
    for name in ("f10.png", "f9.png", "F1.png", ".hidden.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert read_views(tmp_path, size=28).names == ("F1", "f9", "f10")


def test_an_images_folder_inside_is_used(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "depth" / "d.png")
    assert read_views(str(tmp_path), size=28).names == ("a",)
    save(tmp_path / "top.png")
    assert read_views(str(tmp_path), size=28).names == ("top",)


def test_globs_files_and_mixtures_keep_their_order(tmp_path, monkeypatch):
    for name in ("x/2.png", "x/10.png", "y/2.png", "z.png"):
        save(tmp_path / name)
    (tmp_path / "x" / "notes.txt").write_text("left out by the glob")
    monkeypatch.chdir(tmp_path)
    views = read_views(["z.png", "x/*", Path("y")], size=28)
    assert views.names == ("z", "2", "10", "2_2")
    assert views.sources[1] == str(tmp_path / "x" / "2.png")
    assert len(read_views("**/*.png", size=28)) == 4
    assert read_views("?", size=28).names == ("2", "10", "2_2")  # folders x and y


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    save(tmp_path / "a[1].png")
    assert read_views(tmp_path / "a[1].png", size=28).names == ("a[1]",)


def test_names_are_unique_whatever_the_case(tmp_path):
    files = [save(tmp_path / name) for name in ("a.png", "A.jpg", "a_2.png", "b/a.bmp")]
    names = read_views(files, size=28).names
    assert names == ("a", "A_3", "a_2", "a_4")


def test_one_image_and_a_limit(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png")
    assert read_views(tmp_path, size=28, limit=4).names == ("0", "3", "6", "9")
    assert read_views(tmp_path, size=28, limit=1).names == ("0",)
    assert len(read_views(tmp_path, size=28, limit=99)) == 10


def test_a_png_named_jpg_is_read(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(load_source(str(tmp_path / "a.jpg")), gradient())


def test_load_sources_goes_through_all(tmp_path):
    files = [str(save(tmp_path / f"{i}.png", gradient() // (i + 1))) for i in range(3)]
    loaded = list(load_sources([files[1], files[1], files[0], files[2]]))
    for picture, divisor in zip(loaded, (2, 2, 1, 3), strict=True):
        np.testing.assert_array_equal(picture, gradient() // divisor)
    loaded[0][:] = 0  # its own memory
    assert loaded[1].any()


# Bad input


def test_no_images(tmp_path):
    refused(tmp_path, str(tmp_path), "holds no images")
    (tmp_path / "notes.txt").write_text("words")
    refused(tmp_path, "holds no images", "1 other files")
    save(tmp_path / "deep" / "a.png")
    refused(tmp_path, "sub-folders", "deep")
    refused(tmp_path / "*.jpg", "matches no image")
    refused(tmp_path / "gone.jpg", "gone.jpg", "does not exist")
    refused([], "empty")
    with pytest.raises(InputError, match="float"):
        read_views([3.5])


def test_zero_bytes(tmp_path):
    (tmp_path / "a.jpg").touch()
    refused(tmp_path, "a.jpg", "empty (0 bytes)")


def test_a_text_file_named_jpg(tmp_path):
    save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("This is not a picture.\n" * 9)
    refused(tmp_path, "b.jpg", "is not an image (it is text)")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", ".gif"])
def test_truncated(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"a{suffix}", rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(tmp_path, path.name)


def test_more_than_100_megapixels_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for name, (width, height) in {"a.png": (10001, 10000), "b.png": (40000, 30000)}.items():
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        crc = struct.pack(">I", zlib.crc32(header))
        path = tmp_path / name
        data = b"\x00\x00\x00\x10IDAT" + bytes(20)
        path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + header + crc + data)
    # Pillow itself stops at the second one and does not say its size.
    refused(tmp_path / "a.png", "a.png", "10001x10000", "100 megapixels", "smaller")
    refused(tmp_path / "b.png", "b.png", "1200 megapixels", "smaller")


def test_pictures_of_90_megapixels_are_read_without_a_warning(tmp_path):
    Image.new("1", (9500, 9500)).save(tmp_path / "a.png")
    assert read_views(tmp_path, size=28).source_sizes.tolist() == [[9500, 9500]]


def test_damaged_exif_beside_a_whole_picture(tmp_path):
    save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert read_views(tmp_path, size=28).source_sizes.tolist() == [[60, 80]]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind here")
def test_an_unreadable_file(tmp_path):
    save(tmp_path / "a.png").chmod(0)
    refused(tmp_path, "a.png", "Permission denied")


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    refused(tmp_path, "a.jpg", "regular file")


def test_control_characters_in_a_name_stay_on_one_line(tmp_path):
    (tmp_path / "a\nb.jpg").write_text("text")
    refused(tmp_path, "a b.jpg")
    save(tmp_path / "c\nd.png")
    assert read_views(tmp_path / "c\nd.png", size=28).names == ("c_d",)


def test_views_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1000))
    with pytest.raises(TooLargeError, match="1 views of 518x392 need"):
        read_views(tmp_path)


def test_reading_holds_no_full_size_pictures(tmp_path, monkeypatch):
    """The pictures alive at once stay within the limit of one largest picture."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 400 * 300 * 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for i in range(12):
        save(tmp_path / f"{i}.png", gradient(400, 300))
    alive, most, lock = 0, 0, threading.Lock()
    original = pictures._to_rgb

    def counting(image, source):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        picture = original(image, source)
        with lock:
            alive -= 1
        return picture

    monkeypatch.setattr(pictures, "_to_rgb", counting)
    assert len(read_views(tmp_path, size=28)) == 12
    assert 1 <= most <= 2


def jpeg(tmp: Path, **options) -> bytes:
    return save(tmp / "seed.jpg", gradient(64, 48), **options).read_bytes()


def mutate(data: bytes, edits: list[tuple[int, int]], keep: float) -> bytes:
    changed = bytearray(data)
    for position, value in edits:
        changed[position % len(changed)] = value
    return bytes(changed[: max(1, int(len(changed) * keep))])


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12)
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(path: Path) -> None:
    try:
        views = read_views(path, size=28)
        assert len(views) == 1 and load_source(views.sources[0]).ndim == 3
    except ImageError as error:
        assert path.name in str(error) and "\n" not in str(error)


@FUZZ
@given(
    head=st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff\xe0",
            b"\x89PNG\r\n\x1a\n",
            b"II*\x00\x08\x00\x00\x00",
            b"BM",
            b"GIF89a",
        ]
        + [
            b"MM\x00*",
            b"RIFF\x40\x00\x00\x00WEBPVP8 ",
            b"P6\n3 3\n255\n",
            b"\x00\x00\x00\x18ftypheic",
        ]
    ),
    body=st.binary(max_size=300),
)
def test_random_bytes_never_raise_anything_but_image_errors(tmp_path, head, body):
    (tmp_path / "a.jpg").write_bytes(head + body)
    read_or_refuse(tmp_path / "a.jpg")


@FUZZ
@given(
    suffix=st.sampled_from([".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", ".ppm"]),
    edits=EDITS,
    keep=st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.1]),
)
def test_mutated_pictures_never_raise_anything_but_image_errors(tmp_path, suffix, edits, keep):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / f"a{suffix}", gradient(40, 30), exif=exif)
    path.write_bytes(mutate(path.read_bytes(), edits, keep))
    read_or_refuse(path)


# URLs


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves ``tmp_path/www`` and a few misbehaviours on this machine."""
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.split("?")[0].strip("/")
            if name == "redirect":
                self.send_response(302)
                self.send_header("Location", "/a.png")
                self.end_headers()
            elif name == "slow":
                stop.wait(5)
            elif name == "short.png":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(bytes(1000))
            elif (root / name).is_file():
                self.send_response(200)
                self.end_headers()
                self.wfile.write((root / name).read_bytes())
            else:
                self.send_error(404)

        def log_message(self, *arguments):
            pass

    stop = threading.Event()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}"
    stop.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls_are_read_and_nothing_stays_behind(server, tmp_path, monkeypatch):
    root, url = server
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    save(root / "a.png")
    save(tmp_path / "local.png")
    views = read_views([f"{url}/a.png?size=large", tmp_path / "local.png", f"{url}/redirect"])
    assert views.names == ("a", "local", "redirect")
    assert views.sources[0] == f"{url}/a.png?size=large"
    np.testing.assert_array_equal(views.images[0], views.images[1])
    np.testing.assert_array_equal(load_source(views.sources[0]), gradient())
    assert list(temporary.iterdir()) == []


def test_urls_that_cannot_be_used(server, monkeypatch):
    root, url = server
    (root / "page.jpg").write_text("<!doctype html><title>Gallery</title>")
    (root / "words.jpg").write_text("words")
    (root / "nothing.jpg").touch()
    refused(f"{url}/page.jpg", f"{url}/page.jpg", "web page")
    refused(f"{url}/words.jpg", f"{url}/words.jpg", "is not an image")
    refused(f"{url}/nothing.jpg", f"{url}/nothing.jpg", "empty")
    refused(f"{url}/gone.jpg", f"{url}/gone.jpg", "404")
    refused(f"{url}/short.png", "1000 of 100000 bytes")
    refused("http://127.0.0.1:1/a.jpg", "http://127.0.0.1:1/a.jpg", "refused")
    refused("http://[broken/a.jpg", "cannot be fetched")
    refused("http://", "cannot be fetched")
    save(root / "big.png")
    monkeypatch.setattr(sources, "DOWNLOAD_LIMIT", 100)
    refused(f"{url}/big.png", "larger than")
    monkeypatch.setattr(sources, "DOWNLOAD_TIMEOUT", 0.2)
    refused(f"{url}/slow", "timed out")


# The sample data, where it is


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample data is not on this machine")
@pytest.mark.parametrize(
    ("scene", "count", "size"),
    [
        ("posed/pose_instantngp_fox", 50, (518, 294)),
        ("posed/synth_nerf_lego", 50, (448, 448)),
        ("posed/pose_kitti_1", 51, (154, 518)),
        ("unposed/unposed_vggt_kitchen", 25, (350, 518)),
        ("unposed/unposed_nle_tower", 7, (518, 392)),
    ],
)
def test_sample_scenes(scene, count, size):
    views = read_views(SHARED / scene)
    assert len(views) == len(set(views.names)) == count
    assert views.size == size
    assert load_source(views.sources[0]).shape[:2] == tuple(views.source_sizes[0])
