from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar

from vggt_edge import metrics
from vggt_edge.evaluate import depths

seeds = st.integers(0, 2**32 - 1)
SCALES = ("median", "scale", "scale_lad", "scale_shift", "scale_shift_lad")


def pair(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.uniform(0.5, 10, count)
    return truth * random.lognormal(0, 0.3, count), truth


@pytest.mark.parametrize("alignment", depths.ALIGNMENTS)
@given(seeds)
def test_the_truth_is_perfect(alignment, seed):
    _, truth = pair(seed)
    score = depths.depth_score([truth], [truth], alignment)
    assert score == pytest.approx((0, 0, 0, 0, 1, 1, 1), abs=1e-6)


@pytest.mark.parametrize("alignment", SCALES)
@given(seeds, st.floats(0.01, 100))
def test_scale_does_not_matter(alignment, seed, scale):
    depth, truth = pair(seed)
    one = depths.depth_score([depth], [truth], alignment)
    other = depths.depth_score([depth * scale], [truth], alignment)
    assert one[:4] == pytest.approx(other[:4], rel=1e-4)


@pytest.mark.parametrize("alignment", ["scale_shift", "scale_shift_lad"])
@given(seeds, st.floats(0.1, 10), st.floats(-5, 5))
def test_shift_does_not_matter(alignment, seed, scale, offset):
    depth, truth = pair(seed)
    one = depths.depth_score([depth], [truth], alignment)
    other = depths.depth_score([depth * scale + offset], [truth], alignment)
    assert one[:4] == pytest.approx(other[:4], rel=1e-3)


def test_scale_matters_without_alignment():
    _, truth = pair(0)
    score = depths.depth_score([truth * 1.1], [truth], "none")
    assert score.abs_rel == pytest.approx(0.1)
    assert score.delta1 == 1


def test_median_is_that_of_the_training():
    depth, truth = pair(0)
    score = metrics.depth_score(depth, truth, np.ones(len(truth), dtype=bool))
    assert depths.depth_score([depth], [truth], "median") == score


@given(seeds)
def test_scale_is_least_squares(seed):
    depth, truth = pair(seed)
    factor, offset = depths.fit(depth, truth, "scale")
    assert offset == 0
    assert factor == pytest.approx(np.linalg.lstsq(depth[:, None], truth, rcond=None)[0][0])


@given(seeds)
def test_scale_shift_is_least_squares(seed):
    depth, truth = pair(seed)
    expected = np.linalg.lstsq(np.stack([depth, np.ones_like(depth)], axis=1), truth, rcond=None)[0]
    assert depths.fit(depth, truth, "scale_shift") == pytest.approx(expected)


@given(seeds)
def test_scale_lad_is_the_least_absolute_difference(seed):
    depth, truth = pair(seed, 25)
    factor, _ = depths.fit(depth, truth, "scale_lad")

    def loss(s: float) -> float:
        return float(np.abs(s * depth - truth).sum())

    best = minimize_scalar(loss, bounds=(0, 20), method="bounded", options={"xatol": 1e-9})
    assert loss(factor) <= best.fun * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_scale_shift_lad_is_the_least_absolute_difference(seed):
    depth, truth = pair(seed, 30)
    factor, offset = depths.fit(depth, truth, "scale_shift_lad")
    # As a linear program: least sum of bounds b with -b <= s d + o - t <= b.
    count = len(depth)
    model = np.stack([depth, np.ones(count)], axis=1)
    above, below = np.hstack([model, -np.eye(count)]), np.hstack([-model, -np.eye(count)])
    best = linprog(
        np.r_[0, 0, np.ones(count)],
        np.vstack([above, below]),
        np.r_[truth, -truth],
        bounds=[(None, None)] * 2 + [(0, None)] * count,
    )
    assert np.abs(factor * depth + offset - truth).sum() == pytest.approx(best.fun, rel=1e-3)


def test_lad_does_not_follow_outliers():
    _, truth = pair(0)
    depth = truth / 2
    truth[:5] = 300
    assert depths.fit(depth, truth, "scale_lad") == pytest.approx((2, 0))
    assert depths.fit(depth, truth, "scale_shift_lad") == pytest.approx((2, 0), abs=1e-3)
    assert depths.fit(depth, truth, "scale")[0] > 3


def test_per_image():
    truths = [np.linspace(1, 5, 20), np.linspace(2, 9, 30), np.zeros(0)]
    found = [truths[0] * 2, truths[1] * 0.5, np.zeros(0)]
    assert depths.depth_score(found, truths, "median", per_image=True).abs_rel < 1e-12
    assert depths.depth_score(found, truths, "median").abs_rel > 0.3


def test_what_was_not_predicted_is_wrong():
    truth = np.full(10, 2.0)
    depth = truth.copy()
    depth[:2] = np.nan, np.inf
    score = depths.depth_score([depth], [truth], "median")
    assert score.abs_rel == pytest.approx(0.2)
    assert score.delta3 == pytest.approx(0.8)


@pytest.mark.parametrize("alignment", SCALES)
def test_constant_depth_is_scored(alignment):
    _, truth = pair(0)
    score = depths.depth_score([np.ones(len(truth))], [truth], alignment)
    assert np.isfinite(score).all()
    assert score.abs_rel > 0.1
    nothing = depths.depth_score([np.zeros(len(truth))], [truth], alignment)
    assert nothing.abs_rel == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match="inverse"):
        depths.fit(np.ones(3), np.ones(3), "inverse")
    with pytest.raises(ValueError, match="pixel"):
        depths.depth_score([np.zeros(0)], [np.zeros(0)], "median")
    with pytest.raises(ValueError, match="pixel"):
        depths.depth_score([np.zeros(0)], [np.zeros(0)], "median", per_image=True)
