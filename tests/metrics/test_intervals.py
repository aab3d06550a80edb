"""Score intervals against root finding with SciPy, and their coverage in simulation."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binomtest, t

from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.intervals import (
    PRIOR_DF,
    EffectivePatients,
    effective_number,
    label_intervals,
    macro_interval,
    pooled_interval,
)
from featurecache.metrics.sampled_metrics import MeanMetrics, sample_metrics


def patients(n_positive, n_negative):
    """One image per patient, half of which are predicted positive."""
    positive, negative = np.array([n_positive, n_negative], dtype=float)
    known = positive + negative
    return EffectivePatients(
        positive=positive,
        negative=negative,
        predicted=known / 2,
        not_predicted=known / 2,
        in_f1=positive + negative / 2,
        known=known,
    )


def newcombe(theta, m, n):
    """Variance of method 5, written out as in the paper (Newcombe 2006, part 2, section 2)."""
    n_star = (m + n) / 2 - 1
    inner = 1 + n_star * (1 - theta) / (2 - theta) + n_star * theta / (1 + theta)
    return theta * (1 - theta) * inner / (m * n)


def samples_with(variance, mean):
    """Two bootstrap values of a given mean and (unbiased) variance."""
    return np.array([[mean - np.sqrt(variance / 2)], [mean + np.sqrt(variance / 2)]])


@pytest.mark.parametrize(("auroc", "m", "n"), [(0.8, 7, 90), (0.55, 30, 30), (0.97, 5, 200)])
def test_auroc_interval_is_newcombes_where_the_bootstrap_agrees_with_its_formula(auroc, m, n):
    # (m - 1) / m: n / (n - 1) times the bootstrap's variance is the unbiased one.
    samples = samples_with(newcombe(auroc, m, n) * (m - 1) / m, auroc)
    (low,), (high,) = label_intervals("auroc", np.array([auroc]), samples, patients([m], [n]))
    distance = t.ppf(0.975, PRIOR_DF + m - 1)

    def gap(theta):
        return abs(auroc - theta) - distance * np.sqrt(newcombe(theta, m, n))

    assert low == pytest.approx(brentq(gap, 1e-9, auroc), abs=1e-6)
    assert high == pytest.approx(brentq(gap, auroc, 1 - 1e-12), abs=1e-6)


def test_recall_of_many_patients_is_wilsons():
    n = 4000
    samples = samples_with(0.7 * 0.3 / n, 0.7)
    (low,), (high,) = label_intervals("recall", np.array([0.7]), samples, patients([n], [n]))
    expected = binomtest(2800, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_larger_variance_of_the_bootstrap_makes_the_interval_wider():
    widths = []
    for factor in (0.3, 1, 3):
        samples = samples_with(factor * newcombe(0.8, 40, 90), 0.8)
        low, high = label_intervals("auroc", np.array([0.8]), samples, patients([40], [90]))
        widths.append(high[0] - low[0])
    assert widths == sorted(widths)
    assert widths[2] > 1.3 * widths[1]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("metric", ["auroc", "auprc", "f1", "recall", "accuracy"])
def test_extreme_values_have_intervals_of_some_width(metric, value):
    samples = np.full((50, 1), value)
    (low,), (high,) = label_intervals(metric, np.array([value]), samples, patients([5], [40]))
    assert low <= value <= high
    assert 0.02 < high - low < 0.7
    pooled = pooled_interval(value, samples[:, 0], 20)
    assert pooled[0] <= value <= pooled[1]
    assert pooled[1] - pooled[0] > 0.1


def test_patients_with_many_images_count_less():
    assert effective_number(np.ones(12)) == 12
    assert effective_number(np.array([0.0, 3, 3])) == 2
    assert effective_number(np.array([50.0, 1, 1, 1, 1])) < 1.2
    confusions = np.zeros((3, 1, 2, 2))
    confusions[0, 0] = [[4, 0], [0, 1]]
    confusions[1, 0] = [[0, 2], [1, 0]]
    confusions[2, 0] = [[0, 0], [0, 1]]
    counted = EffectivePatients.count(confusions)
    assert counted.positive == 3
    assert counted.negative == pytest.approx(36 / 20)
    assert counted.predicted == pytest.approx(16 / 6)
    assert counted.in_f1 == pytest.approx(25 / 11)


def test_labels_that_vary_together_have_a_wider_mean():
    rng = np.random.default_rng(0)
    values, counts = np.full(6, 0.8), patients([20] * 6, [100] * 6)
    common = rng.normal(size=(400, 1))
    apart = 0.8 + 0.05 * rng.normal(size=(400, 6))
    together = 0.8 + 0.05 * np.repeat(common, 6, axis=1)
    independent = macro_interval("auroc", values, apart, counts)
    dependent = macro_interval("auroc", values, together, counts)
    assert independent[0] > dependent[0]
    assert independent[1] - independent[0] < 0.6 * (dependent[1] - dependent[0])
    # Of one label, it is the label's.
    alone = macro_interval("auroc", values[:1], apart[:, :1], patients([20], [100]))
    (low,), (high,) = label_intervals("auroc", values[:1], apart[:, :1], patients([20], [100]))
    assert alone == (low, high)


def test_trainings_that_differ_widen_the_interval_of_their_mean():
    samples = 0.8 + 0.03 * np.random.default_rng(0).normal(size=(300, 4))
    arguments = ("auroc", np.full(4, 0.8), samples, patients([20] * 4, [100] * 4))
    widths = []
    for spread in (0.0, 0.02, 0.1):
        trainings = 0.8 + spread * np.array([-1.0, 0, 1])
        low, high = macro_interval(*arguments, trainings=trainings)
        widths.append(high - low)
    assert widths[0] < widths[1] < widths[2]
    # The patients' variance, and 0.1^2 / 3 with two degrees of freedom.
    assert widths[2] > 2 * 2.9 * 0.1 / np.sqrt(3)


def simulate(rng, n_positive, n_negative, shift):
    """Two images per patient, whose scores correlate by 0.5."""
    ill = np.repeat(np.arange(n_positive + n_negative) < n_positive, 2)
    n = len(ill) // 2
    of_patient = np.repeat(rng.normal(size=n), 2)
    score = np.sqrt(0.5) * (of_patient + rng.normal(size=2 * n)) + shift * ill
    return ill.astype(np.int8)[:, np.newaxis], score[:, np.newaxis], np.repeat(np.arange(n), 2)


@pytest.mark.parametrize(
    ("n_positive", "auroc"), [(1, 0.9), (2, 0.65), (4, 0.9), (6, 0.65), (10, 0.9), (25, 0.65)]
)
def test_auroc_intervals_hold_with_few_positive_patients(n_positive, auroc):
    rng = np.random.default_rng(n_positive)
    shift, held = ndtri(auroc) * np.sqrt(2), []
    for simulation in range(120):
        truth, score, patient = simulate(rng, n_positive, 60, shift)
        resamples = resample_patients(patient, n_bootstrap=60, seed=simulation)
        sampled = sample_metrics(truth, score > 0, score, resamples, np.array([True]))
        estimate = MeanMetrics([sampled]).label("auroc", 0, always=True)
        low, high = estimate.ci95
        assert low <= estimate.value <= high
        held.append(low <= auroc <= high)
    # A true 94 % is below 0.88 in one of two hundred.
    assert np.mean(held) >= 0.88


def test_macro_auroc_interval_holds_with_rare_labels():
    rng = np.random.default_rng(0)
    aurocs = np.array([0.8, 0.7, 0.9, 0.75, 0.85, 0.8])
    held, n_sets = [], set()
    for simulation in range(200):
        truth = (rng.random((50, 6)) < [0.1, 0.1, 0.03, 0.2, 0.03, 0.1]).astype(np.int8)
        score = rng.normal(size=(50, 6)) + 0.7 * rng.normal(size=(50, 1))
        score = score / np.sqrt(1.49) + truth * ndtri(aurocs) * np.sqrt(2)
        resamples = resample_patients(np.arange(50), n_bootstrap=60, seed=simulation)
        sampled = sample_metrics(truth, score > 1, score, resamples, np.ones(6, dtype=bool))
        mean = MeanMetrics([sampled])
        estimate = mean.macro("auroc")
        if estimate.ci95 is None:
            continue
        n_sets.add(int(mean.macro_labels.sum()))
        low, high = estimate.ci95
        held.append(low <= aurocs[mean.macro_labels].mean() <= high)
    assert len(n_sets) > 1
    assert len(held) > 150
    assert np.mean(held) >= 0.9


def test_the_labels_of_a_macro_average_do_not_depend_on_the_resample():
    """A label with one positive patient is missing from a third of the bootstrap samples."""
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 2), dtype=np.int8)
    truth[:20, 0] = truth[0, 1] = 1
    score = rng.random((60, 2)) + 0.5 * truth
    score[0, 1] = 10  # the rare label's AUROC is 1, the other's is not
    resamples = resample_patients(np.arange(60), n_bootstrap=200, seed=0)
    both = MeanMetrics([sample_metrics(truth, score > 1, score, resamples, np.ones(2, dtype=bool))])
    assert both.macro_labels.all()
    rare = both.label("auroc", 1, always=True)
    assert both.label("auroc", 1).ci95 is None
    # Half of the rare label's uncertainty is in the mean, which no resample of the label shows.
    low, _ = both.macro("auroc").ci95
    assert both.macro("auroc").value - low > 0.4 * (rare.value - rare.ci95[0]) / 2
    assert np.isnan(both.trainings[0].arrays.per_label["auroc"][1:, 1]).any()


def test_averages_without_any_supported_label_have_no_interval():
    truth = np.zeros((40, 1), dtype=np.int8)
    truth[:4] = 1
    score = np.arange(40.0)[:, np.newaxis]
    resamples = resample_patients(np.arange(40), n_bootstrap=50, seed=0)
    mean = MeanMetrics([sample_metrics(truth, score > 3, score, resamples, np.array([True]))])
    for estimate in (mean.label("auroc", 0), mean.macro("auroc"), mean.micro("auroc")):
        assert estimate.value == 0
        assert estimate.ci95 is None
    assert mean.exact_match.ci95 is not None  # of 40 patients


def test_a_label_that_is_missing_from_all_samples_counts_in_the_average():
    samples = np.random.default_rng(0).uniform(0.6, 0.9, size=(30, 3))
    values, counts = np.array([0.8, 0.7, 0.75]), patients([1, 20, 20], [50, 50, 50])
    for metric in ("auroc", "auprc", "f1"):
        complete = macro_interval(metric, values, samples, counts)
        missing = samples.copy()
        missing[:, 0] = np.nan
        low, high = macro_interval(metric, values, missing, counts)
        assert low < values.mean() < high
        assert high - low > 0.5 * (complete[1] - complete[0])
