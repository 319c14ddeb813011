"""``reconstruct --watch`` on a video, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from test_cli_streaming import reconstruct, weights  # noqa: F401
from test_video import write_clip

from vggt_edge.images import load_sources
from vggt_edge.outputs.frames import MANIFEST, read_stream

pytest.importorskip("av")
OPTIONS = ("--size", 56, "--anchors", 2, "--dtype", "float32")


@pytest.fixture
def start(weights, tmp_path):  # noqa: F811
    """Start the command on a source; it is ended with the test."""
    begun = []

    def run(source, *arguments) -> subprocess.Popen:
        command = [sys.executable, "-m", "vggt_edge", "reconstruct", source, "-m", weights]
        command += ["-o", tmp_path / "out", *OPTIONS, *arguments]
        begun.append(subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def lines(path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def until(happened, process) -> None:
    end = time.monotonic() + 100
    while not happened():
        assert process.poll() is None and time.monotonic() < end, process.communicate(timeout=5)
        time.sleep(0.02)


def test_results_come_while_the_video_goes_on(start, reconstruct, tmp_path):  # noqa: F811
    """Half a video through a pipe gives results; at its end they are those of its pictures."""
    clip = write_clip(tmp_path / "clip.ts", count=100, gop=5)
    data, pipe, out = clip.read_bytes(), tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)
    process = start(pipe, "--watch", 60, "--every", 10)
    with pipe.open("wb", buffering=0) as file:
        file.write(data[: 2 * len(data) // 3])
        until(lambda: lines(out / MANIFEST) >= 5, process)
        assert lines(out / MANIFEST) < 11
        file.write(data[2 * len(data) // 3 :])
    assert process.wait(60) == 0
    streamed = read_stream(out)
    assert len(streamed.views) == 10

    folder = tmp_path / "pictures"
    folder.mkdir()
    frames = load_sources([f"{clip}@{i / 1.5:.2f}s" for i in range(10)])
    for i, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    os.rename(out, tmp_path / "of_video")
    reconstruct(folder, "--watch", 2, *OPTIONS[2:])
    stills = read_stream(out)
    assert np.array_equal(stills.views.images, streamed.views.images)
    assert np.allclose(stills.depth, streamed.depth, rtol=1e-5)
    ours, theirs = streamed.cameras.camera_from_world, stills.cameras.camera_from_world
    assert np.allclose(ours, theirs, atol=1e-5)


def test_a_file_goes_on_where_it_was_stopped(reconstruct, tmp_path):  # noqa: F811
    clip = write_clip(tmp_path / "clip.mp4")
    data = reconstruct(clip, "--watch", 0, "--every", 9, *OPTIONS[2:])
    assert (data["views"], data["new"]) == (5, 5)
    data = reconstruct(clip, "--watch", 0, "--every", 3, *OPTIONS[2:], "-f", "ply")
    assert (data["views"], data["new"]) == (15, 10) and data["points"] > 0


def test_ctrl_c_ends_a_camera_and_the_scene_is_written(start, tmp_path):
    """FFmpeg's own source of test pictures stands for a camera."""
    out = tmp_path / "out"
    camera = "lavfi:testsrc=size=64x48:rate=10,realtime"
    process = start(camera, "--watch", 20, "--fps", 5, "-f", "ply")
    until(lambda: lines(out / MANIFEST) >= 6, process)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 0, told
    assert "ending with the frame at hand" in told and "Traceback" not in told
    assert (out / "scene.ply").exists() and len(read_stream(out).views) >= 5


def test_what_cannot_be_watched_is_one_line(start, tmp_path):
    for source in ("rtsp://127.0.0.1:9/stream", tmp_path / "gone.mp4"):
        process = start(source, "--watch", 1)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 1 and told.startswith("error: ") and told.count("\n") == 1
