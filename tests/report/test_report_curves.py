"""Points of curves, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from featurecache.metrics.calibration import calibration_errors
from featurecache.report.curves import (
    Points,
    douglas_peucker,
    precision_recall_points,
    reliability,
    roc_points,
    wilson_interval,
)


def data(n=400, seed=0, decimals=2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    score = np.round(np.clip(0.3 * truth + 0.7 * rng.random(n), 0, 1), decimals)
    return truth, score


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_roc_is_scikit_learns_with_ties(decimals):
    truth, score = data(decimals=decimals)
    x, y, _ = roc_curve(truth, score, drop_intermediate=False)
    points = roc_points(truth, score)
    np.testing.assert_allclose(points.x, x)
    np.testing.assert_allclose(points.y, y)


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_precision_and_recall_are_scikit_learns_with_ties(decimals):
    truth, score = data(decimals=decimals)
    precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=False)
    points = precision_recall_points(truth, score)
    np.testing.assert_allclose(points.x, recall[::-1])
    np.testing.assert_allclose(points.y, precision[::-1])


def test_unknown_labels_are_left_out():
    truth, score = data()
    more = np.append(truth, [-1, -1]), np.append(score, [0.99, 0.01])
    for curve in (roc_points, precision_recall_points):
        np.testing.assert_array_equal(curve(*more).x, curve(truth, score).x)
    np.testing.assert_array_equal(reliability(*more).images, reliability(truth, score).images)


@pytest.mark.parametrize("truth", [[], [1, 1], [0, 0], [-1, -1]])
def test_curves_without_both_classes_have_no_points(truth):
    truth = np.array(truth, dtype=np.int8)
    score = np.linspace(0.2, 0.8, len(truth))
    assert len(roc_points(truth, score)) == 0
    assert (len(precision_recall_points(truth, score)) == 0) == (1 not in truth)


def test_a_missing_score_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        roc_points(np.array([0, 1]), np.array([0.1, np.nan]))


def test_reliability_is_scikit_learns_and_holds_the_calibration_error():
    truth, score = data(decimals=9)
    observed, predicted = calibration_curve(truth, score, n_bins=15)
    bins = reliability(truth, score)
    np.testing.assert_allclose(bins.observed, observed)
    np.testing.assert_allclose(bins.predicted, predicted)
    error = np.abs(bins.observed - bins.predicted) @ bins.images / bins.images.sum()
    assert error == pytest.approx(calibration_errors(truth[:, None], score[:, None])[0])


def test_reliability_counted_by_hand():
    bins = reliability(np.array([1, 0, 1, -1]), np.array([1.0, 0.01, 0.05, 0.5]))
    np.testing.assert_allclose(bins.predicted, [0.03, 1.0])
    np.testing.assert_allclose(bins.observed, [0.5, 1.0])
    np.testing.assert_array_equal(bins.images, [2, 1])


def test_wilson_intervals_are_those_of_the_tables():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    counts, images = np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29])
    below, above = wilson_interval(counts / images, images)
    np.testing.assert_allclose(below, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(above, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)


@pytest.mark.parametrize("curve", [roc_points, precision_recall_points])
def test_a_simplified_curve_looks_the_same(curve):
    points = curve(*data(n=100_000, decimals=9))
    few = douglas_peucker(points)
    assert 2 < len(few) <= 300
    assert (few.x[0], few.y[0]) == (points.x[0], points.y[0])
    assert (few.x[-1], few.y[-1]) == (points.x[-1], points.y[-1])
    assert auc(few.x, few.y) == pytest.approx(auc(points.x, points.y), abs=2e-3)
    # Nowhere further from the curve than a line is wide.
    inner = slice(None, None, 97)
    assert _distances(points.x[inner], points.y[inner], few).max() < 0.02


def _distances(x, y, curve: Points):
    start = np.stack([curve.x[:-1], curve.y[:-1]], axis=1)
    step = np.stack([curve.x[1:], curve.y[1:]], axis=1) - start
    squared = np.maximum((step**2).sum(axis=1), 1e-18)
    offset = np.stack([x, y], axis=1)[:, None] - start
    along = np.clip((offset * step).sum(axis=2) / squared, 0, 1)
    return np.linalg.norm(offset - along[..., None] * step, axis=2).min(axis=1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
def test_simplifying_keeps_the_ends_and_adds_nothing(corners):
    x, y = (np.array([corner[i] for corner in corners]) for i in (0, 1))
    few = douglas_peucker(Points(x, y), most=10)
    assert len(few) <= max(min(len(x), 10), min(len(x), 2))
    if len(x):
        assert (few.x[0], few.y[0], few.x[-1], few.y[-1]) == (x[0], y[0], x[-1], y[-1])
        assert set(zip(few.x, few.y, strict=True)) <= set(zip(x, y, strict=True))


def test_a_curve_of_few_steps_is_kept_whole():
    points = roc_points(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1]))
    np.testing.assert_array_equal(douglas_peucker(points).x, points.x[[0, 1, 2, 3, 4]])
