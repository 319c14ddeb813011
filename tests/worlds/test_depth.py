"""Depth against closed forms, and between views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggt_edge import geometry, worlds
from vggt_edge.worlds.builder import Builder, Light
from vggt_edge.worlds.materials import material
from vggt_edge.worlds.paths import Cameras, look_at
from vggt_edge.worlds.render import pack_grid, pack_solids
from vggt_edge.worlds.shapes import FAR
from vggt_edge.worlds.tiles import blocked, first_hits

HEIGHT, WIDTH, FOCAL = 40, 52, 0.9


def _builder() -> Builder:
    return Builder(np.random.default_rng(0))


def _grey(b: Builder) -> np.ndarray:
    return material(b.rng, "paint", np.full(3, 0.5))


def _depth(b: Builder, pose: np.ndarray) -> np.ndarray:
    cameras = Cameras(pose[None], np.array([FOCAL]))
    grid = pack_grid([cameras], HEIGHT, WIDTH, torch.device("cpu"))
    depth, _ = first_hits(grid, pack_solids([b], torch.device("cpu")))
    return grid.to_image(depth)[0].double().numpy()


def _rays(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    f = FOCAL * WIDTH
    camera = np.stack([(u - WIDTH / 2) / f, (v - HEIGHT / 2) / f, np.ones_like(u)], -1)
    return pose[:, 3], camera @ pose[:, :3].T


POSE = look_at(np.array([1.5, -2.5, 1.2]), np.array([0.1, 0.05, 0.2]), 0.1)


def test_plane_depth_is_the_closed_form() -> None:
    b = _builder()
    b.box(-500, -500, -2, 500, 500, 0, _grey(b))
    origin, ray = _rays(POSE)
    expected = -origin[2] / ray[..., 2]
    seen = (ray[..., 2] < -0.02) & (expected < 100)
    found = _depth(b, POSE)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(found[seen], expected[seen], rtol=2e-5)
    assert (found[ray[..., 2] > 0] > FAR).all()


def test_sphere_depth_is_the_closed_form() -> None:
    b = _builder()
    b.ellipsoid((0.0, 0.0, 0.3), (0.6, 0.6, 0.6), _grey(b))
    origin, ray = _rays(POSE)
    o = origin - [0, 0, 0.3]
    a, h, c = (ray**2).sum(-1), ray @ o, o @ o - 0.36
    disc = h * h - a * c
    hit = disc > 1e-3
    expected = (-h - np.sqrt(np.maximum(disc, 0))) / a
    found = _depth(b, POSE)
    assert hit.mean() > 0.05
    np.testing.assert_allclose(found[hit], expected[hit], rtol=2e-5)
    assert (found[disc < -1e-3] > FAR).all()


def test_turned_box_depth_is_the_closed_form() -> None:
    b = _builder()
    with b.placed(0.2, 0.1, 0.0, 0.7):
        b.box(-0.5, -0.3, 0.0, 0.5, 0.3, 0.4, _grey(b))
    origin, ray = _rays(POSE)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    o = turn @ (origin - [0.2, 0.1, 0.2])
    d = ray @ turn.T
    half = np.array([0.5, 0.3, 0.2])
    t = np.sort(np.stack([(-half - o) / d, (half - o) / d]), axis=0)
    near, far = t[0].max(-1), t[1].min(-1)
    found = _depth(b, POSE)
    hit, miss = far - near > 1e-3, near - far > 1e-3
    assert hit.mean() > 0.05
    np.testing.assert_allclose(found[hit], near[hit], rtol=2e-5)
    assert (found[miss] > FAR).all()


@pytest.mark.parametrize("shape", ["cylinder", "cone", "tube", "hull"])
def test_hits_lie_on_the_surface(shape: str) -> None:
    b = _builder()
    if shape == "hull":
        b.hull((0, 0, 0.3), (0.5, 0.5, 0.3), _grey(b), 1.3)
    else:
        b.cylinder(0, 0, 0, 0.6, 0.5, _grey(b), top=0.4 if shape == "cone" else 1.0,
                   hollow=shape == "tube")  # fmt: skip
    origin, ray = _rays(POSE)
    depth = _depth(b, POSE)
    hit = depth < FAR
    assert hit.mean() > 0.05
    p = (origin + ray * depth[..., None])[hit]
    if shape == "hull":
        q = np.abs((p - [0, 0, 0.3]) / [0.5, 0.5, 0.3])
        pairs = np.stack([q[:, 0] + q[:, 1], q[:, 0] + q[:, 2], q[:, 1] + q[:, 2]], -1)
        outside = np.maximum(q.max(-1) - 1, (pairs - 1.3).max(-1))
        assert np.abs(outside).max() < 1e-4
        return
    radius = 0.5 * (1 - p[:, 2] / 0.6 * 0.6) if shape == "cone" else 0.5
    side = np.abs(np.hypot(p[:, 0], p[:, 1]) - radius)
    caps = np.abs(np.abs(p[:, 2] - 0.3) - 0.3)
    assert (side if shape == "tube" else np.minimum(side, caps)).max() < 1e-4
    assert (np.hypot(p[:, 0], p[:, 1]) < radius + 1e-4).all()


def test_tiles_miss_nothing() -> None:
    """Culling changes no pixel: each solid of a scene alone, then the nearest of all."""
    builder, _ = worlds._scene(3, 0, ("table",))
    pose = look_at(np.array([0.9, -1.0, 0.7]), np.array([0, 0, 0.05]))
    together = _depth(builder, pose)
    nearest = np.full_like(together, np.inf)
    device = torch.device("cpu")
    grid = pack_grid([Cameras(pose[None], np.array([FOCAL]))], HEIGHT, WIDTH, device)
    everything = pack_solids([builder], device)
    wide = everything._replace(bound=everything.bound * 50)
    depth, _ = first_hits(grid, wide)
    nearest = grid.to_image(depth)[0].double().numpy()
    np.testing.assert_array_equal(together < FAR, nearest < FAR)
    hit = together < FAR
    np.testing.assert_allclose(together[hit], nearest[hit], rtol=1e-6)


def test_a_box_shadows_the_ground_behind_it() -> None:
    b = _builder()
    b.box(-50, -50, -1, 50, 50, 0, _grey(b))
    b.box(-0.5, -0.5, 0, 0.5, 0.5, 1.0, _grey(b))
    device = torch.device("cpu")
    grid = pack_grid([Cameras(POSE[None], np.array([FOCAL]))], 8, 8, device)
    points = torch.zeros(3, 1, 64)
    points[0, 0] = torch.linspace(-3, 3, 64)
    points[1, 0], points[2, 0] = 0.05, 0.002
    sun = torch.tensor([[1.0, 0.0, 1.0]]) / 2**0.5
    wanted = torch.ones(1, 64, dtype=torch.bool)
    dark = blocked(grid, pack_solids([b], device), points, wanted, sun, torch.tensor([True]))
    x = points[0, 0]
    expected = (x > -1.5) & (x < -0.52)
    assert torch.equal(dark[0][(x < -0.52) | (x > 0.52)], expected[(x < -0.52) | (x > 0.52)])
    lamp = torch.tensor([[3.0, 0.05, 0.5]])
    dark = blocked(grid, pack_solids([b], device), points, wanted, lamp, torch.tensor([False]))
    assert dark[0][x < -0.6].all()
    assert not dark[0][x > 0.6].any()


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_views_agree_where_they_see_the_same(kind: str) -> None:
    batch = worlds.render(11, 1, 2, 96, 96, kinds=[kind], overlap=0.85, augment=False)
    depth = batch.depth[0].double().numpy()
    k, pose = batch.intrinsics[0].double().numpy(), batch.camera_from_world[0].double().numpy()
    points = geometry.unproject(depth, k, pose)
    valid = batch.valid[0, 0].numpy()
    there = geometry.project(points[0][valid], k[1], pose[1])
    u, v = np.round(there[:, 0]).astype(int), np.round(there[:, 1]).astype(int)
    # Interpolating depth is only fair on smooth surface: judge by both neighbours' range.
    inside = (u > 1) & (u < 94) & (v > 1) & (v < 94) & (there[:, 2] > 0.1)
    u, v, z = u[inside], v[inside], there[inside, 2]
    around = np.stack([depth[1][v + i, u + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    visible = (around.min(0) > 0) & (z < around.max(0) * 1.02)
    agrees = (z > around.min(0) * 0.99) & (z < around.max(0) * 1.01)
    assert visible.sum() > 150
    assert agrees[visible].mean() > 0.9


def test_a_scene_without_light_is_an_error() -> None:
    with pytest.raises(ValueError, match="light"):
        _builder().finished_light()
    b = _builder()
    b.light = Light(*(np.zeros(3),), True, *(np.zeros(3),) * 5)
    assert b.finished_light() is b.light
