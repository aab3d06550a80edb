"""Points of ROC, precision-recall and reliability curves."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc

from featurecache.metrics.curves import (
    precision_recall_curve,
    reliability_curve,
    roc_curve,
    wilson_interval,
)
from featurecache.metrics.ranking import auroc


def random_data(n=400, decimals=2):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    score = np.round(np.clip(0.3 * truth + 0.7 * rng.random(n), 0, 1), decimals)
    return truth, score


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_area_under_roc_curve_is_auroc(decimals):
    truth, score = random_data(decimals=decimals)
    curve = roc_curve(truth, score)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert auc(curve.x, curve.y) == pytest.approx(auroc(truth, score))


def test_curves_computed_by_hand():
    truth, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    roc = roc_curve(truth, score)
    np.testing.assert_allclose(roc.x, [0, 0, 0.5, 0.5, 1])
    np.testing.assert_allclose(roc.y, [0, 0.5, 0.5, 1, 1])
    precision_recall = precision_recall_curve(truth, score)
    np.testing.assert_allclose(precision_recall.x, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(precision_recall.y, [1, 1, 1 / 2, 2 / 3, 1 / 2])


@pytest.mark.parametrize("decimals", [1, 9])
def test_precision_recall_curve_ends_at_prevalence(decimals):
    truth, score = random_data(decimals=decimals)
    curve = precision_recall_curve(truth, score)
    assert (curve.x[0], curve.y[0]) == (0, 1)
    assert (curve.x[-1], curve.y[-1]) == (1, pytest.approx(truth.mean()))


def test_unknown_labels_are_left_out():
    truth, score = random_data()
    extended = np.append(truth, [-1, -1]), np.append(score, [0.99, 0.01])
    for curve in (roc_curve, precision_recall_curve):
        np.testing.assert_array_equal(curve(*extended).x, curve(truth, score).x)
    np.testing.assert_array_equal(
        reliability_curve(*extended).n_images, reliability_curve(truth, score).n_images
    )


@pytest.mark.parametrize("truth", [[], [1, 1], [0, 0], [-1, -1]])
def test_curves_without_both_classes_are_empty(truth):
    truth = np.array(truth, dtype=np.int8)
    score = np.linspace(0.2, 0.8, len(truth))
    assert len(roc_curve(truth, score)) == 0
    assert (len(precision_recall_curve(truth, score)) == 0) == (1 not in truth)


def test_nan_score_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        roc_curve(np.array([0, 1]), np.array([0.1, np.nan]))


def test_reliability_matches_scikit_learn():
    truth, score = random_data(decimals=9)
    observed, predicted = calibration_curve(truth, score, n_bins=15)
    bins = reliability_curve(truth, score)
    np.testing.assert_allclose(bins.observed, observed)
    np.testing.assert_allclose(bins.predicted, predicted)


def test_reliability_computed_by_hand():
    bins = reliability_curve(np.array([1, 0, 1, -1]), np.array([1.0, 0.01, 0.05, 0.5]))
    np.testing.assert_allclose(bins.predicted, [0.03, 1.0])
    np.testing.assert_allclose(bins.observed, [0.5, 1.0])
    np.testing.assert_array_equal(bins.n_images, [2, 1])


def test_wilson_intervals_match_published_table():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    counts, n = np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29])
    lower, upper = wilson_interval(counts / n, n)
    np.testing.assert_allclose(lower, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(upper, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)
