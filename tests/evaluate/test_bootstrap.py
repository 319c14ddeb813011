from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge.evaluate import bootstrap

values = st.lists(st.floats(-10, 10), min_size=2, max_size=20)


@given(values)
def test_an_interval_holds_its_mean_and_lies_within_the_values(numbers):
    found = bootstrap.interval(numbers, draws=200)
    assert found.mean == pytest.approx(np.mean(numbers))
    assert min(numbers) - 1e-9 <= found.low <= found.high <= max(numbers) + 1e-9
    assert found.sequences == len(numbers)


def test_as_scipy():
    from scipy.stats import bootstrap as scipy_bootstrap

    numbers = np.random.default_rng(0).normal(3, 2, 40)
    ours = bootstrap.interval(numbers, draws=20_000)
    theirs = scipy_bootstrap(
        (numbers,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = bootstrap.interval(random.normal(1, 1, 30), draws=300, level=0.9)
        hits += found.low <= 1 <= found.high
    # The percentile bootstrap is a little too narrow for 30 values.
    assert 0.83 < hits / 300 < 0.95


def test_the_same_seed_gives_the_same_interval():
    numbers = np.random.default_rng(0).normal(size=12)
    assert bootstrap.interval(numbers) == bootstrap.interval(numbers)
    assert bootstrap.interval(numbers, seed=1) != bootstrap.interval(numbers)


def test_one_sequence_has_no_interval():
    found = bootstrap.interval([0.5])
    assert found.mean == 0.5
    assert math.isnan(found.low) and math.isnan(found.high)
    assert not found.excludes_zero
    with pytest.raises(ValueError, match="at least one"):
        bootstrap.interval([])


def test_groups_count_the_same_whatever_their_size():
    numbers, groups = [0.0, 0, 0, 0, 1, 1], ["a"] * 4 + ["b"] * 2
    assert bootstrap.interval(numbers, groups).mean == 0.5
    # All spread is between the groups, and these are fixed.
    assert bootstrap.interval(numbers, groups)[1:3] == (0.5, 0.5)
    assert bootstrap.interval(numbers).low < 0.3


def test_summaries_by_sequence_and_by_group():
    scores = {
        "apple/1": {"auc30": 0.0, "abs_rel": 0.1},
        "apple/2": {"auc30": 0.0},
        "bench/1": {"auc30": 0.9},
    }
    flat = bootstrap.summarize(scores)
    assert list(flat) == ["auc30", "abs_rel"]
    assert flat["auc30"].mean == pytest.approx(0.3)
    assert (flat["abs_rel"].mean, flat["abs_rel"].sequences) == (0.1, 1)
    assert bootstrap.summarize(scores, "groups")["auc30"].mean == pytest.approx(0.45)


def test_pairing_tells_a_small_difference_from_large_spread():
    random = np.random.default_rng(0)
    hard = random.uniform(0, 1, 30)
    worse = {f"{i:02d}": {"abs_rel": float(x)} for i, x in enumerate(hard)}
    better = {
        name: {"abs_rel": row["abs_rel"] - 0.01 + random.normal(0, 0.01)}
        for name, row in worse.items()
    }
    delta = bootstrap.compare(better, worse)["abs_rel"]
    assert delta.high < 0 and delta.excludes_zero
    one, other = (bootstrap.summarize(s)["abs_rel"] for s in (better, worse))
    assert one.high > other.low  # the intervals themselves overlap


def test_only_what_both_have_is_compared():
    one = {"a": {"x": 1.0, "y": 1.0}, "b": {"x": 5.0}}
    other = {"a": {"x": 0.5}, "c": {"x": 9.0}}
    found = bootstrap.compare(one, other)
    assert list(found) == ["x"]
    assert (found["x"].mean, found["x"].sequences) == (0.5, 1)
    assert bootstrap.compare(one, {}) == {}


def test_no_difference_includes_zero():
    scores = {str(i): {"x": float(i)} for i in range(9)}
    delta = bootstrap.compare(scores, scores)["x"]
    assert (delta.mean, delta.low, delta.high) == (0, 0, 0)
    assert not delta.excludes_zero
