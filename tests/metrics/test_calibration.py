"""Compare calibration with a generic optimizer, hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss

from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.calibration import (
    brier_scores,
    calibration_errors,
    fit_common_slope,
    fit_platt,
    log_odds,
    measure_calibration,
)
from featurecache.metrics.metrics import CalibrationErrors

NAN = float("nan")


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("factor", [0.01, 1.0, 40.0])
def test_platt_scaling_maximizes_the_likelihood_of_soft_targets(factor):
    rng = np.random.default_rng(0)
    score = rng.normal(size=300)
    truth = (rng.random(300) < sigmoid(1.5 * score - 0.7)).astype(np.int8)
    score = score * factor
    fitted = fit_platt(truth[:, np.newaxis], score[:, np.newaxis])

    positives = truth.sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))

    def loss(parameters):
        z = parameters[0] * score / factor + parameters[1]
        return (np.logaddexp(0, z) - target * z).sum()

    expected = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert fitted.slope[0] * factor == pytest.approx(expected[0], rel=1e-4)
    assert fitted.intercept[0] == pytest.approx(expected[1], rel=1e-4)


def test_separable_classes_have_a_finite_slope():
    truth = np.array([[0], [0], [1], [1]])
    fitted = fit_platt(truth, np.array([[-2.0], [-1.0], [1.0], [2.0]]))
    assert 0 < fitted.slope[0] < 10
    assert (np.diff(fitted(np.array([[-2.0], [-1.0], [1.0], [2.0]]))[:, 0]) > 0).all()


def test_common_slope_maximizes_the_likelihood_with_an_intercept_per_label():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(200, 4)) * 30 + [0, 40, -60, 0]
    truth = (rng.random((200, 4)) < sigmoid(score / 20 + [0, -3, 2, 0])).astype(np.int8)
    truth[rng.random((200, 4)) < 0.2] = -1
    truth[:, 3] = 0  # no positives, so no information
    slope = fit_common_slope(truth, score)

    def loss(parameters):
        total = 0.0
        for c in range(3):
            valid = truth[:, c] >= 0
            t, n1, n0 = truth[valid, c], (truth[:, c] == 1).sum(), (truth[:, c] == 0).sum()
            target = np.where(t == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
            z = parameters[0] * score[valid, c] / 20 + parameters[1 + c]
            total += (np.logaddexp(0, z) - target * z).sum()
        return total

    expected = minimize(loss, np.zeros(4), tol=1e-10).x[0] / 20
    assert slope == pytest.approx(expected, rel=1e-4)
    assert fit_common_slope(truth, -score) == pytest.approx(-expected, rel=1e-4)
    assert np.isnan(fit_common_slope(truth[:, 3:], score[:, 3:]))


@pytest.mark.parametrize("column", [[0, 0, 0], [1, 1, -1], [-1, -1, -1]])
def test_label_with_one_class_has_no_platt_scaling(column):
    truth = np.array([column]).T
    fitted = fit_platt(truth, np.zeros((3, 1)))
    assert np.isnan(fitted.slope).all()
    assert np.isnan(fitted.intercept).all()
    assert np.isnan(fitted(np.zeros((2, 1)))).all()


def test_calibration_error_of_a_hand_computed_case():
    probability = np.array([[0.10, 0.12, 0.90, 0.95, 0.5]]).T
    truth = np.array([[0, 1, 1, 1, -1]]).T
    # With 15 bins, 0.10 and 0.12 share a bin; 0.90 and 0.95 do not (13.5 and 14.25 fifteenths).
    expected = (abs(0.22 - 1) + abs(0.90 - 1) + abs(0.95 - 1)) / 4
    assert calibration_errors(truth, probability) == pytest.approx([expected])


def test_true_probabilities_are_calibrated_and_overconfident_ones_are_not():
    rng = np.random.default_rng(1)
    probability = rng.random((20_000, 1))
    truth = (rng.random((20_000, 1)) < probability).astype(np.int8)
    assert calibration_errors(truth, probability)[0] < 0.02
    assert calibration_errors(truth, sigmoid(3 * log_odds(probability)))[0] > 0.1


def test_brier_score_equals_scikit_learn_and_bootstrap_equals_repeated_rows():
    rng = np.random.default_rng(2)
    truth = rng.integers(-1, 2, size=(60, 2))
    probability = rng.random((60, 2))
    for c in range(2):
        valid = truth[:, c] >= 0
        expected = brier_score_loss(truth[valid, c], probability[valid, c])
        assert brier_scores(truth, probability)[c] == pytest.approx(expected)
    resamples = resample_patients([f"p{row // 3}" for row in range(60)], n_bootstrap=5, seed=0)
    for metric in (brier_scores, calibration_errors):
        values = metric(truth, probability, resamples)
        for sample, counts in enumerate(resamples.row_counts()):
            rows = np.repeat(np.arange(60), counts)
            assert values[sample] == pytest.approx(metric(truth[rows], probability[rows]))


def test_platt_scaling_corrects_overconfidence():
    rng = np.random.default_rng(3)
    true_odds = rng.normal(size=(4000, 2))
    truth = (rng.random((4000, 2)) < sigmoid(true_odds)).astype(np.int8)
    truth[:, 1] = 0
    score = 4 * true_odds
    platt = fit_platt(truth[:2000], score[:2000])
    calibration = measure_calibration(
        truth[2000:],
        score[2000:],
        sigmoid(score[2000:]),
        platt,
        label_names=("A", "B"),
        resamples=resample_patients(np.arange(2000), n_bootstrap=100, seed=0),
    )
    label = calibration.per_label["A"]
    assert label.slope == pytest.approx(0.25, rel=0.15)
    assert label.before.ece > 0.15
    assert label.after.ece < 0.05
    assert label.after.brier < label.before.brier
    assert calibration.per_label["B"].after == CalibrationErrors(ece=None, brier=None)
    assert calibration.macro.before.ece == label.before.ece
    low, high = calibration.ci95.after.ece
    assert 0 < low < high < calibration.ci95.before.ece[0]
