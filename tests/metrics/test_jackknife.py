"""The jackknife against closed forms, DeLong's variance by pairs, and SciPy's t test."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from featurecache.metrics import jackknife
from featurecache.metrics.jackknife import (
    degrees_of_freedom,
    leave_one_out,
    mean_interval,
    standard_error,
    t_interval,
    t_test,
)
from featurecache.metrics.label_support import MIN_PATIENTS


def test_each_patient_is_left_out_once():
    samples = leave_one_out(["b", "a", "b", "c"])
    assert samples.patient_index.tolist() == [1, 0, 1, 2]
    assert samples.counts.tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_many_patients_are_left_out_in_groups(monkeypatch):
    monkeypatch.setattr(jackknife, "MAX_GROUPS", 4)
    patients = [f"p{number}" for number in range(10)]
    samples = leave_one_out(patients * 2)
    assert samples.counts.shape == (5, 4)
    assert samples.patient_index[:10].tolist() == samples.patient_index[10:].tolist()
    assert sorted(np.bincount(samples.patient_index[:10])) == [2, 2, 3, 3]
    with pytest.raises(ValueError, match="1 row has no patient"):
        leave_one_out(["a", ""])


def left_out(statistic, n):
    """Return a statistic of all of n rows, then of all but one."""
    rows = np.arange(n)
    return np.array([statistic(rows), *(statistic(np.delete(rows, i)) for i in rows)])


def test_a_mean_is_tested_as_by_a_t_test():
    values = np.random.default_rng(0).normal(0.4, size=12)
    means = left_out(lambda rows: values[rows].mean(), 12)
    error = standard_error(means)
    assert error == pytest.approx(stats.sem(values))
    expected = stats.ttest_1samp(values, 0)
    assert t_test(means[0], error, 11) == pytest.approx(expected.pvalue)
    interval = t_interval(means[0], error, 11, limits=(-9, 9))
    assert interval == pytest.approx(tuple(expected.confidence_interval()))
    assert t_interval(means[0], error, 11, limits=(0, 0.5)) == (max(0, interval[0]), 0.5)


def test_of_an_auroc_it_is_the_variance_of_delong():
    rng = np.random.default_rng(1)
    truth = np.repeat([1, 0], [7, 30])
    one, two = rng.normal(truth[:, np.newaxis], size=(37, 2)).round(1).T

    def difference(rows):
        return roc_auc_score(truth[rows], two[rows]) - roc_auc_score(truth[rows], one[rows])

    # DeLong et al. (1988): the wins of each positive and of each negative, pair by pair.
    wins = [
        np.array([[(p > q) + 0.5 * (p == q) for q in s[truth == 0]] for p in s[truth == 1]])
        for s in (one, two)
    ]
    gained = wins[1] - wins[0]
    by_positive, by_negative = gained.mean(axis=1).var(ddof=1), gained.mean(axis=0).var(ddof=1)
    delong = by_positive / 7 * 7 / 6 + by_negative / 30 * 30 / 29
    values = left_out(difference, 37)
    assert standard_error(values) ** 2 == pytest.approx(36 / 37 * delong)


def test_degrees_of_freedom_are_those_of_the_few_positive_patients():
    truth = np.repeat([1, 0], [5, 100])[:, np.newaxis]
    alone = np.arange(105)
    expected = (1 / 5 + 1 / 100) ** 2 / (1 / 5**3 + 1 / 100**3) - 1
    assert degrees_of_freedom(truth, alone) == pytest.approx(expected)
    assert 4 < expected < 5
    # A second label of the same patients adds nothing, one of other patients does.
    assert degrees_of_freedom(np.hstack([truth, truth]), alone) == pytest.approx(expected)
    assert degrees_of_freedom(np.hstack([truth, truth[::-1]]), alone) > 2 * expected
    # Most positive images of one patient: as of the fewest patients that have an interval.
    assert degrees_of_freedom(truth, np.maximum(alone, 4)) == MIN_PATIENTS - 1
    # Unknown labels do not count.
    unknown = np.vstack([truth, np.full((9, 1), -1)])
    assert degrees_of_freedom(unknown, np.arange(114)) == pytest.approx(expected)


def test_the_interval_of_a_mean_over_trainings_adds_their_variance():
    rng = np.random.default_rng(2)
    values = rng.normal(0.7, 0.03, size=(5, 12))
    mean = values.mean(axis=0)
    patients, trainings = standard_error(mean) ** 2, stats.sem(values[:, 0]) ** 2
    dof = (patients + trainings) ** 2 / (patients**2 / 8 + trainings**2 / 4)
    expected = stats.t(dof, mean[0], np.sqrt(patients + trainings)).interval(0.95)
    assert mean_interval(values, 8, limits=(0, 1)) == pytest.approx(expected)
    one = stats.t(8, values[0, 0], standard_error(values[0])).interval(0.95)
    assert mean_interval(values[:1], 8, limits=(-1, 2)) == pytest.approx(one)
    assert mean_interval(np.full((3, 4), 0.1 + 0.2), 8, limits=(0, 1)) is None
    values[2, 3] = np.nan
    assert mean_interval(values, 8, limits=(0, 1)) is None
