"""Calibration against a likelihood that is maximised elsewhere, counted cases, scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss

from featurecache.errors import RunError
from featurecache.evaluation.metrics_document import metrics_document
from featurecache.evaluation.trained_model import read_platt
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.calibration import (
    brier_scores,
    calibration_document,
    calibration_errors,
    fit_common_slope,
    fit_platt,
    log_odds,
)
from featurecache.runs.folder import write_config, write_json

NAN = float("nan")


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("stretch", [0.01, 1.0, 40.0])
def test_platt_maximises_the_likelihood_of_his_targets(stretch):
    rng = np.random.default_rng(0)
    score = rng.normal(size=300)
    truth = (rng.random(300) < sigmoid(1.5 * score - 0.7)).astype(np.int8)
    score = score * stretch
    found = fit_platt(truth[:, np.newaxis], score[:, np.newaxis])

    positives = truth.sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))

    def loss(parameters):
        z = parameters[0] * score / stretch + parameters[1]
        return (np.logaddexp(0, z) - target * z).sum()

    want = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert found.slope[0] * stretch == pytest.approx(want[0], rel=1e-4)
    assert found.intercept[0] == pytest.approx(want[1], rel=1e-4)


def test_classes_that_a_score_separates_leave_the_slope_finite():
    truth = np.array([[0], [0], [1], [1]])
    found = fit_platt(truth, np.array([[-2.0], [-1.0], [1.0], [2.0]]))
    assert 0 < found.slope[0] < 10
    assert (np.diff(found(np.array([[-2.0], [-1.0], [1.0], [2.0]]))[:, 0]) > 0).all()


def test_a_common_slope_maximises_the_likelihood_with_an_intercept_for_each_label():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(200, 4)) * 30 + [0, 40, -60, 0]
    truth = (rng.random((200, 4)) < sigmoid(score / 20 + [0, -3, 2, 0])).astype(np.int8)
    truth[rng.random((200, 4)) < 0.2] = -1
    truth[:, 3] = 0  # says nothing
    found = fit_common_slope(truth, score)

    def loss(parameters):
        total = 0.0
        for c in range(3):
            known = truth[:, c] >= 0
            t, n1, n0 = truth[known, c], (truth[:, c] == 1).sum(), (truth[:, c] == 0).sum()
            target = np.where(t == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
            z = parameters[0] * score[known, c] / 20 + parameters[1 + c]
            total += (np.logaddexp(0, z) - target * z).sum()
        return total

    want = minimize(loss, np.zeros(4), tol=1e-10).x[0] / 20
    assert found == pytest.approx(want, rel=1e-4)
    assert fit_common_slope(truth, -score) == pytest.approx(-want, rel=1e-4)
    assert np.isnan(fit_common_slope(truth[:, 3:], score[:, 3:]))


@pytest.mark.parametrize("column", [[0, 0, 0], [1, 1, -1], [-1, -1, -1]])
def test_a_label_of_one_class_has_no_correction(column):
    truth = np.array([column]).T
    found = fit_platt(truth, np.zeros((3, 1)))
    assert np.isnan(found.slope).all()
    assert np.isnan(found.intercept).all()
    assert np.isnan(found(np.zeros((2, 1)))).all()


def test_calibration_error_counted_by_hand():
    probability = np.array([[0.10, 0.12, 0.90, 0.95, 0.5]]).T
    truth = np.array([[0, 1, 1, 1, -1]]).T
    # Bins of a fifteenth: {0.10, 0.12} is [1/15, 2/15), {0.90} and {0.95} are apart (13.5, 14.25).
    want = (abs(0.22 - 1) + abs(0.90 - 1) + abs(0.95 - 1)) / 4
    assert calibration_errors(truth, probability) == pytest.approx([want])


def test_true_probabilities_are_nearly_calibrated_and_bold_ones_are_not():
    rng = np.random.default_rng(1)
    probability = rng.random((20_000, 1))
    truth = (rng.random((20_000, 1)) < probability).astype(np.int8)
    assert calibration_errors(truth, probability)[0] < 0.02
    assert calibration_errors(truth, sigmoid(3 * log_odds(probability)))[0] > 0.1


def test_brier_is_scikit_learns_and_draws_repeat_rows():
    rng = np.random.default_rng(2)
    truth = rng.integers(-1, 2, size=(60, 2))
    probability = rng.random((60, 2))
    for c in range(2):
        known = truth[:, c] >= 0
        want = brier_score_loss(truth[known, c], probability[known, c])
        assert brier_scores(truth, probability)[c] == pytest.approx(want)
    n_bootstrap = resample_patients([f"p{row // 3}" for row in range(60)], n_bootstrap=5, seed=0)
    for metric in (brier_scores, calibration_errors):
        drawn = metric(truth, probability, n_bootstrap)
        for draw, counts in enumerate(n_bootstrap.row_counts()):
            rows = np.repeat(np.arange(60), counts)
            assert drawn[draw] == pytest.approx(metric(truth[rows], probability[rows]))


def test_the_document_shows_that_platt_mends_overconfidence():
    rng = np.random.default_rng(3)
    true_odds = rng.normal(size=(4000, 2))
    truth = (rng.random((4000, 2)) < sigmoid(true_odds)).astype(np.int8)
    truth[:, 1] = 0
    score = 4 * true_odds
    platt = fit_platt(truth[:2000], score[:2000])
    document = calibration_document(
        truth[2000:],
        score[2000:],
        sigmoid(score[2000:]),
        platt,
        label_names=("A", "B"),
        patients=np.array([f"p{row}" for row in range(2000)]),
        n_bootstrap=100,
        seed=0,
    )
    label = document["per_label"]["A"]
    assert label["slope"] == pytest.approx(0.25, rel=0.15)
    assert label["before"]["ece"] > 0.15
    assert label["after"]["ece"] < 0.05
    assert label["after"]["brier"] < label["before"]["brier"]
    assert document["per_label"]["B"]["after"] == {"ece": None, "brier": None}
    assert document["macro"]["before"]["ece"] == label["before"]["ece"]
    low, high = document["ci95"]["after"]["ece"]
    assert 0 < low < high < document["ci95"]["before"]["ece"][0]


def metrics_of(truth, probability, label_names):
    """All that metrics.json holds, but for the calibration."""
    metrics = metrics_document(
        truth,
        probability,
        label_names=label_names,
        thresholds=np.full(len(label_names), 0.5),
        patients=np.arange(len(truth)),
        split="test",
        n_bootstrap=0,
    )
    return {**metrics, "at_half": metrics, "controls": {}}


def test_a_runs_correction_is_read_in_the_order_of_its_labels(tmp_path):
    rng = np.random.default_rng(5)
    truth = (rng.random((60, 3)) < 0.5).astype(np.int8)
    truth[:, 2] = 0
    score = rng.normal(size=(60, 3))
    fitted = fit_platt(truth, score)
    document = calibration_document(
        truth,
        score,
        sigmoid(score),
        fitted,
        label_names=("b", "a", "c"),
        patients=np.arange(60).astype(str),
        n_bootstrap=0,
        seed=0,
    )
    write_config(tmp_path, "head", {})
    metrics = metrics_of(truth, sigmoid(score), ("b", "a", "c"))
    write_json(tmp_path / "metrics.json", {**metrics, "calibration": document})
    read = read_platt(tmp_path)
    assert read is not None
    np.testing.assert_array_equal(read.slope, fitted.slope)
    np.testing.assert_array_equal(read.intercept, fitted.intercept)


def test_a_run_without_a_correction_has_none_and_a_damaged_one_is_refused(tmp_path):
    write_config(tmp_path, "head", {})
    metrics = metrics_of(np.array([[0], [1]]), np.array([[0.5], [0.5]]), ("a",))
    write_json(tmp_path / "metrics.json", {**metrics, "calibration": None})
    assert read_platt(tmp_path) is None
    write_json(tmp_path / "metrics.json", {**metrics, "calibration": {}})
    with pytest.raises(RunError, match="make the run again"):
        read_platt(tmp_path)
