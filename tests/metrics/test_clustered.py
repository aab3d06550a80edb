"""Estimates over patients against the bootstrap over patients, and their coverage in simulation."""

import numpy as np
import pytest

from featurecache.metrics.bootstrap import bootstrap_metrics, resample_patients
from featurecache.metrics.clustered import METRICS, clustered_estimates
from featurecache.metrics.delong import Placements
from featurecache.metrics.intervals import label_intervals
from featurecache.metrics.multilabel import compute_metrics


def simulate(rng, n_patients, *, shift=1.0, images=2):
    """Scores whose AUROC is known, of patients whose images resemble each other."""
    patient = np.repeat(np.arange(n_patients), images)
    truth = (rng.random(n_patients) < 0.4)[patient].astype(np.int8)
    own = rng.normal(size=n_patients)[patient]
    score = (own + rng.normal(size=len(patient))) / np.sqrt(2) + shift * truth
    return truth, score, patient


@pytest.fixture
def sample():
    rng = np.random.default_rng(1)
    truth, score, patient = simulate(rng, 150)
    columns = np.stack([truth, truth], axis=1)
    columns[:150, 1] = -1  # a group of its own, which shares patients with the first column
    columns[rng.random(columns.shape) < 0.1] = -1
    return columns, np.stack([score, score], axis=1), patient


@pytest.mark.parametrize("metric", METRICS)
def test_values_variances_and_covariances_are_those_of_the_bootstrap(sample, metric):
    truth, score, patient = sample
    resamples = resample_patients(patient, n_bootstrap=4000, seed=0)
    name = "specificity" if metric == "fpr" else metric
    samples = bootstrap_metrics(truth, score > 0.5, score, resamples).per_label[name]
    estimates = clustered_estimates(metric, truth, score > 0.5, score, resamples.patient_index)
    values = compute_metrics(truth, score > 0.5, score).per_label[name]
    if metric == "fpr":
        samples, values = 1 - samples, 1 - values
    np.testing.assert_allclose(estimates.values, np.ravel(values))
    covariance = estimates.influence.T @ estimates.influence
    np.testing.assert_allclose(covariance, np.cov(samples.T), rtol=0.1)
    by_bootstrap = label_intervals(metric, estimates.values, samples, estimates.patients)
    np.testing.assert_allclose(estimates.intervals(), by_bootstrap, atol=0.004)


def test_variance_of_independent_images_is_delongs():
    truth, score, patient = simulate(np.random.default_rng(2), 90, images=1)
    columns = truth[:, None], score[:, None] > 0.5, score[:, None]
    estimates = clustered_estimates("auroc", *columns, patient)
    placements = Placements.of(score[truth == 1], score[truth == 0])
    # But for n / (n - 1) of both classes.
    assert (estimates.influence**2).sum() == pytest.approx(placements.variance, rel=0.04)


def test_difference_excludes_zero_at_its_p_value(sample):
    truth, score, patient = sample
    score = score + 0.5 * (truth == 1) * [0, 1]
    estimates = clustered_estimates("auroc", truth, score > 0.5, score, patient)
    first, second = np.array([0]), np.array([1])
    (p,) = estimates.p_values(first, second)
    assert 1e-6 < p < 0.5
    for error, excluded in ((1.01 * p, True), (0.99 * p, False)):
        difference, low, high = estimates.differences(first, second, error=error)
        assert difference == estimates.values[0] - estimates.values[1]
        assert ((low > 0) | (high < 0)).tolist() == [excluded]


def test_undefined_estimates_stay_undefined():
    truth = np.array([[1, 0], [1, -1]])
    estimates = clustered_estimates("auroc", truth, truth > 0, truth * 1.0, np.arange(2))
    assert np.isnan(estimates.values).all()
    assert np.isnan(estimates.p_values(np.array([0]), np.array([1]))).all()


@pytest.mark.parametrize(("metric", "gap"), [("auroc", 0.0953), ("recall", 0.1915)])
def test_known_gap_is_covered_and_equal_groups_are_seldom_called_different(metric, gap):
    """Groups with shifts of 1.5 and 1.0, then of 1.0 both; two images per patient."""
    rng = np.random.default_rng(3)
    covered, called = [], []
    for _ in range(200):
        groups = [simulate(rng, 60, shift=shift) for shift in (1.5, 1.0, 1.0)]
        n = len(groups[0][0])
        truth = np.full((3 * n, 3), -1)
        for k, (labels, _, _) in enumerate(groups):
            truth[k * n : (k + 1) * n, k] = labels
        score = np.concatenate([scores for _, scores, _ in groups])[:, None].repeat(3, axis=1)
        patient = np.concatenate([60 * k + own for k, (_, _, own) in enumerate(groups)])
        estimates = clustered_estimates(metric, truth, score > 1, score, patient)
        _, low, high = estimates.differences(np.array([0, 1]), np.array([1, 2]))
        covered.append(low[0] <= gap <= high[0])
        called.append(not low[1] <= 0 <= high[1])
    # Standard errors are 0.016.
    assert np.mean(covered) > 0.92
    assert np.mean(called) < 0.085
