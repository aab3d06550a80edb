"""Compare Platt scaling with a generic optimizer, and check when there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from featurecache.metrics.calibration import measure_calibration
from featurecache.metrics.platt_scaling import (
    PlattScaling,
    describe_platt,
    fit_common_slope,
    fit_platt,
    fit_platt_where_it_helps,
)

LEARNED = np.ones(1, dtype=bool)


def simulate(seed, n, *, base=0.0, factor=1.0):
    """Return labels and scores of n images: log odds times ``factor``."""
    rng = np.random.default_rng(seed)
    score = rng.normal(base, 1.5, size=(n, 1))
    truth = (rng.random((n, 1)) < expit(score)).astype(np.int8)
    return truth, factor * score


@pytest.mark.parametrize("factor", [0.01, 1.0, 40.0])
def test_platt_scaling_maximizes_the_likelihood_of_soft_targets(factor):
    rng = np.random.default_rng(0)
    score = rng.normal(size=300)
    truth = (rng.random(300) < expit(1.5 * score - 0.7)).astype(np.int8)
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
    assert fitted.reasons == (None,)


def test_separable_classes_have_a_finite_slope():
    truth = np.array([[0], [0], [1], [1]])
    fitted = fit_platt(truth, np.array([[-2.0], [-1.0], [1.0], [2.0]]))
    assert 0 < fitted.slope[0] < 10
    assert (np.diff(fitted(np.array([[-2.0], [-1.0], [1.0], [2.0]]))[:, 0]) > 0).all()


@pytest.mark.parametrize("fit", [fit_platt, fit_platt_where_it_helps])
def test_reversed_scores_get_no_platt_scaling(fit):
    truth, score = simulate(0, 200)
    arguments = () if fit is fit_platt else (np.arange(200),)
    options = {} if fit is fit_platt else {"learned": LEARNED}
    fitted = fit(truth, -score, *arguments, **options)
    assert np.isnan(fitted.slope[0])
    assert np.isnan(fitted.intercept[0])
    assert np.isnan(fitted(score)).all()
    assert fitted.reasons == ("on validation images, the scores of positives are not higher",)


@given(
    truth=st.lists(st.integers(0, 1), min_size=4, max_size=12),
    seed=st.integers(0, 100),
    factor=st.sampled_from([-1e3, -1.0, 1e-3, 1.0, 1e3]),
)
@settings(max_examples=60, deadline=None)
def test_no_scores_are_turned_upside_down(truth, seed, factor):
    score = factor * np.random.default_rng(seed).normal(size=(len(truth), 1))
    fitted = fit_platt(np.array(truth)[:, np.newaxis], score)
    if np.isnan(fitted.slope[0]):
        assert fitted.reasons[0] is not None
    else:
        assert fitted.slope[0] > 0
        order = np.argsort(score[:, 0])
        assert (np.diff(fitted(score)[order, 0]) >= 0).all()


@pytest.mark.parametrize("column", [[0, 0, 0], [1, 1, -1], [-1, -1, -1]])
def test_label_with_one_class_has_no_platt_scaling(column):
    truth = np.array([column]).T
    fitted = fit_platt(truth, np.zeros((3, 1)))
    assert np.isnan(fitted.slope).all()
    assert np.isnan(fitted.intercept).all()
    assert np.isnan(fitted(np.zeros((2, 1)))).all()
    missing = "negative" if 1 in column else "positive"
    assert fitted.reasons == (f"no validation image is {missing}",)


def test_one_positive_patient_is_too_few():
    truth = np.zeros((100, 1), np.int8)
    truth[:7] = 1  # seven images of one patient, with the highest scores
    patients = np.array(["a"] * 7 + [f"p{row}" for row in range(93)])
    score = np.linspace(3, -3, 100)[:, np.newaxis]
    assert fit_platt(truth, score).slope[0] > 0
    fitted = fit_platt_where_it_helps(truth, score, patients, learned=LEARNED)
    assert np.isnan(fitted.slope[0])
    assert fitted.reasons == (
        "in the validation split, only 1 patient has a positive image, and at least 5 are needed",
    )


def test_overconfidence_is_corrected_and_right_probabilities_are_left_as_they_are():
    truth, score = simulate(1, 400, factor=3.0)
    patients = np.arange(400) // 2
    fitted = fit_platt_where_it_helps(truth, score, patients, learned=LEARNED)
    expected = fit_platt(truth, score)
    assert fitted.slope[0] == expected.slope[0] == pytest.approx(1 / 3, rel=0.2)
    assert fitted.reasons == (None,)

    # The targets shrink toward one half, so that right probabilities cannot gain on average.
    reasons = []
    for seed in range(20):
        truth, score = simulate(seed, 60, base=-1.5)
        fitted = fit_platt_where_it_helps(truth, score, np.arange(60), learned=LEARNED)
        reasons += fitted.reasons
    refused = [reason for reason in reasons if reason and "does not lower the log loss" in reason]
    assert len(refused) >= 12


def test_held_out_log_loss_groups_by_patient():
    """The images of a patient are copies: a split by image would learn chance by heart."""
    patients = np.repeat(np.arange(12), 30)
    truth = (patients < 6).astype(np.int8)[:, np.newaxis]
    score = 0.1 * np.random.default_rng(12).normal(size=12)[patients, np.newaxis]
    by_image = fit_platt_where_it_helps(truth, score, np.arange(360), learned=LEARNED)
    by_patient = fit_platt_where_it_helps(truth, score, patients, learned=LEARNED)
    assert by_image.slope[0] > 0
    assert np.isnan(by_patient.slope[0])


def test_a_label_that_was_not_learned_has_none():
    truth, score = simulate(1, 400, factor=3.0)
    fitted = fit_platt_where_it_helps(truth, score, np.arange(400), learned=np.zeros(1, dtype=bool))
    assert fitted.reasons == (
        "it was not learned: no training image is positive, or none is negative",
    )
    assert np.isnan(fitted.slope[0])


def test_common_slope_maximizes_the_likelihood_with_an_intercept_per_label():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(200, 4)) * 30 + [0, 40, -60, 0]
    truth = (rng.random((200, 4)) < expit(score / 20 + [0, -3, 2, 0])).astype(np.int8)
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
    # Negative, so that its caller can refuse scores that rank the wrong way round.
    assert fit_common_slope(truth, -score) == pytest.approx(-expected, rel=1e-4)
    assert np.isnan(fit_common_slope(truth[:, 3:], score[:, 3:]))


def test_the_summary_counts_the_labels_by_the_reason_for_no_scaling():
    """Each reason is one that the fit gives, so that a reworded one fails here."""
    rng = np.random.default_rng(1)
    right = rng.normal(size=(2000, 5))
    truth = (rng.random((2000, 5)) < expit(right)).astype(np.int8)
    truth[:, 3] = np.arange(2000) < 3
    score = right * np.array([4, 1, -1, 1, 1])
    platt = fit_platt_where_it_helps(
        truth, score, np.arange(2000), learned=np.array([True, True, True, True, False])
    )

    def describe(platt):
        return describe_platt(
            measure_calibration(
                truth,
                expit(score),
                platt,
                label_names=tuple("ABCDE"),
                patients=np.arange(2000),
                learned=np.ones(5, dtype=bool),
                intervals=False,
            )
        )

    assert describe(platt) == (
        "applied to 1 of 5 labels. Not applied to: 1 that it would not improve, 1 whose "
        "positives score no higher than their negatives on validation images, 1 with too few "
        "validation patients, 1 without positive or without negative training images"
    )
    none = PlattScaling.none(5, "there is no validation split")
    assert describe(none) == (
        "applied to 0 of 5 labels. Not applied to: 5 because there is no validation split"
    )
