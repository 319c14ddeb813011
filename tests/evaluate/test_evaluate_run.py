from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_CONFIG
from miniature_worlds import write_world

import vggt_edge as ve
from vggt_edge.errors import InputError, MissingExtraError
from vggt_edge.evaluate import baselines, evaluation, table
from vggt_edge.evaluate.baselines import colmap, constant
from vggt_edge.evaluate.datasets import dataset
from vggt_edge.evaluate.poses import pair_errors
from vggt_edge.images import read_views
from vggt_edge.model.identity import identity_of
from vggt_edge.model.vggt import VGGT
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Cameras, Prediction, Views

KINDS = ("facade", "room", "table")
AS_THEY_ARE = {"mode": "pad", "size": 28, "colmap": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    for kind in KINDS:
        write_world(folder / kind, kind, size=(28, 28))
    return folder


class Oracle:
    """Reads the truth of the pictures it is given; off by ``noise`` in depth and orientation."""

    def __init__(self, root: Path, noise: float = 0.0, identity: str | None = None):
        self.recordings = dataset("cameras").read(root, "all")
        self.noise = noise
        self.identity = identity
        self.calls: list[str] = []

    def __call__(self, views: Views) -> Prediction:
        paths = tuple(Path(source) for source in views.sources)
        recording = next(one for one in self.recordings if paths[0] in one.paths)
        order = [recording.paths.index(path) for path in paths]
        self.calls.append(recording.name)
        truth = recording[order].cameras
        poses = truth.camera_from_world.copy()
        angle = self.noise * np.arange(len(views))
        turn = np.tile(np.eye(3), (len(views), 1, 1))
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
        turn[:, 1, 0], turn[:, 0, 1] = np.sin(angle), -np.sin(angle)
        poses[:, :, :3] = turn @ poses[:, :, :3]
        depth = np.stack([recording.depth(index) for index in order])
        ramp = 1 + self.noise * np.linspace(-1, 1, depth.shape[-1])
        depth = (depth * ramp).astype(np.float32)
        depth[depth == 0] = 1
        cameras = Cameras(truth.intrinsics, poses, np.tile(views.size, (len(views), 1)))
        return Prediction(views, cameras, depth, np.ones_like(depth))


def test_the_truth_scores_perfectly_and_knowing_nothing_does_not(root, tmp_path):
    found = ve.evaluate(Oracle(root), "cameras", root=root, out=tmp_path, **AS_THEY_ARE)
    perfect, nothing = found.results
    assert [nothing.method.name, nothing.method.baseline] == ["constant", True]
    ours, theirs = found.summary(perfect), found.summary(nothing)
    for name, one in ours.items():
        best = 1.0 if table.metric(name).higher_is_better else 0.0
        # Depth pixels without truth, and neighbours of normals, are where rounding stays.
        assert one.mean == pytest.approx(best, abs=0.35 if "nc_" in name else 2e-3), name
    assert ours["abs_rel"].mean == pytest.approx(0, abs=1e-6)
    for name in ("auc30", "strict_auc30", "rta30"):
        assert theirs[name].mean == 0, "no translation has no direction to be right about"
    assert theirs["ate_relative"].mean == pytest.approx(1), "a camera that never moves"
    assert theirs["abs_rel"].mean > 0.05
    assert set(perfect.scores) == set(KINDS)


def test_constant_baseline_has_closed_form_scores(root, tmp_path):
    found = ve.evaluate(constant_copy, "cameras", root=root, out=tmp_path, **AS_THEY_ARE)
    for recording in dataset("cameras").read(root, "all"):
        depth = np.stack([recording.depth(i) for i in range(len(recording))])
        depth = depth[depth > 0].astype(np.float64)
        expected = np.mean(np.abs(np.median(depth) - depth) / depth)
        rotation, _ = pair_errors(
            np.tile(np.eye(3, 4), (len(recording), 1, 1)), recording.cameras.camera_from_world
        )
        for result in found.results:
            row = result.scores[recording.name]
            assert row["abs_rel"] == pytest.approx(expected, rel=1e-6)
            assert row["rra15"] == pytest.approx(np.mean(rotation < 15))
            assert row["found"] == 1


def constant_copy(views: Views) -> Prediction:
    return constant(views)


def test_of_two_models_the_differences_are_shown(root, tmp_path):
    models = {"good": Oracle(root, 0.05), "better": Oracle(root, 0.01)}
    found = ve.evaluate(models, "cameras", root=root, out=tmp_path, **AS_THEY_ARE)
    deltas = found.deltas()
    good, better = (found.summary(result) for result in found.models)
    for name in ("abs_rel", "auc3", "auc30"):
        assert deltas[name].mean == pytest.approx(better[name].mean - good[name].mean)
    assert deltas["abs_rel"].mean < 0 and deltas["abs_rel"].excludes_zero
    assert deltas["auc3"].mean > 0 and deltas["auc3"].excludes_zero
    lines = table.lines(found)
    header = next(line for line in lines if line.startswith("   "))
    assert header.split() == ["good", "better", "constant", "better", "-", "good"]
    row = next(line for line in lines if line.startswith("AbsRel"))
    assert row.endswith("*") and "better - good" in header
    written = json.loads((tmp_path / "cameras.json").read_text())
    assert written["deltas"]["of"] == ["better", "good"]
    assert written["deltas"]["metrics"]["abs_rel"]["mean"] == deltas["abs_rel"].mean
    assert written["left_out"] == {"colmap": "not asked for"}


def predictions(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def test_what_exists_and_matches_is_not_repeated(root, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(root, data)

    def again(identity: str | None = "a", **options) -> tuple[list[str], dict[str, int]]:
        oracle = Oracle(data, identity=identity)
        options = AS_THEY_ARE | options
        ve.evaluate({"oracle": oracle}, "cameras", root=data, out=out, **options)
        return oracle.calls, predictions(out / "oracle" / "cameras")

    calls, first = again()
    assert sorted(calls) == list(KINDS) == sorted(first)
    calls, second = again()
    assert (calls, second) == ([], first)
    assert sorted(again("b")[0]) == list(KINDS), "another model"
    assert sorted(again(None)[0]) == list(KINDS), "nobody knows which model"
    again()
    (data / "room" / "0.png").write_bytes((data / "room" / "1.png").read_bytes())
    assert again()[0] == ["room"], "another picture"
    file = out / "oracle" / "cameras" / "table.npz"
    file.write_bytes(file.read_bytes()[:-100])
    assert again()[0] == ["table"], "a damaged file"
    (out / "oracle" / "cameras" / "facade.json").write_text("{")
    assert again()[0] == ["facade"], "a damaged note"
    assert sorted(again(views=2)[0]) == list(KINDS), "other frames"


SCRIPT = """
import os, signal, sys
sys.path[:0] = {path!r}
import vggt_edge as ve
from test_evaluate_run import AS_THEY_ARE, Oracle
root, out, most = sys.argv[1:]
oracle = Oracle(root, identity="same")
def predict(views):
    if len(oracle.calls) == int(most):
        os.kill(os.getpid(), signal.SIGKILL)
    return oracle(views)
predict.identity = "same"
ve.evaluate({{"oracle": predict}}, "cameras", root=root, out=out, **AS_THEY_ARE)
print(*oracle.calls)
"""


def test_a_killed_run_goes_on_where_it_stopped(root, tmp_path):
    here = Path(__file__).parent
    code = SCRIPT.format(path=[str(here), str(here.parent)])

    def start(most: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(root), str(tmp_path), str(most)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert start(2).returncode == -signal.SIGKILL
    first = predictions(tmp_path)
    assert sorted(first) == ["facade", "room"] and not (tmp_path / "cameras.json").exists()
    finished = start(99)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["table"]
    assert {**predictions(tmp_path / "oracle"), **first} == predictions(tmp_path / "oracle")
    assert (tmp_path / "cameras.json").exists()


def test_identity_is_that_of_the_weights():
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    a, same, other = (initialize(VGGT(config), seed=seed) for seed in (1, 1, 2))
    identity = identity_of(a)
    assert identity == identity_of(same)
    assert identity != identity_of(other)
    assert identity != identity_of(same.bfloat16())
    a.camera_head.empty_pose_tokens.data[..., 3] += 1e-6
    assert identity != identity_of(a)


def test_nothing_to_score_is_said_before_any_prediction(tmp_path):
    write_world(tmp_path / "bare", "table", posed=False, measured=False)
    with pytest.raises(InputError, match=r"nothing to score in .*none of these has a truth"):
        evaluation.prepare("cameras", tmp_path)
    with pytest.raises(InputError, match=r"protocol pi3|pi3 says nothing about cameras"):
        evaluation.prepare("cameras", tmp_path, protocol="pi3")
    with pytest.raises(InputError, match="has no split train; there are all"):
        evaluation.prepare("cameras", tmp_path, split="train")


def test_limit_spreads_over_the_recordings(root):
    task = evaluation.prepare("cameras", root, limit=2)
    assert [one.name for one in task.recordings] == ["facade", "table"]
    task = evaluation.prepare("cameras", root, views=2, stride=1)
    assert [len(one) for one in task.recordings] == [2, 2, 2]


def test_names_that_would_share_a_folder_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="names must differ"):
        ve.evaluate({"constant": constant_copy}, "cameras", root=root, out=tmp_path, **AS_THEY_ARE)


def test_colmap_finds_the_cameras_of_a_textured_room(tmp_path):
    # A room that COLMAP can solve: it finds nothing, or a wrong camera, in many of them.
    folder = write_world(tmp_path / "room", "room", 4, views=4, size=(336, 448), measured=False)
    recording = dataset("cameras").read(folder, "all")[0]
    prediction = colmap(read_views(recording.paths, size=224))
    cameras = prediction.source_cameras
    assert prediction.depth is None
    assert np.allclose(cameras.camera_from_world[0], np.eye(3, 4))
    errors = pair_errors(cameras.camera_from_world, recording.cameras.camera_from_world, "strict")
    assert np.max(errors) < 3
    focal = cameras.intrinsics[:, 0, 0] / recording.cameras.intrinsics[:, 0, 0]
    assert np.allclose(focal, 1, atol=0.05)
    assert (prediction.cameras.sizes == [168, 224]).all()


def test_colmap_that_finds_nothing_says_so(root):
    recording = dataset("cameras").read(root, "all")[2]
    prediction = colmap(read_views(recording.paths, size=28, mode="pad"))
    assert np.isnan(prediction.cameras.camera_from_world).all()
    assert np.isnan(prediction.cameras.intrinsics[:, 0, 0]).all()


def test_without_pycolmap_its_row_is_missing_and_the_reason_is_given(root, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vggt-edge\[evaluate\]"):
        colmap(Views.from_images(np.zeros((1, 14, 14, 3), np.uint8)))
    options = AS_THEY_ARE | {"colmap": True}
    with pytest.warns(UserWarning, match="COLMAP baseline needs pycolmap"):
        found = ve.evaluate(constant_copy, "cameras", root=root, out=tmp_path, **options)
    assert [result.method.name for result in found.results] == ["constant_copy", "constant"]
    assert any("no colmap row: the COLMAP baseline needs" in line for line in table.lines(found))


@pytest.mark.parametrize(
    ("name", "title", "higher"),
    [
        ("auc30", "AUC@30°", True),
        ("legacy_auc5", "legacy AUC@5°", True),
        ("scale_shift_abs_rel", "scale shift AbsRel", False),
        ("se3_ate", "se3 ATE", False),
        ("ate_relative", "ATE / spread", False),
        ("fscore_0.05", "F-score@0.05", True),
        ("bounds_chamfer", "bounds Chamfer", False),
        ("log_rmse", "log RMSE", False),
        ("scale_rmse", "scale RMSE", False),
    ],
)
def test_metrics_have_names_for_people(name, title, higher):
    assert table.metric(name)[:2] == (title, higher)
