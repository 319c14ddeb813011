"""A real Ray cluster: three node processes on this machine, each of one processor."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_CONFIG, make_views_matter
from PIL import Image

import vggt_edge as ve
from vggt_edge import cli
from vggt_edge.attention import make_sparse, plan_for
from vggt_edge.distribute import RayExecutor
from vggt_edge.errors import InputError, LostItemsError, WorkerError
from vggt_edge.model.vggt import VGGT
from vggt_edge.outputs.frames import finished, read_stream, write_stream
from vggt_edge.scene.reconstruct_clusters import reconstruct_clusters
from vggt_edge.stream import AnchorStream, predict_stream
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Cameras, Prediction, Views

ray = pytest.importorskip("ray")
# Workers cannot import this file; what they run of it travels with its code.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
STORE = 80 << 20  # bytes of object store of each node, about the least that Ray takes


def processes() -> set[int]:
    """Of Ray, on this machine."""
    import psutil

    names = ("raylet", "gcs_server", "ray::")
    found = psutil.process_iter(["name", "cmdline"])
    return {
        one.pid
        for one in found
        if any(
            word in " ".join([one.info["name"] or "", *(one.info["cmdline"] or [])[:1]])
            for word in names
        )
    }


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = processes()
    node = {"num_cpus": 1, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for i in range(2):
            made.add_node(**node, resources={f"node_{i}": 1})
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        deadline = time.monotonic() + 20
        while (left := processes() - before) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, "processes of Ray are left"


@pytest.fixture(scope="module")
def model() -> VGGT:
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth"))
    network = initialize(VGGT(config), seed=1).eval().requires_grad_(False)
    return make_sparse(make_views_matter(network), "anchors", k=3, stride=2)


def some_views(count: int) -> Views:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return Views.from_images(coarse.repeat(7, axis=1).repeat(7, axis=2))


def by_name(predictions) -> dict[str, tuple[np.ndarray, ...]]:
    found = {}
    for one in predictions:
        for i, name in enumerate(one.views.names):
            assert name not in found, f"{name} came twice"
            cameras = one.cameras
            found[name] = (
                one.depth[i],
                one.depth_confidence[i],
                cameras.camera_from_world[i],
                cameras.intrinsics[i],
            )
    return found


def assert_bit_for_bit(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, arrays in a.items():
        assert all(np.array_equal(x, y) for x, y in zip(arrays, b[name], strict=True)), name


def test_a_ray_of_its_own_gives_the_same_bits(model):
    """The quick one: no cluster, one worker in another process."""
    views = some_views(9)
    local = by_name(predict_stream(model, views, batch=2))
    with RayExecutor("local", workers=1) as executor:
        assert executor.threads == ray.cluster_resources()["CPU"]
        executor.threads = 1  # as this process has
        found = list(predict_stream(model, views, batch=2, executor=executor))
    assert not ray.is_initialized()
    assert_bit_for_bit(by_name(found), local)
    found[-1].depth[0] = 0  # results belong to the caller


def test_results_come_while_the_source_is_silent():
    """The source gives the second item only when the result of the first is there."""
    came = threading.Event()

    def items():
        yield -1
        assert came.wait(120), "the result waited for the next item"
        yield -2

    with RayExecutor("local", workers=1, patience=240) as executor:
        found = []
        for result in executor.map(abs, items()):
            found.append(result)
            came.set()
    assert found == [1, 2]


@pytest.mark.slow
def test_a_stream_over_three_nodes_is_the_local_one(model, cluster):
    views = some_views(24)
    local = by_name(predict_stream(model, views, batch=2))
    with RayExecutor(cluster.address) as executor:
        assert (executor.workers, executor.threads) == (3, 1)
        found = predict_stream(model, views, batch=2, executor=executor)
        assert_bit_for_bit(by_name(found), local)
        with pytest.raises(InputError, match="is not a multiple"):
            list(executor.map(_refuse, range(3)))
        places = set(executor.map(lambda i: time.sleep(0.5) or os.getpid(), range(12)))
        assert len(places) == 3 and os.getpid() not in places
        values = list(executor.map(lambda i: i, iter(range(50))))
        assert sorted(values) == list(range(50))


def _refuse(item: int) -> int:
    raise InputError(f"{item} is not a multiple of anything")


class Truth:
    """A predictor that knows the answer, and kills its own process where it is told to."""

    def __init__(self, marks: Path, deadly: str = "", always: bool = False) -> None:
        self.marks, self.deadly, self.always = marks, deadly, always

    def __call__(self, views: Views) -> Prediction:
        (self.marks / f"{views.names[0]}-{os.getpid()}-{time.monotonic_ns()}").touch()
        if self.deadly in views.names and self.deadly:
            seen = self.marks / "killed"
            if self.always or not seen.exists():
                seen.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        numbers = np.array([int(name[5:]) for name in views.names], float)
        count, (height, width) = len(views), views.size
        pose = np.tile(np.eye(3, 4), (count, 1, 1))
        pose[:, 0, 3] = -0.1 * numbers
        pose[:, 0, 3] += 0.1 * numbers[0]
        intrinsics = np.tile([[50.0, 0, width / 2], [0, 50, height / 2], [0, 0, 1]], (count, 1, 1))
        depth = 2 + views.images[..., 0].astype(np.float32) / 255
        sizes = np.tile([height, width], (count, 1))
        return Prediction(views, Cameras(intrinsics, pose, sizes), depth, depth)


DIALS = {"in_order": True, "size": 8, "overlap": 4}


@pytest.mark.slow
def test_clusters_lose_nothing_when_a_worker_is_killed(cluster, tmp_path, caplog):
    views = some_views(24)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    (local,) = reconstruct_clusters(Truth(here), views, **DIALS).scenes
    with RayExecutor(cluster.address) as executor, caplog.at_level(logging.WARNING):
        truth = Truth(there, deadly="view_0012")
        result = reconstruct_clusters(truth, views, executor=executor, **DIALS)
    (scene,) = result.scenes
    assert (there / "killed").exists() and "a worker was lost" in caplog.text
    assert result.left_out == {} and len(result.clusters) >= 5
    assert_bit_for_bit(by_name([scene.prediction]), by_name([local.prediction]))
    assert np.array_equal(scene.points, local.points)


@pytest.mark.slow
def test_a_cluster_that_always_kills_is_left_out_by_name(cluster, tmp_path):
    views = some_views(16)
    with RayExecutor(cluster.address, attempts=2) as executor:
        truth = Truth(tmp_path, deadly="view_0015", always=True)
        result = reconstruct_clusters(truth, views, executor=executor, **DIALS)
        with pytest.raises(LostItemsError, match="2 of 4 items were given up, the first number 1"):
            list(executor.map(_die_if_odd, range(4)))
    assert "view_0015" in result.left_out
    assert "given up" in result.left_out["view_0015"]
    assert "view_0000" in result.scenes[0].views.names


def _die_if_odd(item: int) -> int:
    if item % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.slow
def test_a_full_object_store_spills(cluster):
    """Ten items of 24 MB and their results, through stores of 80 MB."""
    random = np.random.default_rng(0)
    big = [random.integers(0, 255, 24 << 20, dtype=np.uint8) for _ in range(3)]
    held = []
    with RayExecutor(cluster.address, workers=2) as executor:
        # Taken up by somebody else, so that there is no room for what is to come.
        held += [ray.put(one) for one in big]
        items = ((i, np.roll(big[i % 3], i)) for i in range(10))
        found = dict(executor.map(lambda item: (item[0], item[1][::-1].copy()), items))
        assert all(np.array_equal(ray.get(a), b) for a, b in zip(held, big, strict=True))
        session = Path(cluster.head_node.get_session_dir_path())
        spilled = [one.stat().st_size for one in session.glob("ray_spilled_objects_*/*")]
        assert sum(spilled) > 24 << 20
        held.clear()
    for i in range(10):
        assert np.array_equal(found[i], np.roll(big[i % 3], i)[::-1])


@pytest.mark.slow
def test_the_command_over_the_cluster(cluster, model, tmp_path, monkeypatch, capsys):
    weights = ve.save(make_sparse(model, "dense"), tmp_path / "tiny.safetensors")
    make_sparse(model, "anchors", k=3, stride=2)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, image in enumerate(some_views(12).images):
        Image.fromarray(image).save(pictures / f"{i:02d}.png")

    def reconstruct(out: str, *options: str) -> dict:
        given = ["vggt-edge", "reconstruct", pictures, "-m", weights, "-o", tmp_path / out]
        given += ["--size", "56", "--json", "--dtype", "float32", *options]
        monkeypatch.setattr(sys, "argv", [*map(str, given)])
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code:
                pytest.fail(capsys.readouterr().err)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    remote = ("--executor", "ray", "--address", cluster.address, "--workers", "2")
    parts = ("--stream", "--anchors", "3")
    assert reconstruct("local", *parts)["new"] == 12
    assert reconstruct("ray", *parts, *remote)["new"] == 12
    assert not ray.is_initialized()
    local, found = read_stream(tmp_path / "local"), read_stream(tmp_path / "ray")
    assert_bit_for_bit(by_name([found]), by_name([local]))
    parts = ("--cluster-size", "6", "--keep-outliers", "-f", "npz")
    local, found = reconstruct("c", *parts), reconstruct("d", *parts, *remote)
    assert local["parts"] == found["parts"] and local["points"] == found["points"]


def _add_slowly(add, item):
    """Who ran it, which view it is, and its Prediction."""
    number, views = item
    time.sleep(0.2)
    return os.getpid(), number, add(views)


@pytest.mark.slow
def test_a_killed_node_is_survived_and_then_all_of_them(model, cluster, tmp_path, caplog):
    """Comes last: it takes the cluster apart."""
    views = some_views(40)
    local = by_name(predict_stream(model, views, batch=1))
    begun = AnchorStream(model)
    anchors = list(plan_for(model, views).anchors)
    begun.start(views[anchors])
    others = [i for i in range(len(views)) if i not in anchors]
    seen: set[int] = set()
    found: dict[int, Prediction] = {}
    left = 12

    def items():
        """Of as many as it takes until all three work, and some more after the kill."""
        nonlocal left
        for number in itertools.count():
            if len(seen) >= 3:
                left -= 1
            if left < 0 or number > 3000:
                return
            yield number, views[[others[number % len(others)]]]

    with RayExecutor(cluster.address) as executor, caplog.at_level(logging.WARNING):
        assert executor.workers == 3
        killed = False
        slow = functools.partial(_add_slowly, begun.add)
        for worker, number, prediction in executor.map(slow, items()):
            assert number not in found, f"{number} came twice"
            found[number] = prediction
            seen.add(worker)
            if len(seen) == 3 and not killed:
                killed = True
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert killed and "a worker was lost" in caplog.text
    assert sorted(found) == list(range(len(found))), "nothing is missing"
    for prediction in found.values():
        (ours,) = by_name([prediction]).items()
        assert_bit_for_bit(dict([ours]), {ours[0]: local[ours[0]]})
    with RayExecutor(cluster.address, workers=1) as executor:
        stream = write_stream(model, views, tmp_path, batch=1, executor=executor)
        next(stream), next(stream)
        # Others take every processor: one now, one as soon as the worker is gone.
        blockers = [ray.remote(num_cpus=1)(_Blocker).remote() for _ in range(2)]
        ray.get(blockers[0].wait.remote(), timeout=60)
        executor.patience = 3
        for process in processes():
            _kill_worker(process)
        with pytest.raises(WorkerError, match="no worker is left, .* run it again"):
            list(stream)
        for blocker in blockers:
            ray.kill(blocker)
    before = finished(tmp_path)
    assert 4 <= len(before) < 40
    list(write_stream(model, views, tmp_path, batch=1))
    assert_bit_for_bit(by_name([read_stream(tmp_path)]), local)


class _Blocker:
    def wait(self) -> None:
        pass


def _kill_worker(pid: int) -> None:
    import psutil

    try:
        if "ray::Worker" in "".join(psutil.Process(pid).cmdline()[:1]):
            os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
