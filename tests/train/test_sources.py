"""Recordings and a teacher as training data."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggt_edge import geometry
from vggt_edge.errors import ImageError, InputError
from vggt_edge.evaluate.datasets.cameras_json import read_folder
from vggt_edge.model.vggt import VGGT
from vggt_edge.recording import Recording
from vggt_edge.train.batch import camera_points, make_batch
from vggt_edge.train.crop import source_from_view
from vggt_edge.train.curriculum import Draw, Stage
from vggt_edge.train.distill import Distilled, label, scenes_of
from vggt_edge.train.feed import Feed
from vggt_edge.train.initialize import initialize
from vggt_edge.train.recorded import Recorded
from vggt_edge.train.trainer import TrainConfig, Trainer, source_at
from vggt_edge.worlds import walk

CONFIG = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
CPU = torch.device("cpu")
PLAN = Draw(3, 2, 1, 3, 42, 56, 0.7, 0.5, source="data")
FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A walk through a world as a folder with cameras.json, its principal point off the middle."""
    place = tmp_path_factory.mktemp("walk")
    world = walk(11, FRAMES, 98, 126, kind="room", stride=0.15)
    frames = []
    for index in range(FRAMES):
        pixels = (world.images[0, index].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        counts = (world.depth[0, index].numpy() * 1000).round().astype(np.uint16)
        # Rows and columns cut away on one side move the middle.
        Image.fromarray(pixels[6:, 10:]).save(place / f"{index}.png")
        Image.fromarray(counts[6:, 10:]).save(place / f"{index}.depth.png")
        k = world.intrinsics[0, index].double().numpy().copy()
        k[:2, 2] -= [10, 6]
        pose = geometry.invert_rigid(world.camera_from_world[0, index].double().numpy())
        frames.append(
            {
                "image": f"{index}.png",
                "depth": f"{index}.depth.png",
                "w": 116,
                "h": 92,
                "K": k.tolist(),
                "c2w": [*pose.tolist(), [0, 0, 0, 1]],
            }
        )
    content = {"depth_unit_m": 0.001, "metric": True, "frames": frames}
    (place / "cameras.json").write_text(json.dumps(content))
    return place


@pytest.fixture(scope="module")
def recorded(folder):
    return Recorded([read_folder(folder, "walk")], augment=False)


def test_views_of_a_recording_agree_with_each_other(recorded):
    """Points of one view, in another's camera, have the colours and depths seen there."""
    batch = recorded.read(PLAN)(CPU)
    assert batch.images.shape == (2, 3, 3, 42, 56)
    assert batch.valid.float().mean() > 0.9
    principal = torch.tensor([56 / 2, 42 / 2])
    assert torch.allclose(batch.intrinsics[..., :2, 2], principal.expand(2, 3, 2), atol=1e-3)
    assert torch.allclose(batch.intrinsics[..., 0, 0], batch.intrinsics[..., 1, 1], rtol=1e-5)
    checked = 0
    for b in range(2):
        for j in (1, 2):
            k, pose = batch.intrinsics[b, j].double(), batch.camera_from_first[b, j].double()
            points = batch.points[b, 0][batch.valid[b, 0]].double().numpy()
            column, row, depth = geometry.project(points, k.numpy(), pose.numpy()).T
            u, v = np.rint(column).astype(int), np.rint(row).astype(int)
            inside = (u >= 0) & (u < 56) & (v >= 0) & (v < 42) & (depth > 0)
            there = batch.depth[b, j].numpy()[v[inside], u[inside]]
            ratio = np.abs(there / depth[inside] - 1)
            assert np.median(ratio) < 0.02
            colors = batch.images[b, 0].permute(1, 2, 0)[batch.valid[b, 0]].numpy()[inside]
            others = batch.images[b, j].permute(1, 2, 0).numpy()[v[inside], u[inside]]
            assert np.median(np.abs(colors - others)[ratio < 0.01]) < 0.05
            checked += inside.sum()
    assert checked > 1000


def test_a_recording_reads_alike_at_every_call(recorded, folder):
    again = Recorded([read_folder(folder, "walk")], augment=False)
    one, two = recorded.read(PLAN)(CPU), again.read(PLAN)(CPU)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    other = recorded.read(dataclasses.replace(PLAN, seed=4))(CPU)
    assert not torch.equal(one.images, other.images)
    assert recorded.digest == again.digest


def test_augmentation_zooms_and_changes_colours_but_not_the_scene(folder, recorded):
    augmented = Recorded([read_folder(folder, "walk")]).read(PLAN)(CPU)
    plain = recorded.read(PLAN)(CPU)
    assert (augmented.intrinsics[:, 0, 0, 0] > plain.intrinsics[:, 0, 0, 0]).all()
    points = camera_points(augmented.depth, augmented.intrinsics)[:, 0]
    valid = augmented.valid[:, 0]
    assert torch.allclose(points[valid], augmented.points[:, 0][valid], atol=1e-4)


def test_frames_are_chosen_by_their_overlap(recorded):
    mean = {}
    for wanted in (0.35, 0.95):
        shares = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            first, second = recorded.choose(0, 2, wanted, rng)
            shares.append(recorded.share(0, int(first), int(second)))
        mean[wanted] = np.mean(shares)
    assert recorded.share(0, 2, 2) > 0.98
    assert mean[0.95] > mean[0.35] + 0.1


def test_recordings_without_truth_are_named_or_refused(folder):
    whole = read_folder(folder, "walk")
    bare = Recording("bare", whole.paths)
    assert Recorded([whole, bare]).left_out == ["bare"]
    with pytest.raises(InputError, match="--teacher"):
        Recorded([bare])


@given(
    focal=st.tuples(st.floats(50, 500), st.floats(50, 500)),
    at=st.tuples(st.floats(20, 180), st.floats(20, 130)),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    zoom=st.floats(0.3, 1),
)
def test_what_is_cut_out_lies_in_the_picture(focal, at, size, zoom):
    height, width = 14 * size[0], 14 * size[1]
    k = np.array([[focal[0], 0, at[0]], [0, focal[1], at[1]], [0, 0, 1]])
    matrix = source_from_view(k, (150, 200), (height, width), zoom)
    corners = matrix @ [[-0.5, width - 0.5], [-0.5, height - 0.5], [1, 1]]
    assert (corners > -0.5 - 1e-6).all()
    assert (corners[:, 1] < [199.5 + 1e-6, 149.5 + 1e-6, 2]).all()
    seen = np.linalg.inv(matrix) @ k
    assert np.allclose(seen[:2, 2], [width / 2, height / 2])
    assert np.isclose(seen[0, 0], seen[1, 1])


@pytest.fixture(scope="module")
def pictures(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("unlabelled")
    for scene in ("one", "two"):
        (place / scene).mkdir()
        for index in range(4):
            shutil.copy(folder / f"{index}.png", place / scene / f"{index}.png")
    return place


@pytest.fixture(scope="module")
def distilled(pictures):
    """A tiny teacher whose answers are not all alike."""
    torch.manual_seed(5)
    teacher = initialize(VGGT(dataclasses.replace(CONFIG, image_size=112)), seed=5)
    with torch.no_grad():
        teacher.depth_head.scratch.output_conv2[2].weight.mul_(40)
        teacher.camera_head.pose_branch.fc2.weight.mul_(5)
        teacher.camera_head.pose_branch.fc2.bias[7:] += 0.25
    return Distilled(teacher, scenes_of(pictures))


def test_folders_are_scenes(pictures, folder, tmp_path):
    assert [len(scene) for scene in scenes_of(pictures)] == [4, 4]
    assert [path.name for path in scenes_of(pictures)[0]] == [f"{i}.png" for i in range(4)]
    assert len(scenes_of(folder)) == 1
    with pytest.raises(ImageError):
        scenes_of(tmp_path / "absent")


def test_labels_are_the_teachers_answers(distilled):
    torch.manual_seed(0)
    images = torch.rand(2, 2, 3, 84, 112)
    world, weight = label(distilled.teacher, images, 2)
    with torch.no_grad():
        answer = distilled.teacher(images)
    assert torch.allclose(
        world.images, torch.nn.functional.avg_pool2d(images.flatten(0, 1), 2).view_as(world.images)
    )
    depth = answer.depth[:, :, 1::2, 1::2, 0]
    assert torch.allclose(world.depth[world.valid], depth[world.valid], rtol=1e-4)
    assert 0.85 < world.valid.float().mean() < 0.95
    batch = make_batch(world, weight)
    assert batch.weight[batch.valid].mean() == pytest.approx(1, abs=1e-3)
    assert (batch.weight[~batch.valid] == 0).all()
    sure = answer.depth_conf[:, :, 1::2, 1::2]
    for b in range(2):
        assert sure[b][world.valid[b]].min() >= sure[b][~world.valid[b]].max()
    fields = 2 * torch.atan(42 / 2 / world.intrinsics[..., 1, 1])
    assert torch.allclose(fields, answer.pose_enc[..., 7], atol=1e-4)


def test_a_student_comes_nearer_to_its_teacher(distilled):
    plan = dataclasses.replace(PLAN, source="pictures", views=2)
    stages = (Stage(10**9, (2,), (42**2,), 1, (0.7, 0.8), 0.5),)
    config = TrainConfig(warmup=1, learning_rate=3e-3, bf16=False, pictures=1.0)
    trainer = Trainer(initialize(VGGT(CONFIG)), config, stages, {"pictures": distilled})
    batch = distilled.read(plan)(CPU)

    def errors() -> tuple[float, float]:
        with torch.no_grad():
            output = trainer.model(batch.images)
        log = (output.depth[..., 0].log() - batch.depth.clamp(min=1e-4).log()).abs()
        return float(log[batch.valid].mean()), float((output.pose_enc - batch.pose).abs().mean())

    before = errors()
    for _ in range(60):
        trainer.train_step([batch])
    after = errors()
    assert after[0] < 0.92 * before[0] and after[1] < 0.6 * before[1]


def test_a_teacher_needs_its_heads(pictures):
    blind = VGGT(dataclasses.replace(CONFIG, heads=("camera",)))
    with pytest.raises(InputError, match="depth"):
        Distilled(blind, scenes_of(pictures))


def test_sources_mix_by_their_shares():
    config = TrainConfig(data=0.3, pictures=0.2)
    drawn = [source_at(step, 0, config) for step in range(2000)]
    assert drawn == [source_at(step, 0, config) for step in range(2000)]
    assert drawn.count("data") / 2000 == pytest.approx(0.3, abs=0.04)
    assert drawn.count("pictures") / 2000 == pytest.approx(0.2, abs=0.04)
    assert {source_at(step, 0, TrainConfig()) for step in range(50)} == {"worlds"}


@pytest.mark.slow
def test_what_is_read_ahead_is_the_same(recorded, distilled):
    def plan(index: int) -> Draw:
        source = ("data", "pictures", "worlds")[index % 3]
        return dataclasses.replace(PLAN, seed=index, source=source)

    sources = {"data": recorded, "pictures": distilled}
    with Feed(plan, CPU, 1, sources) as ahead, Feed(plan, CPU, 0, sources) as direct:
        for index in range(4):
            one, two = ahead.get(index), direct.get(index)
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
