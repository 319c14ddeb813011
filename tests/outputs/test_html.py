"""The HTML viewer in a headless Chromium, opened from disk as a user would."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from vggt_edge import geometry
from vggt_edge.errors import OutputError
from vggt_edge.outputs import html
from vggt_edge.types import Cameras, Prediction, Scene, Views

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
HOSTILE = '</script><img src=x onerror="window.hacked=1">\'{{points}}.jpg'
WIDTH, HEIGHT = 720, 560


def room(points: int, cameras: int = 6) -> Scene:
    """A coloured box of a room, seen by cameras on an arc that look at its middle."""
    rng = np.random.default_rng(7)
    height, width = 90, 120
    angle = np.linspace(-0.7, 0.7, cameras)
    poses = []
    for a in angle:
        forward = np.array([np.sin(-a), 0.1, np.cos(a)])
        forward /= np.linalg.norm(forward)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        center = np.array([2.0 * np.sin(a), -0.4, -2.0 * np.cos(a)])
        poses.append(np.column_stack([rotation, -rotation @ center]))
    camera_from_world = np.array(poses)
    intrinsics = np.tile(
        np.array([[100.0, 0, width / 2], [0, 100, height / 2], [0, 0, 1]]), (cameras, 1, 1)
    )
    cloud = rng.uniform(-1, 1, (points, 3)) * [2, 1, 2]
    wall = rng.integers(0, 3, points)
    cloud[wall == 0, 1] = 1.0
    cloud[wall == 1, 2] = 2.0
    cloud[wall == 2, 0] = 2.0
    checker = np.floor(cloud * 2.5).sum(axis=1) % 2
    base = np.array([[225, 190, 120], [90, 150, 210], [210, 95, 85]])[wall]
    colors = (base * (0.75 + 0.25 * checker[:, None])).astype(np.uint8)
    view_index = rng.integers(0, cameras, points).astype(np.int32)
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    images = np.stack(
        [
            np.stack([column * 2, row * 2, np.full_like(row, 40 * i)], axis=-1)
            for i in range(cameras)
        ]
    ).astype(np.uint8)
    return Scene(
        prediction=Prediction(
            Views.from_images(images, (HOSTILE, *(f"{i}.jpg" for i in range(1, cameras)))),
            Cameras(intrinsics, camera_from_world, np.tile([height, width], (cameras, 1))),
        ),
        points=cloud.astype(np.float32),
        colors=colors,
        confidence=rng.gamma(2.0, size=points).astype(np.float32),
        view_index=view_index,
        pixel=rng.integers(0, 90, (points, 2)).astype(np.int32),
        units="metres",
    )


def subset(scene: Scene, chosen: slice) -> Scene:
    return replace(
        scene,
        points=scene.points[chosen],
        colors=scene.colors[chosen],
        confidence=scene.confidence[chosen],
        view_index=scene.view_index[chosen],
        pixel=scene.pixel[chosen],
    )


class Page:
    """One browser; ``open`` shows a page from disk."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())
        assert self.run("await vggtViewer.ready; return 'ready'") == "ready", self.problems()

    def run(self, code: str) -> Any:
        return self.driver.execute_async_script(
            f"const done = arguments[0]; (async () => {{ {code} }})()"
            ".then(done, (error) => done(String(error.stack)));"
        )

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def picture(self) -> np.ndarray:
        """The canvas alone, as the user sees it, (H, W, 3) int."""
        self.run("await vggtViewer.settled()")
        png = self.find("#canvas").screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def problems(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What the page asked for (and not the browser's own start page)."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if one["documentURL"].startswith("file:")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not (shutil.which(CHROMIUM) and shutil.which(DRIVER)):
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {CHROMIUM} and {DRIVER}")
        pytest.skip(f"needs {CHROMIUM} and {DRIVER} (Debian: chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    profile = tmp_path_factory.mktemp("profile")
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(60)
    yield Page(driver)
    driver.quit()


class Opened(NamedTuple):
    page: Page
    scene: Scene


@pytest.fixture(scope="module")
def opened(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    scene = room(50_000)
    stray = scene.points.copy()
    stray[:5] *= 1e4  # stray points must not spoil the view or the precision
    stray[5] = np.nan
    folder = tmp_path_factory.mktemp("html")
    page.open(html.write(replace(scene, points=stray), folder / "a room & <b>more.html"))
    return Opened(page, scene)


def drag_slider(page: Page, selector: str, pixels: int) -> None:
    from selenium.webdriver import ActionChains

    chain = ActionChains(page.driver, duration=50)
    chain.click_and_hold(page.find(selector)).move_by_offset(pixels, 0).release().perform()


def canvas_click(page: Page, x: float, y: float, count: int = 1) -> None:
    from selenium.webdriver import ActionChains

    canvas = page.find("#canvas")
    size = canvas.size
    chain = ActionChains(page.driver, duration=20)
    chain.move_to_element_with_offset(
        canvas, int(x - size["width"] / 2), int(y - size["height"] / 2)
    )
    for _ in range(count):
        chain.click()
    chain.perform()


def test_page_loads_alone_and_shows_points(opened: Opened) -> None:
    page = opened.page
    assert page.run("return vggtViewer.pointCount") == 49_999  # one was not finite
    assert page.find("#heading h1").text == "a room & <b>more"
    image = page.picture()
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1000
    saturated = image.max(axis=-1) - image.min(axis=-1) > 60
    assert saturated.mean() > 0.03, "the coloured walls are not in view"
    assert page.problems() == []
    requests = page.requests()
    assert requests
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_hostile_name_is_only_text(opened: Opened) -> None:
    page = opened.page
    assert page.run("return window.hacked ?? 'no'") == "no"
    assert page.find("#strip button").get_attribute("title") == HOSTILE


def test_points_survive_packing(opened: Opened) -> None:
    page, scene = opened
    rows = page.run(
        "const { scene } = vggtViewer.viewer, rows = [];"
        "for (let i = 0; i < scene.count; i++) if (scene.codes[4 * i + 3] === 2)"
        "  rows.push([...scene.positionOf(i).toArray(), ...scene.paint.slice(4 * i, 4 * i + 3)]);"
        "return rows"
    )
    got = np.array(rows)
    mine = np.flatnonzero(scene.view_index == 2)
    mine = mine[mine > 5]
    want = np.column_stack([scene.points[mine], scene.colors[mine]])
    got = got[np.abs(got[:, :3]).max(axis=1) < 10]
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(got[:, :3]).query(want[:, :3])
    assert len(got) == len(want)
    assert distance.max() < 2e-4  # 4 m in about 32,768 steps an axis
    same = (got[nearest, 3:] == want[:, 3:]).all(axis=1)
    assert same.mean() > 0.99  # two points of one place may swap


def test_confidence_slider(opened: Opened) -> None:
    page, scene = opened
    before = page.picture()
    assert page.run("return vggtViewer.visibleCount()") == 49_999
    slider = page.find("#confidence")
    drag_slider(page, "#confidence", 0)  # press in the middle
    kept = int(slider.get_attribute("value"))
    assert 40 < kept < 60
    visible = page.run("return vggtViewer.visibleCount()")
    assert visible == pytest.approx(len(scene.points) * kept / 100, rel=0.02)
    after = page.picture()
    assert (np.abs(after - before).max(axis=-1) > 30).mean() > 0.01
    page.run("vggtViewer.setConfidence(100)")
    assert np.abs(page.picture() - before).mean() < 0.5


def test_colour_modes_differ(opened: Opened) -> None:
    page = opened.page
    pictures = [page.picture()]
    for mode in ("depth", "confidence", "view"):
        page.find(f'#modes button[data-mode="{mode}"]').click()
        assert page.run("return vggtViewer.state().mode") == mode
        pictures.append(page.picture())
        assert page.find("#legend").is_displayed() == (mode != "view")
    page.run("vggtViewer.setColorMode('rgb')")
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.abs(one - other).mean() > 1


def test_click_on_frustum_shows_its_photograph(opened: Opened) -> None:
    page = opened.page
    page.run("vggtViewer.viewer.resetView(0); await vggtViewer.settled()")
    # The middle of each image plane on the screen, by the page's own cameras.
    spots = page.run(
        "const { frusta, camera } = vggtViewer.viewer;"
        "return frusta.cameras.map((one) => { const middle = frusta.corners(one)"
        "  .reduce((sum, corner) => sum.add(corner)).multiplyScalar(0.25).project(camera);"
        "  return [(middle.x / 2 + 0.5) * innerWidth, (0.5 - middle.y / 2) * innerHeight]; })"
    )
    free = [i for i, (x, y) in enumerate(spots) if 20 < x < 430 and 80 < y < 330]
    assert free, f"no camera in the free part of the first view: {spots}"
    canvas_click(page, *spots[free[0]])
    assert page.run("return vggtViewer.state().selected") == free[0]
    assert page.find("#camera").is_displayed()
    seen = page.run("const image = document.getElementById('photo'); await image.decode();"
                    "return [image.naturalWidth, image.naturalHeight]")  # fmt: skip
    assert seen == [120, 90]
    page.run("vggtViewer.selectCamera(-1)")
    assert not page.find("#camera").is_displayed()


def test_list_and_keys_walk_through_cameras(opened: Opened) -> None:
    from selenium.webdriver.common.keys import Keys

    page, scene = opened
    page.find('#strip button[data-camera="0"]').click()
    assert page.find("#camera-name").text == HOSTILE
    page.find("body").send_keys(Keys.ARROW_RIGHT)
    assert page.find("#camera-name").text == "1.jpg"
    page.run("vggtViewer.selectCamera(3, 0); await vggtViewer.settled()")
    assert page.run("return vggtViewer.state().inside") == 3
    position = page.run("return vggtViewer.state().position")
    np.testing.assert_allclose(position, scene.cameras.centers[3], atol=1e-6)
    # Through the camera's own eye a point appears where the camera saw it.
    point = scene.points[1000].astype(float)
    column, row, _ = geometry.project(
        point[None], scene.cameras.intrinsics[3], scene.cameras.camera_from_world[3]
    )[0]
    left, top, right, bottom = page.run(
        "const { frusta, camera } = vggtViewer.viewer; const [a, , c] ="
        " frusta.corners(frusta.cameras[3]).map((corner) => corner.project(camera));"
        "return [a.x, a.y, c.x, c.y]"
    )
    x, y = page.run(
        "const { camera } = vggtViewer.viewer;"
        f"const point = camera.position.clone().set({point[0]}, {point[1]}, {point[2]});"
        "return point.project(camera).toArray().slice(0, 2)"
    )
    assert x == pytest.approx(left + (right - left) * (column + 0.5) / 120, abs=1e-6)
    assert y == pytest.approx(top + (bottom - top) * (row + 0.5) / 90, abs=1e-6)
    page.find("body").send_keys("o")  # only this view's points
    own = np.flatnonzero(scene.view_index == 3)
    own = own[own > 5]
    assert page.run("return vggtViewer.visibleCount()") == len(own)
    page.run("vggtViewer.setConfidence(50)")
    confident = (scene.confidence[own] >= np.median(scene.confidence)).sum()
    assert page.run("return vggtViewer.visibleCount()") == pytest.approx(confident, abs=25)
    page.run("vggtViewer.setConfidence(100)")
    bare = page.picture()
    page.run("vggtViewer.viewer.setOverlay(1)")
    overlaid = page.picture()
    assert np.abs(overlaid - bare).mean() > 5
    # The photograph in full, in its place and colours, and not the frusta's thumbnail.
    size = page.run(
        "const { image } = vggtViewer.viewer.frusta.lens.material.uniforms.photos.value;"
        "return [image.width, image.height, image.depth]"
    )
    assert size == [120, 90, 1]
    for column, row in ((60, 45), (66, 38)):
        x = (left + (right - left) * (column + 0.5) / 120 + 1) / 2 * overlaid.shape[1]
        y = (1 - (top + (bottom - top) * (row + 0.5) / 90)) / 2 * overlaid.shape[0]
        color = overlaid[int(y), int(x)]
        np.testing.assert_allclose(color, [2 * column, 2 * row, 120], atol=10)
    page.run("vggtViewer.viewer.setOverlay(0); vggtViewer.selectCamera(-1)")
    assert page.run("return vggtViewer.visibleCount()") == 49_999


def test_hovering_is_cheap(opened: Opened) -> None:
    page = opened.page
    page.run("vggtViewer.viewer.resetView(0); await vggtViewer.settled()")
    # With every bounding sphere infinite the test of each camera is exact.
    culled, exact = page.run(
        "const { frusta, camera } = vggtViewer.viewer;"
        "const picks = () => Array.from({ length: 1800 }, (_, i) => frusta.pick("
        "  (i % 60) * innerWidth / 60, Math.floor(i / 60) * innerHeight / 30,"
        "  camera, innerWidth, innerHeight));"
        "const culled = picks(); const reach = frusta.cameras.map((one) => one.reach);"
        "frusta.cameras.forEach((one) => (one.reach = Infinity)); const exact = picks();"
        "frusta.cameras.forEach((one, i) => (one.reach = reach[i])); return [culled, exact]"
    )
    assert culled == exact and len(set(exact)) > 4
    got = page.run(
        "const { viewer } = vggtViewer, { frusta } = viewer, { pick, update } = frusta;"
        "let picks = 0, updates = 0;"
        "frusta.pick = (...a) => { picks++; return pick.apply(frusta, a); };"
        "frusta.update = () => { updates++; update.apply(frusta); };"
        f"const i = {culled.index(max(culled))};"
        "const at = { clientX: (i % 60) * innerWidth / 60, pointerId: 1,"
        "  clientY: Math.floor(i / 60) * innerHeight / 30 };"
        "for (let k = 0; k < 30; k++)"
        "  document.getElementById('canvas').dispatchEvent(new PointerEvent('pointermove', at));"
        "await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));"
        "const { array } = frusta.lines.mesh.geometry.getAttribute('paint');"
        "const color = (k) => [...array.slice(32 * k, 32 * k + 4)].map((v) => +v.toFixed(2));"
        "const tip = document.getElementById('tip').textContent, hovered = frusta.hovered;"
        "const colors = [color(hovered), color(0)]; viewer.hoverCamera(-1);"
        "const after = color(hovered); delete frusta.pick; delete frusta.update;"
        "return { picks, updates, hovered, tip, colors, after }"
    )
    assert got["picks"] == 1 and got["updates"] == 0
    assert got["hovered"] == max(culled) and got["tip"] == f"{max(culled)}.jpg"
    assert got["colors"][0] != got["colors"][1] == got["after"]
    page.picture()
    assert page.problems() == []


def test_keys_are_called_alike_on_every_layout(opened: Opened) -> None:
    page = opened.page
    page.run("vggtViewer.selectCamera(2, 0); await vggtViewer.settled()")
    state = (
        "const { viewer } = vggtViewer; return [document.getElementById('solo').checked,"
        " document.getElementById('frusta').checked, [...viewer.navigation.held.values()]];"
    )

    def press(kind: str, code: str, key: str) -> Any:
        event = f"new KeyboardEvent('{kind}', {{ code: '{code}', key: '{key}' }})"
        return page.run(f"dispatchEvent({event}); {state}")

    assert press("keydown", "KeyS", "o") == [True, True, []]  # Dvorak
    assert press("keydown", "KeyS", "O") == [False, True, []]
    assert press("keydown", "KeyC", "с") == [False, False, []]  # Cyrillic
    assert press("keydown", "KeyC", "с") == [False, True, []]
    assert press("keydown", "KeyZ", "w") == [False, True, ["w"]]  # AZERTY
    assert press("keyup", "KeyZ", "W") == [False, True, []]
    assert press("keydown", "KeyW", "ц") == [False, True, ["w"]]
    assert press("keyup", "KeyW", "ц") == [False, True, []]
    page.run("vggtViewer.selectCamera(-1); vggtViewer.viewer.resetView(0)")


def test_orbit_pivot_and_fly(opened: Opened) -> None:
    from selenium.webdriver import ActionChains

    page = opened.page
    page.run("vggtViewer.viewer.resetView(0); await vggtViewer.settled()")
    before = page.run("return vggtViewer.state()")
    drag = ActionChains(page.driver, duration=50).move_to_element(page.find("#canvas"))
    drag.click_and_hold().move_by_offset(80, 20).pause(0.1).release().perform()
    after = page.run("await vggtViewer.settled(); return vggtViewer.state()")
    assert np.linalg.norm(np.subtract(after["position"], before["position"])) > 0.1
    np.testing.assert_allclose(after["pivot"], before["pivot"], atol=1e-6)

    time.sleep(0.4)  # else the release above and the next click are a double click
    canvas_click(page, 330, 250, count=2)
    time.sleep(0.7)
    pivot = np.array(page.run("await vggtViewer.settled(); return vggtViewer.state().pivot"))
    assert np.abs(pivot - before["pivot"]).max() > 0.01
    walls = np.abs(pivot - [2.0, 1.0, 2.0])
    assert walls.min() < 1e-3, "the pivot is not on a wall"

    page.run("dispatchEvent(new KeyboardEvent('keydown', { code: 'KeyW', key: 'w' }))")
    distance, patience = 0.0, time.monotonic() + 20
    while distance < 0.05 and time.monotonic() < patience:  # frames take their time in software
        time.sleep(0.1)
        distance = float(np.linalg.norm(page.run("return vggtViewer.state().pivot") - pivot))
    page.run("dispatchEvent(new KeyboardEvent('keyup', { code: 'KeyW', key: 'w' }))")
    assert distance > 0.05
    assert page.problems() == []


def test_screenshot_is_the_picture(opened: Opened) -> None:
    page = opened.page
    shot = page.run(
        "let link; HTMLAnchorElement.prototype.click = function () { link = this; };"
        "await vggtViewer.viewer.screenshot();"
        "const bitmap = await createImageBitmap(await new Promise((resolve) => {"
        "  const image = new Image(); image.onload = () => resolve(image);"
        "  image.src = link.href; }));"
        "const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);"
        "const context = canvas.getContext('2d'); context.drawImage(bitmap, 0, 0);"
        "const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);"
        "return [link.download, new Set(new Uint32Array(data.buffer)).size]"
    )
    assert shot[0] == "a room & <b>more.png"
    assert shot[1] > 1000


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_points(page: Page, tmp_path: Path, count: int) -> None:
    page.open(html.write(subset(room(10), slice(count)), tmp_path / "few.html"))
    assert page.run("return vggtViewer.visibleCount()") == count
    page.run("vggtViewer.setColorMode('depth'); vggtViewer.selectCamera(1, 0)")
    page.picture()
    assert page.problems() == []


def test_scene_without_cameras_in_an_old_browser(page: Page, tmp_path: Path) -> None:
    scene = room(20_000)
    scene = replace(scene, prediction=replace(scene.prediction, cameras=None))
    old = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    page.open(html.write(scene, tmp_path / "bare.html"))
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", old)
    assert page.run("return 'DecompressionStream' in window") is False
    page.run("vggtViewer.setColorMode('depth')")
    assert np.ptp(page.picture(), axis=-1).max() > 60
    assert page.problems() == []


def test_equal_confidence_is_never_split() -> None:
    assert html._rank(np.ones(100, np.float32)).tolist() == [255] * 100
    assert html._rank(np.arange(256, dtype=np.float32)).tolist() == list(range(256))
    assert html._rank(np.array([np.nan, 1.0, np.inf], np.float32)).argsort().tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(900, 300), (300, 900), (80, 60)])
def test_photographs_are_limited_by_their_longer_side(shape: tuple[int, int]) -> None:
    def size(side: int) -> tuple[int, int]:
        jpeg = base64.b64decode(html._photograph(np.zeros((*shape, 3), np.uint8), side))
        return Image.open(io.BytesIO(jpeg)).size

    scale = min(1, 320 / max(shape))
    assert size(320) == (round(shape[1] * scale), round(shape[0] * scale))
    assert max(size(40)) == 40


def test_thousands_of_photographs_stay_within_what_a_browser_reads() -> None:
    assert html._photograph_side(1) == html._photograph_side(2900) == 320
    rough = np.random.default_rng(0).normal(128, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((320, 320), Image.Resampling.BICUBIC))
    for views in (2000, 10_000, html.MAX_VIEWS):
        one = len(html._photograph(picture, html._photograph_side(views)))
        assert one * views < 300e6, views


def test_contraction_is_undone() -> None:
    points = np.random.default_rng(0).standard_cauchy((1000, 3)).astype(np.float32)
    extent = html._extent(points, room(1))
    c = html._contract(points, extent)
    assert np.abs(c).max() < 2
    size = np.abs(c)
    back = np.where(size <= 1, c, np.sign(c) / (2 - size)) * extent.half + extent.center
    np.testing.assert_allclose(back, points, rtol=2e-3, atol=1e-4)


def test_unwritable_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="page.html"):
        html.write(room(10), tmp_path / "file" / "page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError, match=r"folder\.html"):
        html.write(room(10), tmp_path / "folder.html")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.html"]


def test_sources_can_stand_inside_script_elements() -> None:
    for name in html.SCRIPTS:
        text = html._source(name).lower()
        assert "</script" not in text and "<!--" not in text, name
