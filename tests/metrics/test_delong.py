"""DeLong's interval against his formulas, computed pair by pair."""

import numpy as np
import pytest

from featurecache.metrics.delong import delong_interval, measure_delong
from featurecache.metrics.ranking import auroc


def pairwise_variance(positive: np.ndarray, negative: np.ndarray) -> float:
    """The sum of the variances of the structural components (DeLong et al. 1988, equation 5)."""
    kernel = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    area, m, n = kernel.mean(), len(positive), len(negative)
    s10 = ((kernel.mean(axis=1) - area) ** 2).sum() / (m - 1)
    s01 = ((kernel.mean(axis=0) - area) ** 2).sum() / (n - 1)
    return float(s10 / m + s01 / n)


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "no ties"])
def test_interval_is_that_of_the_structural_components(decimals):
    rng = np.random.default_rng(1)
    truth = rng.integers(-1, 2, 90)
    score = np.round(rng.normal(size=90) + 0.7 * (truth == 1), decimals)
    error = 1.96 * np.sqrt(pairwise_variance(score[truth == 1], score[truth == 0]))
    area = auroc(truth, score)
    assert delong_interval(truth, score) == pytest.approx((area - error, area + error), abs=1e-5)


def test_interval_is_clipped():
    truth = np.array([0, 0, 0, 1, 1, 1])
    low, high = delong_interval(truth, np.array([1.0, 2, 4, 3, 5, 6]))
    assert 0.5 < low < 1
    assert high == 1


@pytest.mark.parametrize("truth", [[0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, -1]])
def test_interval_without_variance_is_undefined(truth):
    assert delong_interval(np.array(truth), np.arange(4.0)) is None


def test_only_independent_images_have_intervals():
    rng = np.random.default_rng(2)
    truth = np.repeat([[0, 1, 0], [1, 0, 0]], 20, axis=0)
    score = rng.normal(size=(40, 3)) + truth
    score[:, 1] = truth[:, 1]

    def measure(patients: np.ndarray, *, known: bool = True):
        return measure_delong(
            truth,
            score,
            label_names=("Mass", "Nodule", "Hernia"),
            patients=patients,
            learned=np.array([True, True, True]),
            patients_known=known,
        )

    independent = measure(np.arange(40))
    assert independent.per_label["Mass"].auroc == delong_interval(truth[:, 0], score[:, 0])
    reasons = [label.reason for label in independent.per_label.values()]
    assert reasons[0] is None
    assert "separate" in reasons[1]
    assert "no patient has a positive image" in reasons[2]
    for measured, reason in (
        (measure(np.arange(40) // 2), "a patient has several images"),
        (measure(np.arange(40), known=False), "patients are unknown"),
    ):
        assert reason in measured.reason
        assert {label.auroc for label in measured.per_label.values()} == {None}
