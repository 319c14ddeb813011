from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from safetensors import SafetensorError

from vggt_edge import stream
from vggt_edge.attention import make_sparse
from vggt_edge.errors import InputError, OutputError
from vggt_edge.model.vggt import VGGT
from vggt_edge.outputs import frames, npz
from vggt_edge.outputs.frames import read_stream, write_stream
from vggt_edge.predict import predict
from vggt_edge.stream import predict_stream
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Views

VIEWS, ANCHORS = 8, [0, 3, 6]


@pytest.fixture
def model() -> VGGT:
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    network = initialize(VGGT(config), seed=1).eval().requires_grad_(False)
    for block in network.aggregator.global_blocks:
        block.ls1.gamma.fill_(1.0)
    return make_sparse(network, "anchors", k=3)


@pytest.fixture
def views() -> Views:
    random = np.random.default_rng(3)
    return Views.from_images(random.integers(0, 256, (VIEWS, 28, 42, 3), dtype=np.uint8))


def assert_close(a, b) -> None:
    assert a.views.names == b.views.names
    assert np.array_equal(a.views.images, b.views.images)
    for name in ("depth", "depth_confidence"):
        assert np.allclose(getattr(a, name), getattr(b, name), rtol=1e-5), name
    for name in ("intrinsics", "camera_from_world"):
        assert np.allclose(getattr(a.cameras, name), getattr(b.cameras, name), atol=1e-5), name


def reference(model, views):
    plan = model.sparsity.plan(len(views), model.config.depth, anchors=ANCHORS)
    return predict(model, views, plan=plan)


def test_what_is_written_is_the_one_shot_result(model, views, tmp_path):
    yielded = list(write_stream(model, views, tmp_path / "out", anchors=ANCHORS, batch=2))
    assert [len(p.views) for p in yielded] == [3, 2, 2, 1]
    assert_close(read_stream(tmp_path / "out"), reference(model, views))


def test_files_are_there_when_a_prediction_is_yielded(model, views, tmp_path):
    names = []
    for prediction in write_stream(model, views, tmp_path, anchors=ANCHORS, batch=1):
        names += prediction.views.names
        lines = (tmp_path / frames.MANIFEST).read_text().splitlines()
        assert [json.loads(line)["name"] for line in lines[1:]] == names
        assert all((tmp_path / json.loads(line)["file"]).exists() for line in lines[1:])
        row = json.loads(lines[-1])
        assert np.allclose(row["camera_from_world"], prediction.cameras.camera_from_world[-1])


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_a_stopped_run_goes_on_and_repeats_nothing(model, views, tmp_path, monkeypatch, steps):
    run = stream.run
    ran: list[str] = []

    def watched(network, some, *rest, **more):
        ran.extend(some.names)
        return run(network, some, *rest, **more)

    monkeypatch.setattr(stream, "run", watched)
    begun = write_stream(model, views, tmp_path, anchors=ANCHORS, batch=2)
    for _ in range(steps):
        next(begun)
    begun.close()
    if steps > 1:  # a kill in the middle of a line
        with (tmp_path / frames.MANIFEST).open("a") as file:
            file.write('{"name": "view_00')
    # A window of one view: that anchors are given shows nothing is chosen anew.
    rest = write_stream(model, views, tmp_path, anchors=None if steps else ANCHORS, batch=2)
    list(rest)
    assert sorted(ran) == sorted(views.names)
    assert_close(read_stream(tmp_path), reference(model, views))
    assert list(write_stream(model, views, tmp_path)) == []
    assert sorted(ran) == sorted(views.names)


def test_a_disk_full_of_anchors_begins_anew(model, views, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(OutputError, match=r"anchors\.safetensors: .*No space left"):
            next(write_stream(model, views, tmp_path, anchors=ANCHORS))
    assert not (tmp_path / frames.MANIFEST).exists()
    list(write_stream(model, views, tmp_path, anchors=ANCHORS))
    assert_close(read_stream(tmp_path), reference(model, views))


def test_a_view_whose_file_was_removed_is_run_again(model, views, tmp_path):
    list(write_stream(model, views, tmp_path, anchors=ANCHORS))
    (tmp_path / "frames" / "view_0004.npz").unlink()
    new = [name for p in write_stream(model, views, tmp_path) for name in p.views.names]
    assert new == ["view_0004"]
    assert_close(read_stream(tmp_path), reference(model, views))


def test_more_views_of_the_source_come_later(model, views, tmp_path):
    first = (views[[i]] for i in range(5))
    list(write_stream(model, first, tmp_path, anchors=[0, 3], window=5))
    everything = (views[[i]] for i in range(VIEWS))
    new = [name for p in write_stream(model, everything, tmp_path) for name in p.views.names]
    assert new == list(views.names[5:])
    plan = model.sparsity.plan(VIEWS, model.config.depth, anchors=[0, 3])
    assert_close(read_stream(tmp_path), predict(model, views, plan=plan))


@pytest.mark.parametrize("change", ["weights", "k", "heads", "dtype"])
def test_a_folder_of_another_run_is_left_alone(model, views, tmp_path, change):
    list(write_stream(model, views, tmp_path, anchors=ANCHORS))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    heads = None
    if change == "weights":
        model.depth_head.norm.weight.add_(1)
    elif change == "k":
        make_sparse(model, "anchors", k=4)
    elif change == "heads":
        heads = ("depth",)
    else:
        model.to(torch.bfloat16)
    with pytest.raises(OutputError, match="another network or of other options"):
        next(write_stream(model, views, tmp_path, heads=heads))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_lost_anchors_are_named(model, views, tmp_path):
    list(write_stream(model, views, tmp_path, anchors=ANCHORS))
    (tmp_path / frames.ANCHORS).write_bytes(b"nonsense")
    with pytest.raises(OutputError, match="begin anew"):
        next(write_stream(model, views, tmp_path))


def test_folders_that_hold_no_stream(tmp_path):
    with pytest.raises(InputError, match="no streamed views"):
        read_stream(tmp_path)
    (tmp_path / frames.MANIFEST).write_text('{"format": "other"}\n')
    with pytest.raises(OutputError, match="not of this version"):
        read_stream(tmp_path)


@pytest.mark.parametrize("where", ["frame", "manifest"])
def test_a_disk_that_fills_up_loses_nothing(model, views, tmp_path, monkeypatch, where):
    begun = write_stream(model, views, tmp_path, anchors=ANCHORS, batch=1)
    next(begun), next(begun)
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        if where == "frame":
            patch.setattr(npz.np.lib.format, "write_array", full)
        else:
            patch.setattr(frames, "_line", full)
        with pytest.raises(OutputError, match="No space left on device; .*free some space"):
            next(begun)
    new = list(write_stream(model, views, tmp_path, batch=1))
    assert len(new) == VIEWS - len(ANCHORS) - 1
    assert_close(read_stream(tmp_path), reference(model, views))


def test_without_cameras(model, views, tmp_path):
    list(write_stream(model, views, tmp_path, heads=("depth",), anchors=ANCHORS))
    found = read_stream(tmp_path)
    assert found.cameras is None and found.depth.shape == (VIEWS, 28, 42)
    depths = [p.depth for p in predict_stream(model, views, heads=("depth",), anchors=ANCHORS)]
    assert np.array_equal(np.concatenate(depths)[:3], found.depth[ANCHORS])
