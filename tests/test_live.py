from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image

from vggt_edge import live
from vggt_edge.errors import ImageError, InputError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)


def picture(path, size=(64, 48), value=100) -> None:
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def test_pictures_come_as_they_are_made(tmp_path):
    picture(tmp_path / "a_2.png")
    picture(tmp_path / "a_10.png")
    (tmp_path / "notes.txt").write_text("no picture")

    def later():
        time.sleep(0.4)
        picture(tmp_path / "b.jpg", value=200)

    source = live.watch(tmp_path, quiet=1.5, size=56)
    first = [next(source), next(source)]
    thread = threading.Thread(target=later)
    thread.start()
    rest = list(source)
    thread.join()
    assert [view.names for view in (*first, *rest)] == [("a_2",), ("a_10",), ("b",)]
    assert {view.size for view in (*first, *rest)} == {(42, 56)}
    assert rest[0].images.mean() > 190


def test_equal_stems_get_names_of_their_own(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    names = [view.names[0] for view in live.watch(tmp_path, quiet=0.3, size=56)]
    assert len(set(names)) == 2 and "a" in names


def test_what_does_not_fit_is_left_out_by_name(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "tall.png", size=(48, 64))
    (tmp_path / "torn.png").write_bytes(b"not a picture")
    with pytest.warns(UserWarning) as caught:
        found = list(live.watch(tmp_path, quiet=0.3, size=56))
    assert [view.names for view in found] == [("a",)]
    messages = " ".join(str(one.message) for one in caught)
    assert "tall.png gives views of 42x56" in messages and "torn.png" in messages


def test_a_picture_still_being_written_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.5)
    picture(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "whole.png").unlink()
    path = tmp_path / "slow.png"

    def slowly():
        with path.open("wb", buffering=0) as file:
            for i in range(0, len(data), max(1, len(data) // 8)):
                file.write(data[i : i + max(1, len(data) // 8)])
                time.sleep(0.02)

    thread = threading.Thread(target=slowly)
    thread.start()
    found = list(live.watch(tmp_path, quiet=1.2, size=56))
    thread.join()
    assert [view.names for view in found] == [("slow",)]


def test_no_folder(tmp_path):
    with pytest.raises(ImageError, match="no folder to watch"):
        next(live.watch(tmp_path / "gone", quiet=1))


@pytest.mark.parametrize("quiet", [0, 0.5, -1, float("nan")])
def test_too_short_a_quiet_to_see_anything_is_refused(tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.5)
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="at least 1 seconds"):
        next(live.watch(tmp_path, quiet=quiet, size=56))


def test_the_shortest_quiet_reads_a_full_folder_on_a_busy_machine(tmp_path, monkeypatch):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    sleep = time.sleep
    monkeypatch.setattr(live.time, "sleep", lambda seconds: sleep(4 * seconds))
    found = live.watch(tmp_path, quiet=2 * live.POLL_SECONDS, size=56)
    assert [view.names for view in found] == [("0",), ("1",), ("2",)]


def test_an_empty_file_keeps_nobody_waiting(tmp_path):
    (tmp_path / "a.png").touch()
    assert list(live.watch(tmp_path, quiet=0.3, size=56)) == []
