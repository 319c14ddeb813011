"""``vggt-edge evaluate`` as a user starts it, and the page it writes in a headless Chromium."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from miniature_worlds import write_world
from PIL import Image

from vggt_edge.cli import main
from vggt_edge.evaluate import charts, worst
from vggt_edge.types import Prediction, Views

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
HOSTILE = "<b onmouseover=x()> & room"


class Finished(NamedTuple):
    out: Path
    lines: list[str]
    data: dict


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    """The embedded model on three worlds, through a process of its own."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, kind in ((HOSTILE, "room"), ("facade", "facade"), ("table", "table")):
        write_world(folder / "data" / name, kind)
    command = [sys.executable, "-m", "vggt_edge", "evaluate", "pocket", "--dataset", "cameras"]
    command += ["--root", str(folder / "data"), "--size", "56", "-o", str(folder / "out")]
    done = subprocess.run(
        [*command, "--dtype", "float32", "--report", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    return Finished(folder / "out", lines, json.loads(last))


def test_the_model_stands_beside_both_baselines(finished):
    data = finished.data
    assert [(one["name"], one["baseline"]) for one in data["methods"]] == [
        ("pocket", False),
        ("constant", True),
        ("colmap", True),
    ]
    assert data["recordings"] == {HOSTILE: 3, "facade": 3, "table": 3}
    pocket, constant, colmap = (one["summary"] for one in data["methods"])
    for metric in ("auc30", "strict_auc30", "ate_relative", "abs_rel", "acc_mean", "fscore_0.05"):
        one = pocket[metric]
        assert one["low"] <= one["mean"] <= one["high"] and one["sequences"] == 3
    assert constant["auc30"]["mean"] == 0
    assert "abs_rel" not in colmap and colmap["found"]["mean"] == 0, "no features at 56 pixels"
    assert colmap["auc30"]["mean"] == 0
    written = json.loads((finished.out / "cameras.json").read_text())
    assert {**written, "outputs": data["outputs"]} == data


def test_the_table_says_what_it_shows(finished):
    text = "\n".join(finished.lines)
    assert "split all, protocol vggt-edge: 3 recordings of 3 views" in text
    header = next(
        line for line in finished.lines if line.split() == ["pocket", "constant", "colmap"]
    )
    row = next(line for line in finished.lines if line.startswith("AbsRel ↓"))
    assert row.index("0.") == header.index("pocket")
    assert re.search(r"AbsRel ↓ +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] +0\.\d{3} \[.*\] +-$", row)
    assert "95% bootstrap interval over recordings" in text
    assert finished.lines[-1].strip() == str(finished.out / "cameras.html")


def test_the_page_needs_nothing_else_and_escapes_names(finished):
    page = (finished.out / "cameras.html").read_text()
    assert HOSTILE not in page and "&lt;b onmouseover=x()&gt; &amp; room" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "default-src 'none'" in page and "<script" not in page
    assert page.count("<svg") > 10 and page.count("data:image/png") >= 9


def test_the_page_opens_and_is_not_blank(finished, tmp_path):
    if not (shutil.which(CHROMIUM) and shutil.which(DRIVER)):
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {CHROMIUM} and {DRIVER}")
        pytest.skip(f"needs {CHROMIUM} and {DRIVER} (Debian: chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_window_size(1280, 1000)
        driver.get((finished.out / "cameras.html").as_uri())
        assert [entry["message"] for entry in driver.get_log("browser")] == []
        headings = [one.text for one in driver.find_elements("css selector", "h2")]
        assert headings[:3] == ["Scores", "At a glance", "Share of pairs within a pose error"]
        assert {"pocket: worst depth", "pocket: worst poses", "Every recording"} < set(headings)
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert driver.execute_script(broken) == 0
        for width in (1280, 390):
            driver.set_window_size(width, 1000)
            overflow = "return document.documentElement.scrollWidth - innerWidth"
            assert driver.execute_script(overflow) <= 0, width
            for selector in (".case img", "svg .dot", "svg .curve", "table .best"):
                found = driver.find_elements("css selector", selector)
                assert any(one.is_displayed() for one in found), selector
        driver.set_window_size(1280, 1000)
        case = driver.find_element("css selector", ".case")
        picture = np.asarray(Image.open(io.BytesIO(case.screenshot_as_png)).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
    finally:
        driver.quit()


def test_a_second_run_predicts_nothing_and_two_models_are_compared(
    finished, monkeypatch, capsys, tmp_path
):
    data = finished.out.parent / "data"
    before = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*.npz")}
    copy = tmp_path / "copy.safetensors"
    shutil.copy(Path(sys.modules["vggt_edge"].__file__).parent / "assets/pocket.safetensors", copy)
    arguments = ["evaluate", "pocket", copy, "--dataset", "cameras", "--root", data, "--no-colmap"]
    arguments += ["--size", "56", "--dtype", "float32", "-o", finished.out, "--json"]
    monkeypatch.setattr(sys, "argv", ["vggt-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    out = capsys.readouterr().out
    assert not caught.value.code
    after = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*.npz")}
    assert before.items() <= after.items() and len(after) == len(before) + 3
    data = json.loads(out.splitlines()[-1])
    assert [one["reused"] for one in data["methods"]] == [3, 0, 3]
    deltas = data["deltas"]
    assert deltas["of"] == ["copy", "pocket"]
    assert all(one["mean"] == one["low"] == one["high"] == 0 for one in deltas["metrics"].values())
    assert "copy - pocket" in out


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["pocket", "-d", "7scene"], "no dataset is called 7scene; there are 7scenes, cameras", 2),
        (["pocket", "-d", "7scenes"], "7-Scenes needs --root", 2),
        (["pocket", "-d", "7scenes", "--root", "gone"], "gone", 2),
        (
            ["pocket", "-d", "cameras", "--root", ".", "--protocol", "p"],
            "no protocol is called p",
            2,
        ),
        (["pocket", "-d", "cameras", "--root", ".", "--protocol", "pi3"], "pi3 says nothing", 2),
        (["pocket", "-d", "cameras", "--root", ".", "--split", "x"], "x", 2),
        (["a", "b", "c", "-d", "cameras"], "3 models: give one, or two", 2),
        (["none.safetensors", "-d", "cameras"], "none.safetensors", 1),
        (["pocket", "-d", "cameras", "--size", "57"], "57 is not a multiple of the patch", 2),
        (["pocket", "-d", "cameras", "--mode", "m"], "unknown mode 'm'", 2),
        (["pocket", "-d", "cameras", "--root", "bare"], "nothing to score in bare", 2),
        (["pocket", "-d", "cameras", "--root", "bare", "-o", "file"], "file", 1),
    ],
)
def test_bad_usage_is_one_line(arguments, words, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if "bare" in arguments:
        write_world(tmp_path / "bare", "table", views=2, posed=False, measured=False)
    monkeypatch.setattr(sys, "argv", ["vggt-edge", "evaluate", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == code and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert not (tmp_path / "evaluation").exists()


def test_pictures_of_depth_are_light_where_it_is_near():
    depth = np.array([[1.0, 2.0, 4.0, 0.0]])
    picture = worst.depth_picture(depth, depth > 0, 1.0, 4.0).astype(int).sum(axis=2)[0]
    assert picture[0] > picture[1] > picture[2]
    assert picture[3] == 3 * 128
    beyond = worst.depth_picture(np.array([[0.1, 9.0]]), np.ones((1, 2), bool), 1.0, 4.0)
    assert beyond[0].astype(int).sum(axis=1).tolist() == [picture[0], picture[2]]


def test_the_worst_views_come_first_and_scale_is_of_the_recording():
    true = np.full((3, 14, 14), 2.0, np.float32)
    depth = np.full((3, 14, 14), 1.0, np.float32)
    depth[1] *= 1.5
    depth[2, :3] *= 1.2
    true[0, :, 13:] = 0
    views = Views.from_images(np.zeros((3, 14, 14, 3), np.uint8))
    prediction = Prediction(views, depth=depth)
    cases = worst.depth_cases("room", 0.2, prediction, true, 2)
    assert [case.view for case in cases] == [1, 2]
    assert cases[0].abs_rel == pytest.approx(0.5) and cases[1].abs_rel == pytest.approx(
        0.2 * 3 / 14
    )
    assert worst.depth_cases("room", 0.2, prediction, 0 * true, 2) == []
    assert worst.depth_cases("room", 0.2, Prediction(views), true, 2) == []


def test_plots_survive_what_is_missing():
    row = charts.Row("<a>", 0.5, float("nan"), float("nan"), 0)
    svg = charts.whiskers("one & only", "", [row, row._replace(value=float("nan"))])
    assert svg.count("<circle") == 1 and "whisker" not in svg
    assert "&lt;a&gt;" in svg and "<a>" not in svg
    centers = np.array([[0.0, 0, 0], [1, 0, 0]])
    alone = charts.trajectories(centers, np.full((2, 3), np.nan), None, 0, "lost")
    assert alone.count('class="truth"') == 2 and "dot" not in alone
