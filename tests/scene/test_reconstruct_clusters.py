"""Clusters of a walk come back as one consistent world, and what cannot is named."""

from __future__ import annotations

import errno
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MEGALOC_CONFIG
from walks import Oracle, make_walk, similarity_of, trajectory_error

from vggt_edge import geometry
from vggt_edge.attention import make_sparse
from vggt_edge.distribute import LocalExecutor
from vggt_edge.errors import InputError, OutputError, VGGTEdgeError
from vggt_edge.model.megaloc import MegaLoc
from vggt_edge.scene.cluster_passes import ModelPredictor, identity_of
from vggt_edge.scene.links import sees_the_same
from vggt_edge.scene.merge import without_duplicates
from vggt_edge.scene.reconstruct_clusters import reconstruct_clusters
from vggt_edge.types import Prediction, Views

DIALS = {"size": 24, "overlap": 6}


@pytest.fixture(scope="module")
def walk() -> Prediction:
    return make_walk(90)


@pytest.fixture(scope="module")
def likeness(walk) -> np.ndarray:
    return similarity_of(walk)


def two_walks(first: int, second: int) -> tuple[Prediction, np.ndarray]:
    """The truth of two walks that see nothing of each other, and their similarity."""
    a, b = make_walk(first, turns=0.6), make_walk(second, turns=0.4)
    images = np.concatenate([a.views.images, b.views.images])
    poses = np.concatenate([a.cameras.camera_from_world, b.cameras.camera_from_world])
    cameras = replace(
        a.cameras,
        intrinsics=np.concatenate([a.cameras.intrinsics, b.cameras.intrinsics]),
        camera_from_world=poses,
        sizes=np.concatenate([a.cameras.sizes, b.cameras.sizes]),
    )
    names = tuple(f"{i:04d}" for i in range(first + second))
    depth = np.concatenate([a.depth, b.depth])
    similarity = np.zeros((first + second, first + second))
    similarity[:first, :first], similarity[first:, first:] = similarity_of(a), similarity_of(b)
    return Prediction(Views.from_images(images, names), cameras, depth, np.ones_like(depth)), (
        similarity
    )


def test_a_perfect_predictor_gives_the_truth(walk, likeness):
    oracle = Oracle(walk)
    result = reconstruct_clusters(oracle, walk.views, similarity=likeness, **DIALS)
    (scene,) = result.scenes
    assert len(result.clusters) == len(oracle.calls) - 1 == 5, "five clusters and a bridge"
    assert scene.views.names == walk.views.names and result.left_out == {}
    assert trajectory_error(scene.cameras, walk.cameras) < 1e-6
    # The first camera is the world, and depth and cameras have one scale throughout.
    assert np.allclose(scene.cameras.camera_from_world[0], np.eye(3, 4), atol=1e-9)
    ratio = scene.prediction.depth / walk.depth
    assert np.ptp(ratio) / ratio.mean() < 1e-5
    fit = geometry.fit_similarity(scene.cameras.centers, walk.cameras.centers)
    assert fit.scale == pytest.approx(1 / ratio.mean(), rel=1e-5)
    view, (column, row) = scene.view_index, scene.pixel.T
    placed = fit.apply(scene.points.astype(np.float64))
    assert np.abs(placed - walk.world_points()[view, row, column]).max() < 1e-4
    assert all(link.refused == "" for link in result.links)
    assert sum(link.kind == "loop" for link in result.links) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_closing_the_loop_shares_out_drift(walk, likeness, seed):
    errors = []
    for close_loops in (True, False):
        oracle = Oracle(walk, drift=0.06, noise=0.01, outliers=0.1, seed=seed)
        result = reconstruct_clusters(
            oracle, walk.views, similarity=likeness, close_loops=close_loops, **DIALS
        )
        (scene,) = result.scenes
        errors.append(trajectory_error(scene.cameras, walk.cameras))
    assert errors[0] < 0.6 * errors[1] and errors[0] < 0.15, errors


def test_frames_in_order_need_no_descriptors():
    truth = make_walk(80, turns=0.8)
    result = reconstruct_clusters(Oracle(truth), truth.views, in_order=True, **DIALS)
    (scene,) = result.scenes
    assert trajectory_error(scene.cameras, truth.cameras) < 1e-6


def test_the_order_of_the_views_does_not_matter(walk, likeness):
    order = np.random.default_rng(0).permutation(90)
    shuffled = reconstruct_clusters(
        Oracle(walk),
        walk.views[order],
        similarity=likeness[np.ix_(order, order)],
        **DIALS,
    )
    (scene,) = shuffled.scenes
    cameras = replace(walk.cameras, camera_from_world=walk.cameras.camera_from_world[order])
    assert trajectory_error(scene.cameras, cameras) < 1e-6


def test_disjoint_sets_are_both_reconstructed_and_never_glued():
    truth, similarity = two_walks(40, 30)
    result = reconstruct_clusters(Oracle(truth), truth.views, similarity=similarity, **DIALS)
    assert [s.views.names for s in result.scenes] == [
        truth.views.names[:40],
        truth.views.names[40:],
    ]
    for scene, part in zip(result.scenes, (slice(0, 40), slice(40, 70)), strict=True):
        cameras = replace(truth.cameras, camera_from_world=truth.cameras.camera_from_world[part])
        assert trajectory_error(scene.cameras, cameras) < 1e-6


def test_clusters_whose_shared_pictures_disagree_are_not_glued(walk, likeness):
    """Retrieval may link what it likes: without agreement there is no edge."""

    class Liar(Oracle):
        def __call__(self, views):
            prediction = super().__call__(views)
            rng = np.random.default_rng(len(self.calls))
            return replace(
                prediction, depth=rng.uniform(1, 9, prediction.depth.shape).astype(np.float32)
            )

    result = reconstruct_clusters(
        Liar(walk), walk.views, similarity=likeness, close_loops=False, **DIALS
    )
    assert len(result.scenes) == len(result.clusters)
    assert all(link.refused for link in result.links)
    assert sum(len(scene.views) for scene in result.scenes) == len(walk.views)


def test_a_false_loop_is_refused():
    truth = make_walk(90, turns=0.7)
    similarity = similarity_of(truth)
    similarity[2:8, 60:66] = similarity[60:66, 2:8] = 0.9
    result = reconstruct_clusters(Oracle(truth), truth.views, similarity=similarity, **DIALS)
    assert [link.refused for link in result.links if link.refused] == [
        "its two ends do not see the same place"
    ]
    (scene,) = result.scenes
    assert trajectory_error(scene.cameras, truth.cameras) < 1e-6


def test_two_ends_see_the_same_only_if_they_do(walk):
    assert sees_the_same(Oracle(walk)(walk.views[[0, 1, 2, 3]]), 2, 0.1)
    assert not sees_the_same(Oracle(walk)(walk.views[[0, 1, 45, 46]]), 2, 0.1)


def test_equal_pictures_work():
    truth = make_walk(40)
    still = replace(
        truth,
        cameras=replace(
            truth.cameras,
            camera_from_world=np.repeat(truth.cameras.camera_from_world[:1], 40, axis=0),
        ),
        depth=np.repeat(truth.depth[:1], 40, axis=0),
    )
    views = replace(truth.views, images=np.repeat(truth.views.images[:1], 40, axis=0))
    result = reconstruct_clusters(Oracle(still), views, similarity=np.ones((40, 40)), **DIALS)
    (scene,) = result.scenes
    assert len(scene.views) == 40
    assert np.abs(scene.cameras.centers).max() < 1e-6


def test_a_lone_outlier_is_named_or_kept():
    truth = make_walk(40, turns=0.4)
    similarity = similarity_of(truth)
    similarity[7, :] = similarity[:, 7] = 0.05
    run = {"similarity": similarity, **DIALS}
    left = reconstruct_clusters(Oracle(truth), truth.views, **run)
    assert left.left_out == {"0007": "resembles no other view"}
    assert "0007" not in left.scenes[0].views.names and len(left.scenes[0].views) == 39
    kept = reconstruct_clusters(Oracle(truth), truth.views, keep_outliers=True, **run)
    assert kept.left_out == {} and len(kept.scenes[0].views) == 40


def test_a_pass_that_fails_once_is_tried_again(walk, likeness):
    oracle = Oracle(walk, fail={"0030": 1})
    result = reconstruct_clusters(oracle, walk.views, similarity=likeness, **DIALS)
    assert len(result.scenes) == 1 and result.left_out == {}


def test_a_cluster_that_fails_twice_is_named_and_the_rest_stands(walk, likeness):
    lost = "0045"
    oracle = Oracle(walk, fail={lost: 99})
    result = reconstruct_clusters(oracle, walk.views, similarity=likeness, **DIALS)
    (cluster,) = [c for c in result.clusters if 45 in c.home]
    assert lost in result.left_out
    assert all(
        walk.views.names.index(name) in cluster.home and "no luck with 0045" in reason
        for name, reason in result.left_out.items()
    )
    # The bridge where the walk closes holds the two arms together.
    (scene,) = result.scenes
    assert len(scene.views) + len(result.left_out) == 90
    kept = [int(name) for name in scene.views.names]
    truth = replace(walk.cameras, camera_from_world=walk.cameras.camera_from_world[kept])
    assert trajectory_error(scene.cameras, truth) < 1e-6
    assert any(link.refused.endswith("failed") for link in result.links)


def test_when_every_cluster_fails_it_says_why(walk, likeness):
    oracle = Oracle(walk, fail=dict.fromkeys(walk.views.names, 99))
    with pytest.raises(VGGTEdgeError, match="every cluster failed.*no luck"):
        reconstruct_clusters(oracle, walk.views, similarity=likeness, **DIALS)


def test_a_rerun_resumes(walk, likeness, tmp_path):
    class Killed(Oracle):
        def __call__(self, views):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().__call__(views)

    run = {"similarity": likeness, "folder": tmp_path, **DIALS}
    killed, oracle = Killed(walk), Oracle(walk)
    killed.identity = oracle.identity = "the oracle"
    with pytest.raises(KeyboardInterrupt):
        reconstruct_clusters(killed, walk.views, **run)
    assert len(list(tmp_path.iterdir())) == 3, "whole files only"
    first = reconstruct_clusters(oracle, walk.views, **run)
    assert not set(killed.calls) & set(oracle.calls), "finished passes are not repeated"
    assert len(killed.calls) + len(oracle.calls) == 6
    again = Oracle(walk)
    again.identity = "the oracle"
    second = reconstruct_clusters(again, walk.views, **run)
    assert again.calls == [] and np.array_equal(first.scenes[0].points, second.scenes[0].points)
    other = Oracle(walk)
    other.identity = "another oracle"
    reconstruct_clusters(other, walk.views, **run)
    assert len(other.calls) == 6, "another network's passes are not taken for its own"


def test_a_damaged_file_is_predicted_again(walk, likeness, tmp_path):
    run = {"similarity": likeness, "folder": tmp_path, **DIALS}
    reconstruct_clusters(Oracle(walk), walk.views, **run)
    next(tmp_path.iterdir()).write_bytes(b"not safetensors")
    oracle = Oracle(walk)
    reconstruct_clusters(oracle, walk.views, **run)
    assert len(oracle.calls) == 1


def test_a_folder_that_cannot_be_written_is_one_clear_error(walk, likeness, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        reconstruct_clusters(
            Oracle(walk), walk.views, similarity=likeness, folder=tmp_path / "file", **DIALS
        )


def test_a_disk_that_fills_up_is_one_clear_error_and_the_rest_is_resumed(
    walk, likeness, tmp_path, monkeypatch
):
    run = {"similarity": likeness, "folder": tmp_path, **DIALS}
    room = iter(range(2))

    def write(path, data, honest=Path.write_bytes):
        if next(room, None) is None:
            honest(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write)
        with pytest.raises(OutputError, match="No space left on device"):
            reconstruct_clusters(Oracle(walk), walk.views, **run)
    assert len(list(tmp_path.iterdir())) == 2, "what was written is whole"
    oracle = Oracle(walk)
    reconstruct_clusters(oracle, walk.views, **run)
    assert len(oracle.calls) == 4


def test_the_executor_gets_pure_tasks(walk, likeness):
    """Functions and items survive pickling, as executors on other machines need."""

    class Far:
        def map(self, function, items):
            far = pickle.loads(pickle.dumps(function))
            return (pickle.loads(pickle.dumps(far(pickle.loads(pickle.dumps(i))))) for i in items)

    far = reconstruct_clusters(
        Oracle(walk), walk.views, similarity=likeness, executor=Far(), **DIALS
    )
    here = reconstruct_clusters(
        Oracle(walk), walk.views, similarity=likeness, executor=LocalExecutor(), **DIALS
    )
    assert np.array_equal(far.scenes[0].points, here.scenes[0].points)


def test_results_may_come_in_any_order(walk, likeness):
    class Backwards:
        def map(self, function, items):
            return reversed([function(item) for item in items])

    run = {"similarity": likeness, **DIALS}
    oracle = Oracle(walk, fail={"0030": 1})
    result = reconstruct_clusters(oracle, walk.views, executor=Backwards(), **run)
    (scene,) = result.scenes
    assert trajectory_error(scene.cameras, walk.cameras) < 1e-6


def test_results_that_never_come_are_failures(walk, likeness):
    class Forgetful:
        def map(self, function, items):
            return (function(item) for item in items if "0045" not in item[1].names)

    run = {"similarity": likeness, **DIALS}
    result = reconstruct_clusters(Oracle(walk), walk.views, executor=Forgetful(), **run)
    assert "no result came back" in result.left_out["0045"]


def test_a_network_is_a_predictor(tiny_model):
    views = make_walk(10, height=28, width=42).views
    result = reconstruct_clusters(tiny_model, views, size=6, overlap=2, keep_outliers=True)
    assert sum(len(scene.views) for scene in result.scenes) == 10
    assert result.left_out == {}
    same = identity_of(ModelPredictor(tiny_model))
    assert same == identity_of(ModelPredictor(tiny_model))
    tiny_model.camera_head.token_norm.bias.data[0] += 1
    assert same != identity_of(ModelPredictor(tiny_model))


def test_another_network_that_chooses_anchors_is_another_predictor(tiny_model):
    """Or its passes would be resumed with the anchors of the one before."""
    megaloc = MegaLoc(MEGALOC_CONFIG)

    def identity(retrieval) -> str:
        make_sparse(tiny_model, "anchors", k=2, retrieval=retrieval)
        return identity_of(ModelPredictor(tiny_model))

    tokens, first = identity(None), identity(megaloc)
    assert tokens == identity(None) != first == identity(megaloc)
    next(megaloc.parameters()).data.add_(1)
    assert identity(megaloc) not in (tokens, first)


def test_points_of_overlapping_clusters_are_kept_once(walk, likeness):
    (scene,) = reconstruct_clusters(Oracle(walk), walk.views, similarity=likeness, **DIALS).scenes
    doubled = replace(
        scene,
        points=np.concatenate([scene.points, scene.points]),
        colors=np.concatenate([scene.colors, scene.colors]),
        confidence=np.concatenate([scene.confidence, scene.confidence - 1]),
        view_index=np.concatenate([0 * scene.view_index, 0 * scene.view_index + 1]),
        pixel=np.concatenate([scene.pixel, scene.pixel]),
    )
    cluster_of_view = np.arange(len(scene.views))
    once = without_duplicates(doubled, cluster_of_view, voxel=1e-3)
    assert np.array_equal(once.points, scene.points)
    alone = without_duplicates(doubled, np.zeros(len(scene.views), dtype=int), voxel=1e-3)
    assert alone is doubled


def test_bad_calls_are_refused(walk):
    with pytest.raises(InputError, match="no views"):
        reconstruct_clusters(Oracle(walk), walk.views[[]])
    with pytest.raises(InputError, match="give one of"):
        reconstruct_clusters(Oracle(walk), walk.views)
    with pytest.raises(InputError, match="give one of"):
        reconstruct_clusters(Oracle(walk), walk.views, similarity=np.eye(90), in_order=True)
    with pytest.raises(InputError, match="3 descriptors for 90 views"):
        reconstruct_clusters(Oracle(walk), walk.views, descriptors=np.ones((3, 4)))
    with pytest.raises(InputError, match="lower the threshold"):
        reconstruct_clusters(Oracle(walk), walk.views, similarity=np.eye(90))
