"""Risk-coverage curves against the mean over all orders of equally confident answers."""

from itertools import permutations

import numpy as np
import pytest

from featurecache.metrics.risk_coverage import aurc, decision_confidence, risk_coverage_curve


def test_risk_is_the_mean_over_all_orders_of_ties():
    wrong = np.array([True, False, False, True, True, False])
    confidence = np.array([3.0, 3.0, 5.0, 1.0, 3.0, 1.0])
    orders = [
        order
        for order in permutations(range(6))
        if (np.diff(confidence[list(order)]) <= 0).all()  # descending
    ]
    risks = [np.cumsum(wrong[list(order)]) / np.arange(1, 7) for order in orders]
    curve = risk_coverage_curve(wrong, confidence)
    assert curve.y == pytest.approx(np.mean(risks, axis=0))
    assert curve.x == pytest.approx(np.arange(1, 7) / 6)
    assert aurc(curve) == pytest.approx(np.mean(risks))


def test_confident_errors_cost_more():
    wrong = np.array([True, False, False, False])
    first, last = (aurc(risk_coverage_curve(wrong, c)) for c in (np.arange(4), -np.arange(4)))
    assert last == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert first == pytest.approx(1 / 16)


def test_no_answers_have_no_curve():
    curve = risk_coverage_curve(np.array([], dtype=bool), np.array([]))
    assert len(curve) == 0
    assert np.isnan(aurc(curve))


def test_confidence_is_the_distance_from_the_threshold_in_log_odds():
    confidence = decision_confidence(np.array([0.2, 0.5, 0.8, 1.0]), 0.2)
    assert confidence[:3] == pytest.approx([0, np.log(4), 2 * np.log(4)])
    assert np.isfinite(confidence).all()


def test_confidences_that_cannot_be_ordered_are_refused():
    with pytest.raises(ValueError, match="not NaN"):
        risk_coverage_curve(np.array([True]), np.array([np.nan]))
