"""Compare calibration with hand-computed cases, scikit-learn and simulated truth."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from featurecache.metrics.calibration import (
    brier_scores,
    calibration_errors,
    calibration_in_the_large,
    calibration_intercepts,
    calibration_slopes,
    measure_calibration,
    observed_to_expected,
    t_quantiles,
)
from featurecache.metrics.label_support import PatientSupport, patient_support
from featurecache.metrics.metrics import CalibrationScores
from featurecache.metrics.platt_scaling import PlattScaling, fit_platt, log_odds

NAN = float("nan")
QUANTILES = np.array([1.96])


def simulate(seed, patients, *, labels=1, base=-2.0, factor=1.0):
    """Return labels, probabilities and patients of two images per patient.

    Both images of a patient have the same label. ``factor`` multiplies the right log odds.
    """
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(base, 1.5, size=(patients, labels))
    truth = (rng.random((patients, labels)) < expit(log_odds)).astype(np.int8)
    index = np.repeat(np.arange(patients), 2)
    return truth[index], expit(factor * log_odds)[index], index


def test_squared_gaps_are_those_of_pairs_of_different_patients():
    """The debiased mean square leaves out the products of a patient with itself, by hand."""
    probability = np.array([[0.10, 0.12, 0.11, 0.90, 0.92, 0.5]]).T
    truth = np.array([[1, 1, 0, 0, 0, -1]]).T
    gaps = (probability - truth)[:, 0]
    # Bin 1 has patients 0, 1, 2; bin 13 has patients 0, 1.
    first = 2 * (gaps[0] * gaps[1] + gaps[0] * gaps[2] + gaps[1] * gaps[2]) / (3 * 2)
    second = 2 * gaps[3] * gaps[4] / (2 * 1)
    expected = np.sqrt((3 * first + 2 * second) / 5)
    estimate = calibration_errors(truth, probability, np.array([0, 1, 2, 0, 1, 2]), QUANTILES)
    assert estimate[0] == pytest.approx([expected, expected])


def test_a_bin_with_one_patient_counts_as_calibrated():
    probability = np.array([[0.05, 0.05, 0.9, 0.92]]).T
    truth = np.array([[1, 0, 0, 0]]).T
    estimate = calibration_errors(truth, probability, np.array([0, 1, 2, 2]), QUANTILES)
    gaps = np.array([0.05 - 1, 0.05])
    assert estimate[0, 0] == pytest.approx(np.sqrt(max(0, 2 / 4 * gaps.prod())))


@pytest.mark.parametrize("base", [-2.0, 0.0])
def test_right_probabilities_have_an_error_near_0(base):
    errors, covered = [], []
    for seed in range(100):
        truth, p, patient = simulate(seed, 600, base=base)
        quantiles = t_quantiles(patient_support(truth, patient))
        (error, _), (low, _), (high, _) = calibration_errors(truth, p, patient, quantiles)
        assert low <= error <= high
        errors.append(error)
        covered.append(low == 0)
    # By chance alone, the gaps of these bins have a root mean square of about 0.06.
    assert np.median(errors) < 0.02
    assert np.mean(errors) < 0.025
    assert np.mean(covered) >= 0.92


def test_the_mean_square_is_unbiased_and_its_interval_covers_it():
    """Log odds that are twice too large, against the error in a very large sample."""
    truth, p, patient = simulate(99, 200_000, factor=2.0, base=-1.0)
    expected = calibration_errors(truth, p, patient, QUANTILES)[0, 0]
    assert expected > 0.1
    squares, covered = [], []
    for seed in range(150):
        truth, p, patient = simulate(seed, 400, factor=2.0, base=-1.0)
        quantiles = t_quantiles(patient_support(truth, patient))
        error, low, high = calibration_errors(truth, p, patient, quantiles)[:, 0]
        squares.append(error**2)
        covered.append(low <= expected <= high)
        assert low <= error <= high
    assert np.mean(squares) == pytest.approx(expected**2, rel=0.05)
    assert np.mean(covered) >= 0.93


def test_the_macro_error_is_the_root_of_the_mean_square():
    truth, p, patient = simulate(5, 4000, labels=3, factor=2.0)
    estimate = calibration_errors(truth, p, patient, np.full(3, 1.96))
    assert (estimate[0, :3] > 0.01).all()
    assert estimate[0, 3] == pytest.approx(np.sqrt((estimate[0, :3] ** 2).mean()))
    assert (estimate[1] < estimate[0]).all()
    assert (estimate[0] < estimate[2]).all()
    assert estimate[2, 3] - estimate[1, 3] < np.diff(estimate[1:, :3], axis=0).min()


def test_copies_of_a_patients_images_add_nothing():
    truth, p, patient = simulate(6, 100, factor=2.0)
    rows = np.repeat(np.arange(200), 5)
    for score in (calibration_errors, brier_scores, calibration_slopes, calibration_intercepts):
        once = score(truth, p, patient, np.array([2.0]))
        often = score(truth[rows], p[rows], patient[rows], np.array([2.0]))
        np.testing.assert_allclose(often, once, rtol=1e-6, atol=1e-9)


def test_brier_score_equals_scikit_learn():
    rng = np.random.default_rng(2)
    truth = rng.integers(-1, 2, size=(60, 2))
    probability = rng.random((60, 2))
    estimate = brier_scores(truth, probability, np.arange(60) // 3, np.full(2, 2.0))
    expected = []
    for c in range(2):
        valid = truth[:, c] >= 0
        expected.append(brier_score_loss(truth[valid, c], probability[valid, c]))
    assert estimate[0] == pytest.approx([*expected, np.mean(expected)])
    # By hand, for the first label: the variance of the sums within patients.
    valid = truth[:, 0] >= 0
    errors = (probability[valid, 0] - truth[valid, 0]) ** 2 - expected[0]
    sums = np.bincount(np.arange(60)[valid] // 3, errors)
    half = 2 * np.sqrt((sums**2).sum()) / valid.sum()
    assert estimate[1:, 0] == pytest.approx([expected[0] - half, expected[0] + half])


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_slope_and_intercept_equal_scikit_learn(factor):
    truth, p, patient = simulate(3, 150, labels=2, factor=factor)
    truth[:40, 1] = -1
    slopes = calibration_slopes(truth, p, patient, np.full(2, 1.96))
    intercepts = calibration_intercepts(truth, p, patient, np.full(2, 1.96))
    for c in range(2):
        known = truth[:, c] >= 0
        logits, y = logit(p[known, c]), truth[known, c]
        fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], y)
        assert slopes[0, c] == pytest.approx(fitted.coef_[0, 0], rel=1e-5)
        # An offset is a score whose weight cannot be fitted: only the mean of this one is free.
        assert expit(logits + intercepts[0, c]).mean() == pytest.approx(y.mean())
        assert slopes[1, c] < slopes[0, c] < slopes[2, c]
        assert intercepts[1, c] < intercepts[0, c] < intercepts[2, c]
    assert slopes[0] == pytest.approx(1 / factor, rel=0.5)


def test_slope_and_intercept_of_right_probabilities_are_in_their_intervals():
    covered = []
    for seed in range(100):
        truth, p, patient = simulate(seed, 100)
        quantiles = t_quantiles(patient_support(truth, patient))
        _, low, high = calibration_slopes(truth, p, patient, quantiles)[:, 0]
        _, low_0, high_0 = calibration_intercepts(truth, p, patient, quantiles)[:, 0]
        covered.append([low <= 1 <= high, low_0 <= 0 <= high_0])
    assert (np.mean(covered, axis=0) >= 0.92).all()


@pytest.mark.parametrize("probability", [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.3] * 4])
def test_separated_or_equal_probabilities_have_no_slope(probability):
    truth = np.array([[0, 0, 1, 1]]).T
    p = np.array([probability]).T
    assert np.isnan(calibration_slopes(truth, p, np.arange(4), QUANTILES)).all()
    value, low, high = calibration_intercepts(truth, p, np.arange(4), QUANTILES)[:, 0]
    assert low < value < high


def test_calibration_in_the_large_computed_by_hand():
    truth = np.array([[1, 1, 0, 0, -1]]).T
    p = np.array([[0.5, 0.3, 0.3, 0.1, 0.9]]).T
    patients = np.array([0, 0, 1, 2, 3])
    difference = calibration_in_the_large(truth, p, patients, np.array([2.0]))[:, 0]
    # Patients have 1.2 more positives than expected, 0.3 fewer and 0.1 fewer, with 0.2 per image.
    error = np.sqrt((1.2 - 2 * 0.2) ** 2 + (-0.3 - 0.2) ** 2 + (-0.1 - 0.2) ** 2) / 4
    assert difference == pytest.approx([0.2, 0.2 - 2 * error, 0.2 + 2 * error])
    quotient = observed_to_expected(truth, p, patients, np.array([2.0]))[:, 0]
    factor = 2 / 1.2
    residuals = [2 - factor * 0.8, -factor * 0.3, -factor * 0.1]
    independent = (p * (1 - p))[:4].sum()  # here it is the larger of the two
    assert np.square(residuals).sum() < independent
    error = np.sqrt(independent) / 2
    assert quotient == pytest.approx([factor, *(factor * np.exp([-2 * error, 2 * error]))])


@pytest.mark.parametrize("base", [-2.0, -3.0])
def test_calibration_in_the_large_of_right_probabilities_is_covered(base):
    covered = []
    for seed in range(150):
        truth, p, patients = simulate(seed, 120, base=base)
        quantiles = t_quantiles(patient_support(truth, patients))
        for score, right in ((calibration_in_the_large, 0), (observed_to_expected, 1)):
            _, low, high = score(truth, p, patients, quantiles)[:, 0]
            covered.append(low <= right <= high)
    assert np.mean(covered) > 0.93


def test_no_expected_positives_have_no_ratio():
    truth, p = np.array([[1], [0]]), np.zeros((2, 1))
    assert np.isnan(observed_to_expected(truth, p, np.arange(2), np.ones(1))).all()


def test_quantiles_are_of_the_rarer_kind_of_patient():
    quantiles = t_quantiles(PatientSupport(np.array([5, 300]), np.array([100, 21])))
    assert quantiles == pytest.approx([student.ppf(0.975, 4), student.ppf(0.975, 20)])


def test_platt_scaling_corrects_overconfidence():
    truth, p, patient = simulate(3, 2000, labels=3, base=-1.0, factor=4.0)
    truth[:, 1] = 0
    platt = fit_platt(truth[:2000], log_odds(p[:2000]))
    calibration = measure_calibration(
        truth[2000:],
        p[2000:],
        platt,
        label_names=("A", "B", "C"),
        patients=patient[2000:].astype(str),
        learned=np.array([True, True, False]),
    )
    assert calibration.labels == ["A"]
    label = calibration.per_label["A"]
    assert label.slope == platt.slope[0] == pytest.approx(0.25, rel=0.15)
    assert label.before.calibration_slope == pytest.approx(0.25, rel=0.15)
    assert label.before.ci95.error[0] > 0.12
    assert label.after.error < 0.05
    assert label.after.ci95.error[0] == 0
    low, high = label.after.ci95.calibration_slope
    assert low < 1 < high
    assert label.after.brier < label.before.brier
    assert calibration.macro.before.error == label.before.error
    assert calibration.macro.after.brier == label.after.brier
    assert calibration.macro.before.calibration_slope is None
    for name, reason in (("B", "no patient has a positive"), ("C", "it was not learned")):
        undefined = calibration.per_label[name]
        assert undefined.before == undefined.after == CalibrationScores()
        assert reason in undefined.undefined_reason
    assert calibration.per_label["B"].reason == "no validation image is positive"


def test_without_platt_scaling_probabilities_stay():
    truth, p, patient = simulate(4, 3000, labels=2, factor=3.0)
    platt = PlattScaling(np.array([NAN, 1 / 3]), np.array([NAN, 0.0]), ("it does not help", None))
    calibration = measure_calibration(
        truth,
        p,
        platt,
        label_names=("A", "B"),
        patients=patient,
        learned=np.ones(2, dtype=bool),
        intervals=False,
    )
    label = calibration.per_label["A"]
    assert (label.slope, label.intercept, label.reason) == (None, None, "it does not help")
    assert label.before == label.after
    assert label.before.ci95.error is None
    assert calibration.per_label["B"].after.error < calibration.per_label["B"].before.error
    means = [calibration.per_label[name].after.brier for name in "AB"]
    assert calibration.macro.after.brier == pytest.approx(np.mean(means))


def test_separated_classes_have_a_reason_for_the_missing_slope():
    truth, _, patient = simulate(4, 200)
    calibration = measure_calibration(
        truth,
        np.where(truth == 1, 0.8, 0.3),
        PlattScaling.none(1, "no validation"),
        label_names=("A",),
        patients=patient,
        learned=np.ones(1, dtype=bool),
    )
    label = calibration.per_label["A"]
    assert label.before.calibration_slope is None
    fraction = truth.mean()
    expected = np.sqrt(fraction * 0.2**2 + (1 - fraction) * 0.3**2)
    assert label.before.error == pytest.approx(expected)
    assert label.undefined_reason is None
    assert "separate positives from negatives" in label.no_slope


def test_no_label_with_enough_patients():
    truth, p, patient = simulate(4, 3)
    platt = PlattScaling.none(1, "no validation")
    calibration = measure_calibration(
        truth, p, platt, label_names=("A",), patients=patient, learned=np.ones(1, dtype=bool)
    )
    assert calibration.labels == []
    assert calibration.macro.before == calibration.macro.after == CalibrationScores()
