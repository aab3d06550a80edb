"""Net benefit, counted image by image."""

import numpy as np
import pytest

from featurecache.metrics.decision_curve import decision_curve


def test_net_benefit_is_that_of_counting():
    rng = np.random.default_rng(4)
    truth = rng.integers(-1, 2, 60)
    probability = np.round(rng.random(60), 1)  # many are at a threshold
    curve = decision_curve(truth, probability, np.array([0.1, 0.3, 0.5, 0.95]))
    known = truth >= 0
    for t, model, everybody in zip(curve.threshold, curve.model, curve.treat_all, strict=True):
        for treated, expected in ((probability >= t, model), (known, everybody)):
            tp = sum(treated & (truth == 1))
            fp = sum(treated & (truth == 0))
            assert expected == pytest.approx((tp - fp * t / (1 - t)) / known.sum())


def test_perfect_probabilities_are_worth_the_prevalence():
    truth = np.array([1, 0, 0, 0])
    curve = decision_curve(truth, truth.astype(float), np.linspace(0.01, 0.99, 5))
    assert curve.model == pytest.approx([0.25] * 5)


def test_without_known_labels_it_is_undefined():
    curve = decision_curve(np.array([-1]), np.array([0.5]), np.array([0.2]))
    assert np.isnan([*curve.model, *curve.treat_all]).all()


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_thresholds_without_odds_are_refused(threshold):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        decision_curve(np.array([1]), np.array([0.5]), np.array([threshold]))
