"""Batches: determinism, sanity of every kind, cameras in free space, walks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggt_edge import worlds
from vggt_edge.errors import InputError
from vggt_edge.worlds.builder import Boxes
from vggt_edge.worlds.camera_effects import quantise
from vggt_edge.worlds.paths import sample_views, sample_walk


def test_same_seed_same_pixels_and_scenes_stand_alone() -> None:
    batch = worlds.render(5, 3, 2, 48, 40)
    again = worlds.render(5, 3, 2, 48, 40)
    alone = worlds.render(5, 1, 2, 48, 40, first=2)
    other = worlds.render(6, 3, 2, 48, 40)
    for name, value in batch._asdict().items():
        assert torch.equal(value, getattr(again, name)), name
        assert torch.equal(value[2:], getattr(alone, name)), name
    assert not torch.equal(batch.images, other.images)


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_every_kind_gives_usable_views(kind: str) -> None:
    batch = worlds.render(21, 4, 3, 64, 80, kinds=[kind], overlap=0.6)
    assert batch.images.shape == (4, 3, 3, 64, 80)
    assert batch.depth.shape == batch.valid.shape == (4, 3, 64, 80)
    assert batch.images.dtype == batch.depth.dtype == torch.float32
    assert batch.images.isfinite().all() and batch.depth.isfinite().all()
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    assert (batch.images.flatten(2).std(2) > 0.02).all()
    assert torch.equal(batch.valid, batch.depth > 0)
    assert batch.valid.flatten(1).float().mean(1).min() > (0.02 if kind == "object" else 0.2)
    medians = torch.stack([d[d > 0].median() for d in batch.depth.flatten(0, 1)])
    assert medians.min() > 0.2 and medians.max() < 40


def test_intrinsics_and_poses_follow_the_convention() -> None:
    batch = worlds.render(3, 6, 2, 48, 64, overlap=0.5)
    k = batch.intrinsics
    assert torch.equal(k[..., 0, 0], k[..., 1, 1])
    assert (k[..., 0, 2] == 32).all() and (k[..., 1, 2] == 24).all()
    fov = 2 * torch.rad2deg(torch.atan(32 / k[..., 0, 0]))
    assert fov.min() > 28 and fov.max() < 96
    rotation = batch.camera_from_world[..., :3]
    identity = rotation @ rotation.transpose(-1, -2)
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotation) > 0.99).all()
    # Upright cameras: the image's down axis points down.
    assert (rotation[..., 1, 2] < -0.2).float().mean() > 0.9


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_cameras_stand_in_free_space(kind: str) -> None:
    free = []
    for i in range(6):
        builder, rng = worlds._scene(40, i, (kind,))
        cameras = sample_views(builder, rng, 4, 0.5)
        free.append(Boxes(builder).clearance(cameras.world_from_camera[:, :, 3]))
    assert (np.concatenate(free) > 0.2).mean() > 0.9


def test_smaller_overlap_means_wider_baselines() -> None:
    def spread(overlap: float) -> float:
        total = 0.0
        for i in range(12):
            builder, rng = worlds._scene(8, i, ("object", "facade"))
            centers = sample_views(builder, rng, 4, overlap).world_from_camera[:, :, 3]
            total += float(np.linalg.norm(np.ptp(centers, axis=0)))
        return total

    assert spread(0.95) < 0.6 * spread(0.5)


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_walks_are_continuous(kind: str) -> None:
    builder, rng = worlds._scene(2, 0, (kind,))
    poses = sample_walk(builder, rng, 60, 0.06).world_from_camera
    steps = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1)
    assert steps.max() < 0.5
    turn = np.einsum("nij,nij->n", poses[1:, :, :3], poses[:-1, :, :3])
    assert np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1))).max() < 20
    assert (Boxes(builder).clearance(poses[:, :, 3]) > 0.1).mean() > 0.9


def test_walk_renders_in_chunks_like_one_scene() -> None:
    batch = worlds.walk(4, 11, 32, 40, kind="facade")
    assert batch.images.shape == (1, 11, 3, 32, 40)
    brightness = batch.images.mean((2, 3, 4))[0]
    assert brightness.diff().abs().max() < 0.12


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(InputError, match="unknown kind"):
        worlds.render(0, 1, 1, 16, 16, kinds=["castle"])
    with pytest.raises(InputError, match="overlap"):
        worlds.render(0, 1, 1, 16, 16, overlap=0.0)


def test_quantising_loses_more_with_coarser_steps() -> None:
    image = torch.rand(1, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    losses = [(quantise(image, torch.tensor([s])) - image).abs().mean() for s in (0.0, 0.3, 1.0)]
    assert losses[0] < 1e-5 < losses[1] < losses[2]


def test_scenes_rendered_together_look_as_they_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators trace many scenes at once; do the same here."""
    alone = worlds.render(9, 5, 2, 40, 48, augment=False)
    monkeypatch.setattr(worlds, "_VIEWS_AT_ONCE", {})
    together = worlds.render(9, 5, 2, 40, 48, augment=False)
    assert torch.equal(alone.camera_from_world, together.camera_from_world)
    same = torch.isclose(alone.depth, together.depth, rtol=1e-4)
    assert same.float().mean() > 0.999
    assert (alone.images - together.images).abs().mean() < 1e-3
