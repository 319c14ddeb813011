from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggt_edge import pixels, preprocess
from vggt_edge.types import Views

SOURCE = (90, 140)


def views_of(source: tuple[int, int], mode: str, size: int = 56) -> Views:
    placed = preprocess.place([source], mode, size, 14)[0]
    return Views(
        images=np.zeros((1, *placed.view, 3), dtype=np.uint8),
        names=("a",),
        sources=("a.png",),
        source_sizes=np.array([source]),
        source_from_view=placed.source_from_view[None],
        valid=np.array([placed.valid]),
    )


def plane(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A depth that is linear in the pixels of the source picture."""
    return 2 + 0.01 * column + 0.02 * row


def plane_in_view(views: Views) -> np.ndarray:
    row, column = np.mgrid[: views.size[0], : views.size[1]]
    u, v, _ = np.einsum("ij,jhw->ihw", views.source_from_view[0], [column, row, row * 0 + 1])
    return plane(u, v)


def plane_in_truth(shape: tuple[int, int], source: tuple[int, int]) -> np.ndarray:
    row, column = np.mgrid[: shape[0], : shape[1]]
    return plane(
        (column + 0.5) * source[1] / shape[1] - 0.5, (row + 0.5) * source[0] / shape[0] - 0.5
    )


@pytest.mark.parametrize("mode", preprocess.MODES)
@pytest.mark.parametrize("shape", [SOURCE, (45, 70), (180, 280), (61, 97)])
@pytest.mark.parametrize("source", [SOURCE, SOURCE[::-1]])
def test_prediction_and_truth_meet_at_the_true_pixels(mode, shape, source):
    shape = shape if source == SOURCE else shape[::-1]
    views = views_of(source, mode)
    truth = plane_in_truth(shape, source)
    values, true = pixels.view_at_truth(views, 0, plane_in_view(views), truth)
    covered = 1.0 if mode != "crop" or source == SOURCE else 90 / 140
    assert len(true) / truth.size == pytest.approx(covered, abs=0.03)
    # Bilinear interpolation of a plane is exact; beyond the outermost centres it is clamped, by
    # half a pixel of the view at most.
    pixel = views.source_from_view[0, 0, 0] * 0.03
    assert np.abs(values - true).max() <= pixel / 2 + 1e-9
    assert np.median(np.abs(values - true)) < 1e-9


@pytest.mark.parametrize("mode", preprocess.MODES)
@pytest.mark.parametrize("source", [SOURCE, SOURCE[::-1]])
def test_truth_at_the_pixels_of_the_view(mode, source):
    views = views_of(source, mode)
    truth = plane_in_truth(source, source)
    found = pixels.truth_in_view(views, 0, truth)
    assert np.array_equal(found > 0, views.valid_mask()[0])
    expected = plane_in_view(views)
    seen = found > 0
    assert np.abs(found - expected)[seen].max() <= 0.5 * (0.01 + 0.02) + 1e-5


def test_unknown_truth_is_left_out():
    views = views_of(SOURCE, "keep")
    truth = plane_in_truth(SOURCE, SOURCE)
    truth[:45], truth[45, 0], truth[45, 1] = 0, np.nan, -1
    _, true = pixels.view_at_truth(views, 0, plane_in_view(views), truth)
    assert len(true) == 45 * 140 - 2
    found = pixels.truth_in_view(views, 0, truth)
    assert (found >= 0).all() and 0.45 < (found > 0).mean() < 0.55


def test_large_maps_are_thinned_evenly():
    views = views_of(SOURCE, "keep")
    truth = plane_in_truth((450, 700), SOURCE)
    values, true = pixels.view_at_truth(views, 0, plane_in_view(views), truth, most=4000)
    assert 2000 < len(true) <= 4000
    assert np.abs(values - true).max() < 0.05
    assert true.mean() == pytest.approx(truth.mean(), rel=0.01)


@given(st.integers(30, 300), st.integers(30, 300), st.sampled_from(preprocess.MODES))
def test_a_view_pixel_and_its_true_pixel_are_the_same_place(height, width, mode):
    views = views_of((height, width), mode)
    matrix = pixels.truth_from_view(views, 0, (height * 2, width * 2))
    place = np.array([10.0, 12, 1])
    source = views.source_from_view[0] @ place
    assert matrix @ place == pytest.approx([2 * source[0] + 0.5, 2 * source[1] + 0.5, 1])


def test_intrinsics_of_the_views():
    views = views_of(SOURCE, "pad")
    k = np.array([[[100.0, 0, 70], [0, 100, 45], [0, 0, 1]]])
    found = pixels.view_intrinsics(views, k)
    assert views.source_from_view @ found == pytest.approx(k)
    assert found[0, 0, 0] == pytest.approx(100 / views.source_from_view[0, 0, 0])
