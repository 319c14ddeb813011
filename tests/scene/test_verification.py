"""What retrieval ties together by few links counts only if the network's features bear it out."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import Oracle, make_walk, similarity_of

from vggt_edge import load, worlds
from vggt_edge.attention import make_sparse
from vggt_edge.distribute import LocalExecutor
from vggt_edge.errors import InputError, LostItemsError, NumericError
from vggt_edge.scene.adjacency import adjacency
from vggt_edge.scene.features import feature_similarity
from vggt_edge.scene.reconstruct_clusters import reconstruct_clusters
from vggt_edge.scene.retrieval_graph import retrieval_graph
from vggt_edge.scene.verification import (
    PROVEN,
    Verifier,
    found_across,
    verify_links,
    weakest_cut,
)
from vggt_edge.types import Prediction, Views


@dataclass
class Knows:
    """Features that know the place of each view: it is the value of all its pixels."""

    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, views: Views) -> np.ndarray:
        self.calls.append(views.names)
        place = views.images[:, 0, 0, 0]
        return np.where(place[:, None] == place, 0.8, 0.3).astype(np.float32)


def at(*places: int) -> Views:
    """A view of each place."""
    return Views.from_images(np.stack([np.full((4, 4, 3), p, np.uint8) for p in places]))


def alike(places: list[int], *links: tuple[int, int]) -> np.ndarray:
    """(S, S) similarity: all of one place are alike, and a few others seem so."""
    names = np.array(places)
    similarity = np.where(names[:, None] == names, 0.6, 0.0)
    for a, b in links:
        similarity[a, b] = similarity[b, a] = 0.4
    return similarity


def test_what_is_found_across_is_a_share_of_what_is_found_within():
    found = np.array(
        [[1, 0.8, 0.4, 0.2], [0.8, 1, 0.1, 0.2], [0.4, 0.3, 1, 0.5], [0.2, 0.2, 0.5, 1]]
    )
    # Of the first pair view 0 finds 0.4 of 0.8, of the second view 2 finds 0.4 of 0.5.
    assert found_across(found, 2) == pytest.approx(0.5)
    # A view alone is judged by the other side: 0.4 of 0.5, which view 2 finds.
    assert found_across(found[np.ix_([0, 2, 3], [0, 2, 3])], 1) == pytest.approx(0.8)
    assert found_across(np.eye(2), 1) == 1.0


def test_two_groups_that_hang_by_a_link_are_cut_there():
    places = [1] * 5 + [2] * 4
    graph = retrieval_graph(similarity=alike(places, (1, 7)))
    cut = weakest_cut(adjacency(graph), set(range(9)))
    assert cut is not None
    assert sorted(map(sorted, cut.sides)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    # The pictures at the link come first.
    assert sorted(end[0] for end in cut.ends) == [1, 7]
    assert all(
        len(end) == 4 and set(end) <= side for end, side in zip(cut.ends, cut.sides, strict=True)
    )


def test_a_dense_group_is_not_doubted():
    graph = retrieval_graph(similarity=np.full((9, 9), 0.6))
    assert weakest_cut(adjacency(graph), set(range(9))) is None


def test_a_link_between_places_goes_and_one_within_a_place_stays():
    places = [1] * 5 + [2] * 5 + [1] * 5
    weak = alike(places, (1, 7))
    weak[:5, 10:] = weak[10:, :5] = 0.0  # The first place is two groups that hang by a link.
    weak[3, 12] = weak[12, 3] = 0.4
    graph = retrieval_graph(similarity=weak)
    knows = Knows()
    verified = verify_links(graph, at(*places), Verifier(knows))
    assert verified.components().tolist() == [0] * 5 + [1] * 5 + [0] * 5
    assert len(graph.first) - len(verified.first) == 1
    assert len(knows.calls) == 2, "each doubt is settled once"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(4, 9), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_places_come_apart_wherever_false_links_fall(sizes, seed):
    rng = np.random.default_rng(seed)
    places = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()
    starts = [places.index(place) for place in range(len(sizes))]
    links = list(pairwise(starts))  # One between each two that follow one another.
    graph = retrieval_graph(similarity=alike(places, *links))
    assert graph.components().max() == 0
    verified = verify_links(graph, at(*places), Verifier(Knows()))
    first = [places.index(place) for place in places]
    assert verified.components().tolist() == np.unique(first, return_inverse=True)[1].tolist()
    assert len(graph.first) - len(verified.first) == len(links)


def test_the_executor_gets_pure_tasks_and_may_answer_in_any_order():
    class Backwards(LocalExecutor):
        def map(self, function, items):
            copies = [pickle.loads(pickle.dumps((function, item))) for item in items]
            yield from reversed([function(item) for function, item in copies])

    views = at(1, 1, 2, 2, 1, 3)
    pairs = [((0, 1), (2, 3)), ((0, 1), (4,)), ((4, 1), (5, 0))]
    expected = Verifier(Knows()).compare(views, pairs)
    assert Verifier(Knows()).compare(views, pairs, Backwards()) == expected
    assert expected == pytest.approx([0.375, 1.0, 1.0])


def test_a_picture_that_many_resemble_is_compared_beside_its_own_kind():
    """Its side has others too, though it alone is at the border."""
    places = [1] * 9 + [2] * 7
    links = [(other, 9) for other in range(5)]
    graph = retrieval_graph(similarity=alike(places, *links))
    cut = weakest_cut(adjacency(graph), set(range(16)))
    assert cut is not None and sorted(map(len, cut.ends)) == [4, 4]
    verified = verify_links(graph, at(*places), Verifier(Knows()))
    assert verified.components().tolist() == [0] * 9 + [1] * 7


def test_what_cannot_be_compared_is_believed_with_a_warning(caplog):
    def fails(views: Views) -> np.ndarray:
        raise RuntimeError("out of memory")

    class Loses(LocalExecutor):
        def map(self, function, items):
            yield function(next(iter(items)))
            raise LostItemsError("a worker died")

    views, pairs = at(1, 1, 2, 2), [((0, 1), (2, 3)), ((2, 3), (0, 1))]
    assert Verifier(fails).compare(views, pairs) == [1.0, 1.0]
    assert "2 of 2 links between groups" in caplog.text and "out of memory" in caplog.text
    assert Verifier(Knows()).compare(views, pairs, Loses()) == pytest.approx([0.375, 1.0])
    assert "1 of 2 links between groups" in caplog.text and "a worker died" in caplog.text


class Judge(Oracle):
    """An oracle that also knows which of its views stand near enough to see the same."""

    asked = 0

    def feature_similarity(self, views: Views) -> np.ndarray:
        self.asked += 1
        frames = [int(name) for name in views.names]
        near = similarity_of(self.truth, reach=2.0)[np.ix_(frames, frames)] > 0.1
        return np.where(near, 0.8, 0.3)


def glued() -> tuple[Prediction, np.ndarray]:
    """A walk of which two stretches are left, that seem to be one by a single link."""
    truth = make_walk(60, turns=0.7)
    similarity = similarity_of(truth)
    similarity[:10, 50:] = similarity[50:, :10] = 0.0
    similarity[4, 54] = similarity[54, 4] = 0.5
    kept = [*range(10), *range(50, 60)]
    return truth, similarity[np.ix_(kept, kept)]


def test_two_sets_in_one_cluster_are_two_scenes_unless_retrieval_is_believed():
    truth, similarity = glued()
    views = truth.views[[*range(10), *range(50, 60)]]
    run = {"similarity": similarity, "size": 30, "overlap": 6}
    apart = reconstruct_clusters(Judge(truth), views, **run)
    assert [len(scene.views) for scene in apart.scenes] == [10, 10]
    for verify, predictor in ((False, Judge(truth)), (True, Oracle(truth))):
        one = reconstruct_clusters(predictor, views, verify=verify, **run)
        assert [len(scene.views) for scene in one.scenes] == [20]


def test_a_loop_that_the_features_refuse_costs_no_pass():
    truth = make_walk(90, turns=0.7)
    similarity = similarity_of(truth)
    similarity[2:8, 60:66] = similarity[60:66, 2:8] = 0.9
    run = {"similarity": similarity, "size": 24, "overlap": 6}
    judge, believer = Judge(truth), Oracle(truth)
    result = reconstruct_clusters(judge, truth.views, **run)
    reconstruct_clusters(believer, truth.views, **run)
    assert [link.refused for link in result.links if link.refused] == [
        "the network's features do not find one end in the other"
    ]
    assert len(judge.calls) == len(believer.calls) - 1
    assert len(result.scenes) == 1


def test_a_true_loop_is_closed():
    truth = make_walk(90)
    judge = Judge(truth, drift=0.02)
    result = reconstruct_clusters(
        judge,
        truth.views,
        similarity=similarity_of(truth),
        size=24,
        overlap=6,
    )
    loops = [link for link in result.links if link.kind == "loop"]
    assert loops and not any(link.refused for link in loops)
    assert judge.asked >= len(loops)


def test_the_pocket_models_features_tell_places_apart():
    """Of scenes on which nothing was chosen; what PROVEN says of links is measured elsewhere."""
    model = load("pocket", device="cpu", dtype="float32")
    scenes = worlds.render(2**41 + 77, 3, 8, 112, 112)
    pictures = (scenes.images.permute(0, 1, 3, 4, 2) * 255).round().byte().numpy()
    within = [
        found_across(feature_similarity(model, Views.from_images(scene)), 4) for scene in pictures
    ]
    between = []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        both = np.concatenate([pictures[a][:4], pictures[b][4:]])
        between.append(found_across(feature_similarity(model, Views.from_images(both)), 4))
    assert max(between) < PROVEN < min(within)


def test_features_of_padding_do_not_count_and_sparsity_changes_nothing():
    model = load("pocket", device="cpu", dtype="float32")
    pictures = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), np.uint8)
    pictures[1] = pictures[0]
    views = Views.from_images(pictures)
    found = feature_similarity(model, views)
    assert found.shape == (3, 3) and np.allclose(np.diag(found), 1, atol=1e-5)
    assert found[0, 1] > found[0, 2]
    make_sparse(model, "anchors", k=1)
    assert np.array_equal(feature_similarity(model, views), found)
    # What is outside the valid box may be anything: only views of one call are compared.
    half = views.valid.copy()
    half[:, 2] = 56
    padded = feature_similarity(model, replace(views, valid=half))
    assert np.allclose(np.diag(padded), 1, atol=1e-5) and not np.array_equal(padded, found)
    every = replace(views, valid=np.zeros_like(half))  # No patch is shown: all count.
    assert np.array_equal(feature_similarity(model, every), found)


def test_views_that_the_network_cannot_take_and_features_that_overflow_are_refused():
    model = load("pocket", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="no multiple of the patch size 14"):
        feature_similarity(model, Views.from_images(np.zeros((2, 100, 112, 3), np.uint8)))
    with torch.no_grad():
        model.aggregator.global_blocks[-1].mlp.fc2.weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="features are not finite"):
        feature_similarity(model, Views.from_images(np.zeros((2, 112, 112, 3), np.uint8)))
