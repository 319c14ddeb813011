from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG, make_views_matter

from vggt_edge import memory
from vggt_edge.attention import make_sparse
from vggt_edge.errors import InputError, TooLargeError
from vggt_edge.model.vggt import VGGT
from vggt_edge.predict import predict
from vggt_edge.stream import AnchorStream, join_views, predict_stream
from vggt_edge.train.initialize import initialize
from vggt_edge.types import Prediction, Views

VIEWS, ANCHORS = 9, [0, 4, 6]


@pytest.fixture
def model() -> VGGT:
    config = dataclasses.replace(TINY_CONFIG, heads=("camera", "depth", "point"))
    network = make_views_matter(initialize(VGGT(config), seed=1).eval().requires_grad_(False))
    return make_sparse(network, "anchors", k=3, stride=2)


def some_views(count: int = VIEWS, height: int = 42, width: int = 56) -> Views:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    images = coarse.repeat(height // 6, axis=1).repeat(width // 8, axis=2)
    return Views.from_images(images)


ARRAYS = ("depth", "depth_confidence", "points", "points_confidence")


def by_name(predictions) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for prediction in predictions:
        for i, name in enumerate(prediction.views.names):
            assert name not in found, f"{name} came twice"
            found[name] = {key: getattr(prediction, key)[i] for key in ARRAYS}
            found[name]["pose"] = prediction.cameras.camera_from_world[i]
            found[name]["intrinsics"] = prediction.cameras.intrinsics[i]
    return found


def assert_same(a: dict, b: dict, tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name, arrays in a.items():
        for key, array in arrays.items():
            worst = np.abs(array - b[name][key]).max() / np.abs(b[name][key]).max()
            assert worst < tolerance, (name, key, worst)


def one_shot(model: VGGT, views: Views) -> Prediction:
    sparsity = model.sparsity
    assert sparsity is not None
    return predict(
        model, views, plan=sparsity.plan(len(views), model.config.depth, anchors=ANCHORS)
    )


def test_at_the_depth_of_vggt_1b_with_all_three_kinds_of_layers():
    config = dataclasses.replace(
        TINY_CONFIG, depth=24, taps=(4, 11, 17, 23), heads=("camera", "depth", "point")
    )
    network = initialize(VGGT(config), seed=1).eval().requires_grad_(False)
    for block in network.aggregator.global_blocks:
        block.attn.qkv.weight.mul_(8)
    make_sparse(network, "anchors", k=3)
    views = some_views()
    sparsity = network.sparsity
    assert sparsity is not None
    plan = sparsity.plan(VIEWS, 24, anchors=ANCHORS)
    assert {(layer.keys, layer.stride) for layer in plan.layers} == {
        ("frame", (1, 1)),
        ("anchors", (3, 3)),
        ("anchors", (1, 1)),
    }
    whole = by_name([predict(network, views, plan=plan)])
    assert_same(by_name(predict_stream(network, views, anchors=ANCHORS, batch=4)), whole)
    make_sparse(network, "dense")
    with pytest.raises(AssertionError):
        assert_same(by_name([predict(network, views)]), whole, 1e-3)


@pytest.mark.parametrize("batch", [1, 4, None])
def test_a_stream_is_the_one_shot_result(model, batch):
    views = some_views()
    whole = by_name([one_shot(model, views)])
    assert_same(by_name(predict_stream(model, views, anchors=ANCHORS, batch=batch)), whole)


def test_a_source_is_the_one_shot_result_and_nothing_is_held_back(model):
    views = some_views()
    whole = by_name([one_shot(model, views)])
    given = []

    def source():
        for i in range(VIEWS):
            given.append(i)
            yield views[[i]]

    stream = predict_stream(model, source(), anchors=ANCHORS, window=7)
    found = [next(stream)]
    assert found[0].views.names == tuple(views.names[i] for i in ANCHORS)
    assert given == list(range(7))
    found += list(itertools.islice(stream, 4))  # the others of the window
    assert given == list(range(7))
    found.append(next(stream))
    assert given == list(range(8))
    found += list(stream)
    assert_same(by_name(found), whole)


def test_anchors_cover_the_views_and_the_first_is_one(model):
    """Pictures of three kinds: three anchors, one of each."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 256, (3, 42, 56, 3), dtype=np.uint8)
    noise = random.integers(0, 3, (VIEWS, 42, 56, 3), dtype=np.uint8)
    views = Views.from_images(np.minimum(kinds[np.arange(VIEWS) % 3], 252) + noise)
    first = next(predict_stream(model, views))
    order = [int(name.removeprefix("view_")) for name in first.views.names]
    assert order[0] == 0
    assert sorted(i % 3 for i in order) == [0, 1, 2]


def test_a_stream_goes_on_elsewhere(model):
    views = some_views()
    begun = AnchorStream(model)
    whole = by_name([begun.start(views[ANCHORS]), begun.add(views[[1, 2, 3, 5, 7, 8]])])
    other = AnchorStream(model)
    cache = type(begun.cache).from_tensors(begun.cache.tensors())
    other.restore(begun.anchors, views.size, cache)
    rest = by_name(other.run(views, done={"view_0001"}))
    assert rest.keys() == {f"view_{i:04d}" for i in (2, 3, 5, 7, 8)}
    assert_same(rest, {name: whole[name] for name in rest})


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8-g32"])
def test_a_compressed_network_streams_and_is_made_dense_again(model, scheme):
    from vggt_edge.compress.compress import compress

    views = some_views()
    make_sparse(model, "dense")
    exact = predict(model, views).depth
    compress(model, scheme, method="nearest")
    dense = predict(model, views)
    assert not np.array_equal(dense.depth, exact)
    make_sparse(model, "anchors", k=3, stride=2)
    whole = by_name([one_shot(model, views)])
    # Activations are rounded per token: what is a rounding apart can be an integer apart.
    assert_same(by_name(predict_stream(model, views, anchors=ANCHORS, batch=2)), whole, 1e-3)
    make_sparse(model, "dense")
    assert np.array_equal(predict(model, views).depth, dense.depth)


def test_what_comes_later_changes_nothing(model):
    views = some_views()
    a = by_name(predict_stream(model, views, anchors=ANCHORS))
    fewer = views[[*ANCHORS, 1, 8]]
    b = by_name(predict_stream(model, fewer, anchors=[0, 1, 2]))
    assert_same(b, {name: a[name] for name in b})


def test_half_precision_keeps_its_keys_in_half_precision(model):
    stream = AnchorStream(model.to(torch.bfloat16))
    stream.start(some_views()[ANCHORS])
    assert {tensor.dtype for tensor in stream.cache.tensors().values()} == {torch.bfloat16}
    assert stream.cache.nbytes > 0


def test_the_estimate_does_not_grow_with_the_views(model, monkeypatch):
    needs = []
    monkeypatch.setattr(memory, "require", lambda *a, **k: needs.append((a[1], k["kept"])))
    list(predict_stream(model, some_views(), anchors=ANCHORS, batch=2))
    assert [count for count, _ in needs] == [3, 2, 2, 2]
    assert needs[0][1] > 0 and {kept for _, kept in needs[1:]} == {0}


def test_what_the_anchors_keep_is_in_the_estimate(model, monkeypatch):
    views = some_views()
    stream = AnchorStream(model)
    kept = []
    monkeypatch.setattr(memory, "require", lambda *a, **k: kept.append(k["kept"]))
    stream.start(views[ANCHORS])
    of_layers = sum(
        keys.k.nbytes + keys.v.nbytes
        for name, keys in stream.cache.entries.items()
        if name.startswith("global")
    )
    assert kept == [of_layers]


def test_a_run_that_does_not_fit_is_refused(model, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1 << 20)
    with pytest.raises(TooLargeError, match="3 views"):
        next(predict_stream(model, some_views(), anchors=ANCHORS))


@pytest.mark.parametrize("mode", ["dense", "covisible", "covisible+anchors", "avggt", "merge"])
def test_only_anchors_stream(model, mode):
    with pytest.raises(InputError, match="needs anchors"):
        next(predict_stream(make_sparse(model, mode), some_views()))


def test_a_camera_head_that_sees_all_does_not_stream(model):
    with pytest.raises(InputError, match="camera='anchors'"):
        next(predict_stream(make_sparse(model, "anchors", camera="all"), some_views()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": [0, 99]}, "indices of the 9 views"),
        ({"batch": 0}, "at least 1"),
        ({"heads": ("wings",)}, "wings"),
    ],
)
def test_bad_options(model, options, message):
    with pytest.raises(InputError, match=message):
        next(predict_stream(model, some_views(), **options))


@pytest.mark.parametrize("window", [VIEWS, VIEWS + 1])
def test_views_of_another_size_are_named(model, window):
    other = dataclasses.replace(some_views(1, 42, 112), names=("wide",))
    with pytest.raises(InputError, match="wide is a view of 112x42.*56x42"):
        list(predict_stream(model, iter([some_views(), other]), anchors=ANCHORS, window=window))


def test_equal_names_are_not_taken_for_finished_work(model):
    frames = (Views.from_images(some_views().images[[i]]) for i in range(VIEWS))
    with pytest.raises(InputError, match="two views of the source are called view_0000"):
        list(predict_stream(model, frames))


@pytest.mark.parametrize("source", [[], some_views(1)[[]]])
def test_no_views(model, source):
    with pytest.raises(InputError, match="no views"):
        next(predict_stream(model, source))


def test_joined_views():
    views = some_views()
    joined = join_views([views[:4], views[4:]])
    assert joined.names == views.names and joined.sources == views.sources
    for name in ("images", "source_sizes", "source_from_view", "valid"):
        assert np.array_equal(getattr(joined, name), getattr(views, name))
