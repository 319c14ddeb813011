from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG

from vggt_edge import geometry
from vggt_edge.errors import CheckpointError
from vggt_edge.model.vggt import VGGT, VGGTOutput
from vggt_edge.predict import extrinsics_from_encoding
from vggt_edge.train.batch import make_batch, quaternion_from_matrix, regroup
from vggt_edge.train.curriculum import CURRICULUM, Stage, draw, stage_at, steps_of_beginners
from vggt_edge.train.curves import plot
from vggt_edge.train.export import export
from vggt_edge.train.feed import Feed, photograph
from vggt_edge.train.initialize import initialize
from vggt_edge.train.loop import run
from vggt_edge.train.losses import CONFIDENCE_ALPHA, balanced_gradients, losses
from vggt_edge.train.trainer import TrainConfig, Trainer, learning_rate
from vggt_edge.train.validate import validate
from vggt_edge.weights import load
from vggt_edge.worlds import render

CONFIG = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
STAGES = (
    Stage(2, (1,), (42**2,), 4 * 42**2, (0.8, 1.0), 0.0),
    Stage(10**9, (2,), (42**2,), 4 * 42**2, (0.8, 1.0), 0.5),
)


@pytest.fixture(scope="module")
def world():
    return render(5, 2, 4, 42, 56, augment=False)


def make_trainer(**changes) -> Trainer:
    config = TrainConfig(steps=4, warmup=1, decay=2, every=2, bf16=False, **changes)
    return Trainer(initialize(VGGT(CONFIG), seed=0), config, STAGES)


def test_quaternions_agree_with_geometry():
    rng = np.random.default_rng(0)
    rotation = geometry.quaternion_to_matrix(rng.normal(size=(100, 4)))
    ours = quaternion_from_matrix(torch.tensor(rotation)).numpy()
    assert np.allclose(ours, geometry.matrix_to_quaternion(rotation), atol=1e-8)


def test_a_batch_is_in_the_first_cameras_frame_at_unit_scale(world):
    batch = make_batch(world)
    identity = torch.tensor([0, 0, 0, 0, 0, 0, 1.0])
    assert torch.allclose(batch.pose[:, 0, :7], identity.expand(2, -1), atol=1e-5)
    distance = batch.points.norm(dim=-1)[batch.valid]
    means = [batch.points[i].norm(dim=-1)[batch.valid[i]].mean() for i in range(2)]
    assert distance.isfinite().all() and np.allclose(means, 1, atol=1e-4)
    # Points are those that depth, pose and field of view of the targets unproject to.
    for i in range(2):
        poses = extrinsics_from_encoding(batch.pose[i].numpy())
        k = world.intrinsics[i].double().numpy()
        points = geometry.unproject(batch.depth[i].double().numpy(), k, poses)
        mask = batch.valid[i].numpy()
        assert np.allclose(points[mask], batch.points[i].numpy()[mask], atol=1e-3)


def test_regrouped_views_are_scenes_of_their_own(world):
    groups = regroup(world, 2)
    assert groups.images.shape == (4, 2, 3, 42, 56)
    assert torch.equal(groups.depth[1], world.depth[0, 2:])
    assert torch.equal(groups.camera_from_world[2], world.camera_from_world[1, :2])


def perfect(batch, confidence=2.0) -> VGGTOutput:
    conf = torch.full_like(batch.depth, confidence)
    return VGGTOutput(
        pose_enc=batch.pose,
        pose_enc_list=(batch.pose, batch.pose),
        depth=batch.depth.clamp(min=1e-4)[..., None],
        depth_conf=conf,
        world_points=batch.points,
        world_points_conf=conf,
    )


def test_perfect_answers_cost_nothing_but_their_confidence(world):
    batch = make_batch(world)
    values = losses(perfect(batch), batch)
    floor = -CONFIDENCE_ALPHA * np.log(2.0)
    assert values["camera"] == 0
    assert values["depth"].item() == pytest.approx(floor, abs=1e-5)
    assert values["point"].item() == pytest.approx(floor, abs=1e-5)


def test_confidence_is_best_at_alpha_over_error(world):
    batch = make_batch(world)
    wrong = batch.depth.clamp(min=1e-4)[..., None] * np.exp(0.05)
    costs = {
        c: losses(perfect(batch, c)._replace(depth=wrong), batch)["depth"].item()
        for c in (2.0, CONFIDENCE_ALPHA / 0.05, 8.0)
    }
    assert min(costs, key=costs.get) == CONFIDENCE_ALPHA / 0.05


def test_sky_is_not_scored(world):
    batch = make_batch(world)
    assert (~batch.valid).any(), "the fixture needs some sky"
    output = perfect(batch)
    wild = torch.where(batch.valid[..., None], output.depth, 1e3)
    assert losses(output._replace(depth=wild), batch) == losses(output, batch)


def test_each_head_pulls_with_its_share():
    gradients = {"depth": [torch.tensor([3.0, 4.0])], "camera": [torch.tensor([0.0, 500.0])]}
    norms = {"depth": 5.0, "camera": 500.0}
    (total,) = balanced_gradients(gradients, norms, {"depth": 1.0, "camera": 0.5})
    assert torch.allclose(total, torch.tensor([0.6, 0.8 + 0.5]))


def test_a_head_without_a_share_stays_as_it_was(world):
    trainer = make_trainer()
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    values = trainer.train_step([make_batch(regroup(world, 4))])
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("depth_head.") for k in changed) and values["camera"] > 0
    assert not any(k.startswith("camera_head.") for k in changed)


def test_the_camera_head_begins_with_centred_tokens(world):
    trainer = make_trainer(learning_rate=0.0)
    batch = make_batch(regroup(world, 2))
    head, heard = trainer.model.camera_head, []
    trainer.train_step([batch])
    fresh = copy.deepcopy(head.state_dict())
    trainer.train_step([batch])
    assert torch.equal(head.token_norm.weight, fresh["token_norm.weight"])  # not its turn yet
    trainer.train_step([batch])
    head.token_norm.register_forward_hook(lambda _, __, out: heard.append(out.detach()))
    trainer.train_step([batch])
    tokens = heard[0].flatten(0, 1)
    spread = tokens.std(0)
    assert tokens.mean(0).abs().max() < 1e-2 and spread.max() < 1.01 and spread.median() > 0.5
    mean = trainer.mean.camera_head.token_norm
    assert torch.equal(mean.weight, head.token_norm.weight)
    assert set(head.state_dict()) == set(fresh)


@pytest.mark.parametrize("step", [0, 700, 3000, 50_000])
def test_draws_are_pure_functions_of_the_step(step):
    plan = draw(step, 14, seed=7)
    assert plan == draw(step, 14, seed=7) != draw(step, 14, seed=8)
    assert plan.height % 14 == plan.width % 14 == 0
    stage = stage_at(step)
    assert plan.views in stage.views and plan.camera == stage.camera
    pixels = plan.worlds * plan.groups * plan.views * plan.height * plan.width
    assert 0.4 < pixels / stage.budget < 2.5


def test_stages_follow_each_other():
    assert stage_at(0) is CURRICULUM[0]
    assert stage_at(CURRICULUM[0].steps) is CURRICULUM[1]
    assert stage_at(10**8) is CURRICULUM[-1]
    # Trained weights begin where several views teach everything.
    first = stage_at(steps_of_beginners())
    assert min(first.views) > 1 and not first.matching
    assert steps_of_beginners() == sum(s.steps for s in CURRICULUM[: CURRICULUM.index(first)])


def test_learning_rate_warms_up_stays_and_decays():
    config = TrainConfig(steps=100, warmup=10, decay=20, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == 0.1 and rates[10:80] == [1.0] * 70 and rates[100] == 0
    assert all(a >= b for a, b in zip(rates[80:], rates[81:], strict=False))


def test_a_run_goes_on_where_its_folder_stands(tmp_path):
    score = lambda model: validate(model, scenes=1, views=2, size=42)  # noqa: E731
    lines = []
    first = make_trainer()
    run(first, tmp_path, lines.append, stop_after=0, validator=score, workers=0)
    second = make_trainer()
    run(second, tmp_path, lines.append, validator=score, workers=0)
    assert first.step == 1 and second.step == 4
    assert "resumed at step 1" in lines


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    batches = [make_batch(photograph(make_trainer().plan(step))) for step in range(3)]
    a, b = make_trainer(), make_trainer()
    for step in range(2):
        a.train_step([batches[step]])
    b.load_state(torch.load(_saved(a, tmp_path), weights_only=True))
    a.train_step([batches[2]])
    b.train_step([batches[2]])
    for name, tensor in a.state()["mean"].items():
        assert torch.equal(tensor, b.state()["mean"][name]), name
    assert a.norms == b.norms


def _saved(trainer, folder):
    path = folder / "checkpoint.pt"
    torch.save(trainer.state(), path)
    return path


def test_a_run_leaves_log_curves_and_weights(tmp_path):
    trainer = make_trainer()
    lines = []
    score = lambda model: validate(model, scenes=1, views=2, size=42)  # noqa: E731
    checkpoint = run(trainer, tmp_path, lines.append, validator=score, workers=0)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4] and len(lines) == 2
    assert plot(tmp_path / "log.jsonl", tmp_path / "curves.png").stat().st_size > 5000
    model = load(export(checkpoint, tmp_path / "model.safetensors"), dtype="float32", device="cpu")
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, trainer.mean.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_another_networks_checkpoint_is_refused(tmp_path):
    torch.save(make_trainer().state(), tmp_path / "checkpoint.pt")
    other = VGGT(dataclasses.replace(CONFIG, camera_depth=2))
    with pytest.raises(CheckpointError, match="another network"):
        run(Trainer(other, TrainConfig()), tmp_path, print)


def test_one_batch_is_learned():
    trainer = make_trainer(learning_rate=3e-3)
    batch = make_batch(photograph(trainer.plan(3)))
    trainer.step = 3  # of the stage that teaches the camera too
    first = trainer.train_step([batch])
    for _ in range(30):
        trainer.step = 3
        last = trainer.train_step([batch])
    assert last["depth"] < 0.7 * first["depth"]
    assert last["camera"] < 0.7 * first["camera"]


def test_validation_is_deterministic_and_knows_its_baseline():
    model = initialize(VGGT(CONFIG)).eval()
    one, two = (validate(model, scenes=2, views=2, size=42) for _ in range(2))
    assert one == two
    assert 0 < one.baseline_abs_rel < 5 and 0 <= one.baseline_auc30 < 1


@pytest.mark.slow
def test_worlds_rendered_ahead_are_the_same():
    trainer = make_trainer()
    with Feed(trainer.plan, torch.device("cpu"), workers=1) as feed:
        for step in range(3):
            ours, direct = feed.get(step), make_batch(photograph(trainer.plan(step)))
            assert all(torch.equal(a, b) for a, b in zip(ours, direct, strict=True))
