"""Accumulated steps, what a run draws, and the two ways to go on with one."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TINY_CONFIG

from vggt_edge.errors import CheckpointError
from vggt_edge.model.vggt import VGGT
from vggt_edge.train.batch import make_batch
from vggt_edge.train.checkpoints import resume, save_checkpoint
from vggt_edge.train.curriculum import Stage, draw
from vggt_edge.train.feed import _build_arrays, _shoot, photograph
from vggt_edge.train.initialize import initialize
from vggt_edge.train.loop import SNAPSHOTS, run
from vggt_edge.train.snapshot import INDEX, resume_snapshot, write_snapshot
from vggt_edge.train.trainer import HELD_OUT, TRAINED_KINDS, TrainConfig, Trainer, learning_rate
from vggt_edge.train.validate import validate
from vggt_edge.worlds import KINDS

CONFIG = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
STAGES = (Stage(10**9, (2,), (42**2,), 2 * 42**2, (0.8, 1.0), 0.5),)


def make_trainer(**changes) -> Trainer:
    config = TrainConfig(steps=4, warmup=1, decay=2, every=2, bf16=False, **changes)
    return Trainer(initialize(VGGT(CONFIG)), config, STAGES)


def batches(trainer, step):
    first = step * trainer.config.accumulate
    for index in range(first, first + trainer.config.accumulate):
        yield make_batch(photograph(trainer.plan(index)))


def equal(a: Trainer, b: Trainer) -> bool:
    ours, theirs = a.state(), b.state()
    same = [
        torch.equal(ours[part][name], theirs[part][name])
        for part in ("model", "mean", "teacher")
        for name in ours[part]
    ]
    return all(same) and a.norms == b.norms and a.step == b.step


def test_accumulated_batches_are_drawn_each_on_its_own():
    trainer = make_trainer(accumulate=3)
    plans = [trainer.plan(index) for index in range(6)]
    assert len({plan.seed for plan in plans}) == 6
    alone = make_trainer()
    assert [plans[0], plans[3]] == [alone.plan(0), alone.plan(1)]
    assert draw(5, 14, 0, part=2) == draw(5, 14, 0, part=2) != draw(5, 14, 0, part=1)


def test_accumulating_the_same_batch_is_one_step_with_it():
    once, thrice = make_trainer(), make_trainer(accumulate=3)
    batch = make_batch(photograph(once.plan(0)))
    one, three = once.train_step([batch]), thrice.train_step([batch] * 3)
    assert three["images"] == 3 * one["images"] and three["rate"] == one["rate"]
    for name in ("norm", "depth", "camera", "match"):
        assert three[name] == pytest.approx(one[name], rel=1e-4)
    assert once.step == thrice.step == 1
    # The optimiser's first step goes by the sign alone, so that a gradient of rounding may differ.
    pairs = zip(once.mean.parameters(), thrice.mean.parameters(), strict=True)
    close = torch.cat([(a - b).abs().flatten() < 1e-6 for a, b in pairs])
    assert close.float().mean() > 0.99


def test_an_accumulated_run_goes_on_bit_for_bit(tmp_path):
    whole, broken, resumed = (make_trainer(accumulate=2) for _ in range(3))
    for step in range(3):
        whole.train_step(batches(whole, step))
    broken.train_step(batches(broken, 0))
    save_checkpoint(broken, tmp_path / "checkpoint.pt")
    resume(resumed, tmp_path / "checkpoint.pt")
    for step in (1, 2):
        resumed.train_step(batches(resumed, step))
    assert equal(whole, resumed)


def test_a_new_run_never_draws_the_kinds_held_out():
    trainer = make_trainer()
    assert trainer.kinds == TRAINED_KINDS and not set(TRAINED_KINDS) & set(HELD_OUT)
    assert set(TRAINED_KINDS) | set(HELD_OUT) == set(KINDS)
    assert trainer.plan(7).kinds == TRAINED_KINDS


def test_kinds_are_what_is_rendered():
    plan = dataclasses.replace(make_trainer().plan(0), kinds=("terrace",))
    rest = dataclasses.replace(plan, kinds=("object",))
    assert not torch.equal(photograph(plan).images, photograph(rest).images)
    every = dataclasses.replace(plan, kinds=KINDS)
    none = dataclasses.replace(plan, kinds=None)
    assert torch.equal(photograph(every).images, photograph(none).images)


def old_checkpoint(path):
    """As runs wrote it that could not choose what they draw."""
    state = make_trainer().state()
    new = ("accumulate", "kinds", "data", "pictures")
    state["config"] = {k: v for k, v in state["config"].items() if k not in new}
    del state["sources"], state["warm_from"]
    torch.save(state, path)


def test_an_old_run_goes_on_with_all_kinds(tmp_path):
    path = tmp_path / "checkpoint.pt"
    old_checkpoint(path)
    trainer = make_trainer()
    resume(trainer, path)
    assert trainer.kinds == KINDS and trainer.plan(0).kinds == KINDS
    save_checkpoint(trainer, path)
    again = make_trainer()
    resume(again, path)
    assert again.kinds == KINDS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kinds": TRAINED_KINDS}, "kinds"),
        ({"accumulate": 2}, "accumulate"),
        ({"data": 0.5}, "data"),
        ({"seed": 1}, "seed"),
    ],
)
def test_other_draws_are_refused(tmp_path, changes, named):
    old_checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=f"drawn with {named}"):
        resume(make_trainer(**changes), tmp_path / "checkpoint.pt")


def test_other_data_is_refused(tmp_path):
    class Other:
        digest = "other"

        def read(self, plan):
            raise NotImplementedError

    old_checkpoint(tmp_path / "checkpoint.pt")
    trainer = make_trainer()
    trainer.sources = {"data": Other()}
    with pytest.raises(CheckpointError, match="other data or pictures"):
        resume(trainer, tmp_path / "checkpoint.pt")


def test_a_snapshot_is_small_files_and_all_weights(tmp_path):
    trainer = make_trainer()
    trainer.train_step(batches(trainer, 0))
    limit = 200_000
    index = write_snapshot(trainer, tmp_path, limit)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size <= limit for file in files)
    assert json.loads(index.read_text())["files"] == [file.name for file in files]
    other = make_trainer()
    resume_snapshot(other, index)
    assert other.step == 1 and other.norms == trainer.norms and other.kinds == trainer.kinds
    for part in ("model", "mean", "teacher"):
        for name, tensor in getattr(trainer, part).state_dict().items():
            found = getattr(other, part).state_dict()[name]
            assert torch.equal(found, tensor.half().float()), name
    assert not other.optimizer.state_dict()["state"]
    trainer.train_step(batches(trainer, 1))
    write_snapshot(trainer, tmp_path, limit)
    assert not any(file.exists() for file in files), "only the last snapshot is kept"


def test_after_a_snapshot_the_rate_warms_up_again():
    config = TrainConfig(steps=100, warmup=10, decay=20, learning_rate=1.0)
    rates = [learning_rate(step, config, 40) for step in range(40, 101)]
    assert rates[0] == 0.1 and rates[9:40] == [1.0] * 31 and rates[60] == 0
    fresh = [learning_rate(step, config) for step in range(101)]
    assert rates[9:] == fresh[49:]


@pytest.mark.parametrize("damage", ["missing", "cut", "index"])
def test_a_damaged_snapshot_is_refused(tmp_path, damage):
    index = write_snapshot(make_trainer(), tmp_path, 200_000)
    file = min(tmp_path.glob("*.safetensors"))
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        index.write_text(index.read_text()[:-20])
    with pytest.raises(CheckpointError, match="snapshot"):
        resume_snapshot(make_trainer(), index)


def test_a_folder_with_only_a_snapshot_goes_on(tmp_path):
    lines = []
    score = lambda model: validate(model, scenes=1, views=2, size=42)  # noqa: E731
    first = make_trainer()
    options = {"validator": score, "workers": 0, "snapshot_every": 1e9}
    run(first, tmp_path, lines.append, stop_after=0, **options)
    assert (tmp_path / SNAPSHOTS / INDEX).exists(), "the end leaves a snapshot"
    (tmp_path / "checkpoint.pt").unlink()
    second = make_trainer()
    run(second, tmp_path, lines.append, **options)
    assert second.step == 4 and second.warm_from == 1
    assert "resumed the weights of step 1, without the optimiser's memory" in lines
    third = make_trainer()
    resume(third, tmp_path / "checkpoint.pt")
    assert equal(second, third) and third.warm_from == 1


def test_worlds_built_for_a_gpu_are_the_same_worlds():
    """What runs beside a GPU, run here on the CPU: the way there, not the GPU itself."""
    plan = dataclasses.replace(make_trainer().plan(0), worlds=3, groups=2)
    built = _build_arrays(plan, "cuda")
    assert len(built) == 1, "a GPU gets many scenes at once"
    ours = _shoot(built, plan, torch.device("cpu"))
    direct = make_batch(photograph(plan))
    for name, a, b in zip(direct._fields, ours, direct, strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-3, rtol=1e-3), name
