"""Executors without a cluster: packing, sharing out machines, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import socket
import sys
import time

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG

from vggt_edge import cli
from vggt_edge.attention import describer, make_sparse
from vggt_edge.compress.compress import compress
from vggt_edge.distribute import LocalExecutor, RayExecutor
from vggt_edge.distribute.cluster import last_line, share_out
from vggt_edge.distribute.packing import pack, unpack
from vggt_edge.errors import InputError, LostItemsError, MissingExtraError
from vggt_edge.model.vggt import VGGT
from vggt_edge.outputs.frames import read_stream, write_stream
from vggt_edge.retrieval import descriptors
from vggt_edge.scene.cluster_passes import run_passes
from vggt_edge.scene.cluster_store import ClusterStore
from vggt_edge.stream import AnchorStream
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Cameras, Prediction, Views

ray = pytest.importorskip("ray")


def some_views(count: int = 5) -> Views:
    pixels = np.random.default_rng(3).integers(0, 256, (count, 42, 56, 3), dtype=np.uint8)
    return Views.from_images(pixels)


def a_model(scheme: str | None = None) -> VGGT:
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    model = initialize(VGGT(config), seed=1).eval().requires_grad_(False)
    if scheme:
        compress(model, scheme, method="nearest")
    return make_sparse(model, "anchors", k=2)


def test_the_local_executor_is_lazy_and_in_order():
    drawn = []
    results = LocalExecutor().map(lambda x: x * x, (drawn.append(i) or i for i in range(4)))
    assert drawn == []
    assert next(iter(results)) == 0 and drawn == [0]
    assert list(results) == [1, 4, 9]


@pytest.mark.parametrize("scheme", [None, "w8a8", "w4a8-g32"])
def test_a_packed_stream_is_the_same_and_shares_memory(scheme):
    stream = AnchorStream(a_model(scheme))
    views = some_views()
    stream.start(views[[0, 1]])
    expected = stream.add(views[[2, 3, 4]])
    data, buffers = pack(stream.add)
    kept = sum(buffer.nbytes for buffer in buffers)
    weights = [*stream.model.parameters(), *stream.model.buffers()]
    assert kept >= sum(one.nbytes for one in weights) and len(data) < kept
    for buffer in buffers:
        buffer.setflags(write=False)  # as it comes from the object store
    before = [buffer.copy() for buffer in buffers]
    again = unpack((data, buffers))
    result = again(views[[2, 3, 4]])
    assert np.array_equal(result.depth, expected.depth)
    ours, theirs = result.cameras.camera_from_world, expected.cameras.camera_from_world
    assert np.array_equal(ours, theirs)
    assert all(np.array_equal(a, b) for a, b in zip(before, buffers, strict=True))
    addresses = {buffer.ctypes.data for buffer in buffers}
    shared = sum(p.data_ptr() in addresses for p in again.__self__.model.parameters())
    assert shared == len(list(again.__self__.model.parameters()))


def test_packing_keeps_every_kind_of_tensor():
    tied = torch.nn.Parameter(torch.randn(3, 4))
    some = {
        "bf16": torch.randn(5).bfloat16(),
        "strided": torch.randn(6, 4).t(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 7),
        "flags": torch.tensor([True, False]),
        "tied": [tied, tied],
        "array": np.arange(6).reshape(2, 3),
    }
    back = unpack(pack(some))
    for name in ("bf16", "strided", "scalar", "empty", "flags"):
        assert back[name].dtype == some[name].dtype and torch.equal(back[name], some[name])
    assert isinstance(back["tied"][0], torch.nn.Parameter)
    assert back["tied"][0] is back["tied"][1]
    assert np.array_equal(back["array"], some["array"])


def test_a_stream_travels_without_the_room_beside_its_keys():
    stream = AnchorStream(a_model())
    stream.start(some_views(2))
    there = pickle.loads(pickle.dumps(stream.cache.tensors()))
    twin = pickle.loads(pickle.dumps(stream.add)).__self__
    assert twin.cache.nbytes == sum(t.nbytes for t in there.values()) < stream.cache.nbytes


def test_a_stream_travels_without_the_network_that_chose_its_anchors():
    model = a_model()
    alone = len(pickle.dumps(AnchorStream(model)))
    retrieval = torch.nn.Linear(1000, 1000)
    make_sparse(model, "anchors", k=model.sparsity.anchors, retrieval=retrieval)
    stream = AnchorStream(model)
    packed = pickle.dumps(stream.add)
    assert len(packed) < alone + 1000
    twin = pickle.loads(packed).__self__
    assert describer(twin.model) is twin.model and twin.sparsity == stream.sparsity
    assert describer(stream.model) is retrieval, "it stays here"


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([node(8), node(8)], None, 0, (2, 8)),
        ([node(8), node(4)], None, 0, (2, 4)),
        ([node(8), node(8)], 4, 0, (4, 4)),
        ([node(8), node(8)], 5, 0, (5, 2)),
        ([node(8), node(8, alive=False)], None, 0, (1, 8)),
        ([node(1), node(1)], 2, 0, (2, 1)),
        ([node(1), node(1)], 9, 0, (9, 1)),
        ([node(0), node(2)], None, 0, (1, 2)),
        ([node(16, 8), node(16, 8)], None, 1, (16, 2)),
        ([node(16, 1), node(64)], None, 1, (1, 16)),
        ([node(16, 1)], None, 0.5, (2, 8)),
    ],
)
def test_machines_are_shared_out(nodes, workers, gpus, expected):
    assert share_out(nodes, workers, gpus) == expected


@pytest.mark.parametrize(("nodes", "gpus"), [([node(0)], 0), ([node(8)], 1), ([], 0)])
def test_a_cluster_without_room_is_refused(nodes, gpus):
    with pytest.raises(InputError, match="no machine of the cluster has"):
        share_out(nodes, None, gpus)


def test_what_ray_says_in_a_line():
    error = RuntimeError("The actor died.\n\nNode 7 is gone. Some common causes include: rain.\n")
    assert last_line(error) == "Node 7 is gone"
    assert last_line(RuntimeError()) == "RuntimeError"


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vggt-edge\[ray\]'"):
        RayExecutor()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "dask", "--stream"), "unknown executor 'dask': use local, ray"),
        (("--workers", "2", "--stream"), "--address and --workers are for --executor ray"),
        (("--executor", "ray"), "add --stream, --clusters or --cluster-size"),
        (("--executor", "ray", "--stream", "--address", "PORT"), "no Ray at 127.0.0.1:"),
        (("--executor", "ray", "--stream", "--address", "nowhere"), "is no address of Ray"),
        (("--executor", "ray", "--stream", "--address", "ray://a:1"), "join the cluster on one of"),
    ],
)
def test_what_the_command_refuses(tmp_path, monkeypatch, capsys, options, message):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    options = [f"127.0.0.1:{free_port()}" if one == "PORT" else one for one in options]
    given = ["vggt-edge", "reconstruct", str(tmp_path), "-o", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", given)
    begin = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert time.monotonic() - begin < 10


class Backwards:
    """An executor whose results come last first."""

    def map(self, function, items):
        return reversed([function(item) for item in items])


def test_descriptors_do_not_depend_on_the_order_of_results():
    views, model = some_views(30), a_model()
    there = descriptors(model, views, executor=Backwards())
    assert np.array_equal(there, descriptors(model, views))


def test_a_folder_does_not_depend_on_the_order_of_results(tmp_path):
    views, model = some_views(9), a_model()
    for name, executor in (("here", None), ("there", Backwards())):
        list(write_stream(model, views, tmp_path / name, batch=2, executor=executor))
    here, there = read_stream(tmp_path / "here"), read_stream(tmp_path / "there")
    assert here.views.names == there.views.names == views.names
    assert np.array_equal(here.depth, there.depth)


class Forgetful:
    """An executor that loses one item for good."""

    def map(self, function, items):
        for item in items:
            if item[0] != 1:
                yield function(item)
        raise LostItemsError("1 of 3 items were given up")


def test_a_pass_that_is_lost_for_good_is_named(tmp_path):
    def predictor(views: Views) -> Prediction:
        count, (height, width) = len(views), views.size
        eye = np.tile(np.eye(3, 4), (count, 1, 1))
        cameras = Cameras(eye[:, :, :3], eye, np.tile([height, width], (count, 1)))
        return Prediction(views, cameras, np.ones((count, height, width), np.float32))

    store = ClusterStore(tmp_path, "some")
    failed = run_passes(predictor, some_views(6), [(0, 1), (2, 3), (4, 5)], store, Forgetful())
    assert failed == {1: "1 of 3 items were given up"}
    assert len(list(tmp_path.iterdir())) == 2
