"""Running video: the same frames as from a file read whole, as they come, and in no more memory."""

from __future__ import annotations

import os
import threading
import warnings

import numpy as np
import pytest
from test_video import write_clip

from vggt_edge import live_video, video
from vggt_edge.errors import ImageError, InputError, MissingExtraError
from vggt_edge.images import read_views
from vggt_edge.live_video import watch_video
from vggt_edge.stream import join_views

av = pytest.importorskip("av")
FIELDS = ("images", "names", "sources", "source_sizes", "source_from_view", "valid")


@pytest.fixture
def decoded(monkeypatch):
    """How many frames have been decoded so far."""
    counter, original = [0], live_video._decoded

    def counting(*arguments):
        for frame in original(*arguments):
            counter[0] += 1
            yield frame

    monkeypatch.setattr(live_video, "_decoded", counting)
    return counter


RATES = ({}, {"fps": 5}, {"fps": 1000}, {"fps": 20}, {"fps": 15}, {"fps": 0.5}, {"fps": 4.3})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("a.mp4", arguments) for arguments in (*RATES, {"every": 20}, {"every": 1})),
        *((name, {}) for name in ("a.mkv", "a.ts", "a.avi")),
        *((name, {"every": 7}) for name in ("a.mkv", "a.ts", "a.avi")),
    ],
    ids=str,
)
def test_the_frames_are_those_of_the_file_read_whole(tmp_path, name, arguments):
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_clip(tmp_path / name, codec=codec)
    whole = read_views(path, size=56, **arguments)
    live = join_views(list(watch_video(path, quiet=0, size=56, **arguments)))
    for field in FIELDS:
        ours, theirs = getattr(live, field), getattr(whole, field)
        assert np.array_equal(ours, theirs), field


def test_nothing_is_read_ahead(tmp_path, decoded):
    path = write_clip(tmp_path / "clip.mp4", count=90)
    source = watch_video(path, quiet=0, size=56, every=10)
    assert decoded[0] == 0
    for number in range(9):
        assert next(source).names == (f"clip_{10 * number:06d}",)
        assert decoded[0] == 10 * number + 1
    assert next(source, None) is None


def test_a_pipe_gives_frames_before_its_writer_is_done(tmp_path):
    data = write_clip(tmp_path / "clip.ts", count=200, gop=5).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first_came = threading.Event()

    def write():
        with pipe.open("wb", buffering=0) as file:
            # The second half is written only once a frame of the first has arrived.
            file.write(data[: len(data) // 2])
            if first_came.wait(20):
                file.write(data[len(data) // 2 :])

    writer = threading.Thread(target=write)
    writer.start()
    views = []
    for view in watch_video(pipe, quiet=10, size=56, every=10):
        first_came.set()
        views.append(view)
    writer.join()
    live, whole = join_views(views), read_views(tmp_path / "clip.ts", size=56, every=10)
    assert np.array_equal(live.images, whole.images) and len(live) == 20
    # No end is known, so names tell this run's frames from those of another.
    assert all(name.startswith("pipe_2") and name[-7:-6] == "_" for name in live.names)


def test_of_a_camera_the_latest_frame_is_given(monkeypatch):
    """FFmpeg's own test source stands for a camera: it does not wait for its reader."""
    source = watch_video("lavfi:testsrc=size=64x48:rate=100:duration=3", quiet=5, size=56, fps=100)
    slow = threading.Event()
    taken = []
    with pytest.warns(UserWarning, match="frames came faster than they were used"):
        for view in source:
            taken.append(view.names[0])
            slow.wait(0.05)
    numbers = [int(name[-6:]) for name in taken]
    assert numbers == sorted(set(numbers)) and len(numbers) < 300 and numbers[-1] == 299
    assert taken[0].startswith("lavfi_")


def test_silence_ends_a_pipe(tmp_path):
    data = write_clip(tmp_path / "clip.ts", count=60, gop=5).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = threading.Event()

    def write():
        with pipe.open("wb", buffering=0) as file:
            file.write(data)
            done.wait(20)  # open, and silent

    writer = threading.Thread(target=write)
    writer.start()
    views = list(watch_video(pipe, quiet=0.5, size=56, every=10))
    done.set()
    writer.join()
    assert len(views) >= 5


@pytest.mark.parametrize("name", ["clip.ts", "lavfi:testsrc=size=64x48:rate=20"])
def test_it_can_be_stopped(tmp_path, name):
    write_clip(tmp_path / "clip.ts")
    stop = threading.Event()
    path = name if ":" in name else tmp_path / name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*came faster")  # FFmpeg's source does not wait
        source = watch_video(path, quiet=5, size=56, fps=5, stop=stop)
        next(source)
        stop.set()
        assert list(source) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/clip.mp4", "does not exist"),
        ("rtsp://user:secret@127.0.0.1:9/stream", "rtsp://127.0.0.1:9/stream: cannot be read"),
        ("http://127.0.0.1:9/clip.mp4", "Connection refused"),
        ("nosuch://127.0.0.1/clip", "Protocol not found"),
        ("v4l2:/dev/video_none", "No such file"),
        ("/dev/null", "cannot be read as a video"),
        ("{}/notes.txt", "is no video"),
        ("{}", "is no video"),
    ],
)
def test_what_cannot_be_opened_is_one_line(tmp_path, source, words):
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(ImageError, match=words) as caught:
        list(watch_video(source.format(tmp_path), quiet=1, size=56))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_bad_arguments(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", count=3)
    for arguments in ({"fps": 1, "every": 2}, {"fps": 0}, {"every": 0}, {"size": 55}):
        with pytest.raises(InputError):
            next(watch_video(path, **{"quiet": 1, "size": 56, **arguments}))


def test_without_pyav(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", count=3)
    monkeypatch.setattr(live_video, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vggt-edge\[video\]"):
        next(watch_video(path, quiet=1))


def test_a_turned_video_is_upright(tmp_path):
    from test_video import turn

    path = turn(write_clip(tmp_path / "clip.mp4", count=4), (0, 1, -1, 0))
    ours, whole = next(watch_video(path, quiet=0, size=56)), read_views(path, size=56)
    assert np.array_equal(ours.images, whole.images[:1])
    assert video.probe(str(path)).turns
