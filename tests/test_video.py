"""Video in: which frames are taken, that they are the right ones, and upright."""

from __future__ import annotations

import struct
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vggt_edge import video
from vggt_edge.errors import ImageError, InputError, MissingExtraError
from vggt_edge.images import load_source, load_sources, read_views

av = pytest.importorskip("av")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "video"


def level(index: int) -> int:
    """The brightness that frame ``index`` is recognised by."""
    return 30 + 37 * index % 200


def write_clip(
    path: Path,
    count: int = 45,
    rate: int = 15,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    gop: int = 12,
    stamps: list[int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Frames of one grey each, their left third red."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i in range(count):
            pixels = np.full((height, width, 3), level(i), np.uint8)
            pixels[:, : width // 3] = (200, 20, 20)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i if stamps is None else stamps[i]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write the display matrix (a, b, c, d) into an MP4's track header (ISO 14496-12, tkhd)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def brightness(pixels: np.ndarray) -> float:
    height, width = pixels.shape[:2]
    return float(pixels[height // 4 : -height // 4, width // 2 : -width // 8].mean())


def refused(path: Path, *needed: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_views(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, ";", *needed):
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0, 7, 15, 22, 30, 37]),
        ({"fps": 5}, list(range(0, 45, 3))),
        ({"fps": 1000}, list(range(45))),
        ({"fps": 0.5}, [0, 30]),
        ({"every": 20}, [0, 20, 40]),
        ({"limit": 2}, [0, 37]),
        ({"every": 1, "limit": 3}, [0, 22, 44]),
    ],
)
def test_frames_by_rate_number_and_limit(tmp_path, arguments, expected):
    path = write_clip(tmp_path / "clip.mp4")
    views = read_views(path, size=98, **arguments)
    assert views.names == tuple(f"clip_{i:06d}" for i in expected)
    assert views.sources == tuple(f"{path}@{i / 15:.2f}s" for i in expected)
    assert views.source_sizes.tolist() == [[64, 96]] * len(expected)
    for image, i in zip(views.images, expected, strict=True):
        assert brightness(image) == pytest.approx(level(i), abs=4)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx265"),
        ("a.webm", "libvpx"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
        ("a.mpg", "mpeg2video"),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec):
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no {codec}")
    rate = 25  # MPEG-2 allows no other of ours
    path = write_clip(tmp_path / name, count=40, rate=rate, codec=codec)
    views = read_views(path, size=98, every=13)
    assert len(views) == 4
    for image, i in zip(views.images, (0, 13, 26, 39), strict=True):
        assert brightness(image) == pytest.approx(level(i), abs=6)
    for source, i in list(zip(views.sources, (0, 13, 26, 39), strict=True))[::-1]:
        assert brightness(load_source(source)) == pytest.approx(level(i), abs=6)


def test_a_long_video_gives_at_most_120_frames_unless_asked(tmp_path):
    path = write_clip(tmp_path / "a.mp4", count=260, rate=2, size=(32, 32))
    views = read_views(path, size=28)
    assert len(views) == 120 and views.names[-1] == "a_000259"
    assert len(read_views(path, size=28, fps=2)) == 260


def test_uneven_stamps_are_taken_by_time(tmp_path):
    stamps = [0, 1, 2, 3, 30, 31, 32, 60]  # in fifteenths of a second
    path = write_clip(tmp_path / "a.mkv", count=8, stamps=stamps)
    views = read_views(path, size=98, fps=0.5)
    assert views.names == ("a_000000", "a_000004", "a_000007")
    assert [source[-6:] for source in views.sources] == ["@0.00s", "@2.00s", "@4.00s"]


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((1, 0, 0, 1), 0), ((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
)
def test_rotation_is_applied(tmp_path, matrix, turns):
    path = turn(write_clip(tmp_path / "a.mp4", count=3), matrix)
    stored = load_source(f"{write_clip(tmp_path / 'plain.mp4', count=3)}@0.00s")
    views = read_views(path, size=98)
    upright = np.rot90(stored, turns)
    assert tuple(views.source_sizes[0]) == upright.shape[:2]
    np.testing.assert_array_equal(load_source(views.sources[0]), upright)
    assert views.size == ((70, 98) if turns % 2 == 0 else (98, 70))


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = write_clip(tmp_path / "a.mp4", count=3, aspect=Fraction(4, 3))
    assert read_views(path, size=98).source_sizes[0].tolist() == [64, 128]


def test_sources_lead_back_to_the_same_frames(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    views = read_views([path, path], every=7, mode="pad", size=98)
    assert len(set(views.names)) == len(views) == 14
    for image, picture in zip(views.images, load_sources(views.sources), strict=True):
        assert picture.shape == (64, 96, 3)
        assert brightness(picture) == pytest.approx(brightness(image[21:77]), abs=1)


def test_frames_of_a_fast_camera_have_sources_of_their_own(tmp_path):
    path = write_clip(tmp_path / "a.mp4", count=30, rate=240)
    views = read_views(path, size=98, every=1)
    assert len(set(views.sources)) == 30
    assert brightness(load_source(views.sources[17])) == pytest.approx(level(17), abs=4)


def test_a_video_and_pictures_together(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    Image.new("RGB", (96, 64), "blue").save(tmp_path / "still.png")
    views = read_views([tmp_path / "still.png", path, tmp_path / "still.png"], every=30, size=98)
    assert views.names == ("still", "clip_000000", "clip_000030", "still_2")
    assert views.images[0, 0, 0].tolist() == views.images[3, 0, 0].tolist() == [0, 0, 255]


def test_a_folder_of_videos_is_used_when_it_has_no_images(tmp_path):
    write_clip(tmp_path / "a.mp4", count=3)
    assert read_views(tmp_path, size=98).names == ("a_000000",)
    Image.new("RGB", (96, 64)).save(tmp_path / "b.png")
    assert read_views(tmp_path, size=98).names == ("b",)


def test_arguments_that_make_no_sense(tmp_path):
    path = write_clip(tmp_path / "a.mp4", count=3)
    for arguments in ({"fps": 2, "every": 3}, {"fps": 0}, {"fps": float("nan")}, {"every": 0}):
        with pytest.raises(InputError):
            read_views(path, **arguments)


def test_bad_videos(tmp_path, capfd):
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "empty (0 bytes)")
    (tmp_path / "text.mp4").write_text("words " * 100)
    refused(tmp_path / "text.mp4", "not a video")
    whole = write_clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[:1000])
    refused(tmp_path / "head.mp4", "cannot be read as a video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])
    refused(tmp_path / "sound.mp4", "no video in it")
    with av.open(str(tmp_path / "none.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    refused(tmp_path / "none.mkv", "without frames")
    assert "".join(capfd.readouterr()) == ""


def test_damaged_frames_are_left_out_with_a_warning(tmp_path):
    path = write_clip(tmp_path / "a.mkv", gop=5)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 < len(read_views(path, every=1, size=98)) < 45  # cut, as by a full card

    path = write_clip(tmp_path / "b.mp4", gop=5)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, length in packets[20:30]:
        data[position : position + length] = b"\xff" * length
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"b\.mp4: \d+ of 45 frames are damaged"):
        views = read_views(path, every=1, size=98)
    assert 30 <= len(views) < 45


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", count=3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"a\.mp4.*pip install 'vggt-edge\[video\]'"):
        read_views(path)


@pytest.fixture(scope="module")
def seed_clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("seed") / "seed.mp4", count=6).read_bytes()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=10),
    keep=st.sampled_from([1.0, 0.9, 0.4]),
)
def test_mutated_videos_never_raise_anything_but_image_errors(tmp_path, seed_clip, edits, keep):
    data = bytearray(seed_clip)
    for position, value in edits:
        data[position % len(data)] = value
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: int(len(data) * keep)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            assert len(read_views(path, size=28)) >= 1
        except ImageError as error:
            assert "a.mp4" in str(error) and "\n" not in str(error)


def test_decoding_skips_to_the_keyframes_it_needs(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", count=200, gop=10)
    clip = video.probe(str(path))
    assert len(clip.keys) >= 20
    decoded = 0
    original = video._decoded

    def counting(container, stream):
        nonlocal decoded
        for frame in original(container, stream):
            decoded += 1
            yield frame

    monkeypatch.setattr(video, "_decoded", counting)
    assert [index for index, _ in video.frames(clip, [150, 3, 152])] == [3, 150, 152]
    assert decoded < 40


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample data is not on this machine")
@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("fern", 20, (392, 518)), ("pyramid", 59, (490, 392)), ("room", 8, (392, 518))],
)
def test_sample_clips(name, count, size):
    views = read_views(SHARED / f"{name}.mp4")
    assert len(views) == count and views.size == size
