"""Predictive values at a stated prevalence: by hand, by counting, and by simulation."""

import numpy as np
import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.predictive_values import predictive_values, resolve_prevalence


def test_values_computed_by_hand():
    # Of 1,000 people 100 are ill: 90 of them and 180 of the others are called positive.
    values = predictive_values(0.9, 0.8, 0.1)
    assert values.ppv == pytest.approx(90 / 270)
    assert values.npv == pytest.approx(720 / 730)
    assert (values.ci95.ppv, values.ci95.npv) == (None, None)


def test_at_the_prevalence_of_the_data_they_are_those_of_the_confusion_matrix():
    tn, fp, fn, tp = 60, 15, 5, 20
    values = predictive_values(tp / (tp + fn), tn / (tn + fp), (tp + fn) / (tn + fp + fn + tp))
    assert values.ppv == pytest.approx(tp / (tp + fp))
    assert values.npv == pytest.approx(tn / (tn + fn))


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "ppv", "npv"),
    [
        (None, 0.5, None, None),
        (0.0, 1.0, None, 0.9),  # nothing is called positive
        (1.0, 0.0, 0.1, None),
        (0.5, 1.0, 1.0, 0.9 / 0.95),
        (1.0, 0.5, 0.1 / 0.55, 1.0),
    ],
)
def test_extremes(sensitivity, specificity, ppv, npv):
    values = predictive_values(
        sensitivity,
        specificity,
        0.1,
        sensitivity_ci=None if sensitivity is None else (0.9 * sensitivity, 1.0),
        specificity_ci=(0.9 * specificity, 1.0),
    )
    for value, expected, interval in (
        (values.ppv, ppv, values.ci95.ppv),
        (values.npv, npv, values.ci95.npv),
    ):
        assert value == (None if expected is None else pytest.approx(expected))
        assert (interval is None) == (value is None)
        assert value is None or interval[0] <= value <= interval[1]


def wilson(k: int, n: int) -> tuple[float, float]:
    p, z2 = k / n, 1.96**2
    middle, half = p + z2 / (2 * n), np.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n)
    return max((middle - half) / (1 + z2 / n), 0.0), min((middle + half) / (1 + z2 / n), 1.0)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.8, 0.9), (0.95, 0.6)])
def test_intervals_have_nominal_coverage(sensitivity, specificity):
    rng = np.random.default_rng(3)
    truth = predictive_values(sensitivity, specificity, 0.05)
    covered = []
    for _ in range(800):
        found, cleared = int(rng.binomial(25, sensitivity)), int(rng.binomial(60, specificity))
        values = predictive_values(
            found / 25,
            cleared / 60,
            0.05,
            sensitivity_ci=wilson(found, 25),
            specificity_ci=wilson(cleared, 60),
        )
        for name in ("ppv", "npv"):
            interval = getattr(values.ci95, name)
            if interval is not None:
                covered.append(interval[0] <= getattr(truth, name) <= interval[1])
    # Its standard error is 0.0055.
    assert np.mean(covered) > 0.935


def test_prevalence_by_label():
    assert resolve_prevalence(0.2, ["Mass", "Nodule"]) == {"Mass": 0.2, "Nodule": 0.2}
    assert resolve_prevalence({"Mass": 0.3}, ["Mass", "Nodule"]) == {"Mass": 0.3}
    with pytest.raises(UnknownNameError, match="did you mean Mass"):
        resolve_prevalence({"Masss": 0.3}, ["Mass", "Nodule"])
    with pytest.raises(UsageError, match="`prevalence` is 5: must be above 0 and below 1"):
        resolve_prevalence(5, ["Mass"])
