"""Split-conformal answers: exact ranks, guaranteed coverage, and how often they are wrong."""

from math import ceil

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from featurecache.metrics.conformal import (
    ANSWERS,
    ConformalLimits,
    fit_conformal,
    measure_answers,
    read_answers,
)
from featurecache.metrics.label_support import NOT_LEARNED

LEARNED = np.ones(1, dtype=bool)


def limits(positive, negative, coverage=0.9) -> ConformalLimits:
    return ConformalLimits(
        coverage, np.array(positive), np.array(negative), np.full((len(positive), 2, 2), 0.5),
        (None,) * len(positive),
    )  # fmt: skip


def test_answers_are_what_is_typical_of_one_class_only():
    probability = np.array([[0.1, 0.1], [0.3, 0.3], [0.5, 0.5], [0.7, 0.7], [np.nan, 0.3]])
    overlap_and_gap = limits([0.3, 0.7], [0.5, 0.3])
    answers = np.array(ANSWERS)[overlap_and_gap(probability)]
    assert answers[:, 0].tolist() == ["absent", "unsure", "unsure", "present", ""]
    assert answers[:, 1].tolist() == ["absent", "absent", "unsure", "present", "absent"]


@pytest.mark.parametrize("coverage", [0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [19, 39, 99])
def test_limits_have_the_rank_of_split_conformal_prediction(n, coverage):
    rng = np.random.default_rng(n)
    truth = np.repeat([1, 0], [n, 2 * n]).astype(np.int8)[:, np.newaxis]
    probability = rng.random((3 * n, 1))
    fitted = fit_conformal(truth, probability, np.arange(3 * n), coverage=coverage, learned=LEARNED)
    percent = round(100 * coverage)  # in whole numbers, as floats round (n + 1) x 0.9
    for size, limit, scores, expected in (
        (n, fitted.positive[0], -probability[:n, 0], fitted.expected[0, 1]),
        (2 * n, -fitted.negative[0], probability[n:, 0], fitted.expected[0, 0]),
    ):
        rank = -(-(size + 1) * percent // 100)
        assert -limit == np.sort(scores)[rank - 1]
        np.testing.assert_allclose(expected, beta.interval(0.95, rank, size + 1 - rank))


@pytest.mark.parametrize("wide", [1, 6])
def test_new_patients_are_covered_at_least_as_often_as_asked(wide):
    """1,000 draws of validation patients and of a new one, for the positives of three labels."""
    rng = np.random.default_rng(0)
    n, draws, coverage = 25, 1000, 0.9
    columns = 3 * draws  # a column for each draw and label
    # One more patient than validation has: the new one, exchangeable with the others.
    n_images = rng.integers(1, wide, (n + 1, 1, columns), endpoint=True)
    # Images of a patient are alike, and patients with more images score higher.
    score = rng.normal(size=(n + 1, 1, columns)) + 0.5 * n_images
    score = score + 0.5 * rng.normal(size=(n + 1, wide, columns))
    probability = 1 / (1 + np.exp(-score))
    exists = np.arange(wide)[:, np.newaxis] < n_images
    positive = np.where(exists[:n], 1, -1).reshape(-1, columns)
    values = probability[:n].reshape(-1, columns)
    patients = np.repeat(np.arange(n), wide)
    # The negatives are a mirror image of the positives, so that both limits have the same rank.
    fitted = fit_conformal(
        np.concatenate([positive, np.where(positive == 1, 0, -1)]).astype(np.int8),
        np.concatenate([values, 1 - values]),
        np.concatenate([patients, patients]),
        coverage=coverage,
        learned=np.ones(columns, dtype=bool),
    )
    np.testing.assert_allclose(fitted.positive, 1 - fitted.negative)
    covered = (probability[n] >= fitted.positive) & exists[n]
    share = (covered.sum(axis=0) / exists[n].sum(axis=0)).reshape(3, draws).mean(axis=1)
    assert (share > coverage - 3 * np.sqrt(0.9 * 0.1 / draws)).all()
    # Not more than it has to be: exactly 24 / 26 with one image per patient.
    assert share.mean() == pytest.approx(ceil(26 * coverage) / 26, abs=0.015)


def test_a_label_with_too_few_patients_has_no_answers():
    truth = np.repeat([1, 0], [8, 30]).astype(np.int8)[:, np.newaxis]
    truth = np.repeat(truth, 2, axis=1)
    truth[8, 0] = 1
    probability = np.linspace(1, 0, 76).reshape(38, 2)
    patients = np.arange(38)
    fitted = fit_conformal(truth, probability, patients, coverage=0.9, learned=np.ones(2, bool))
    few = (
        "in the validation split, only 8 patients have a positive image, and at least 9 are needed"
    )
    assert fitted.reasons == (None, few)
    same_patient = np.where(patients == 8, 0, patients)
    fitted = fit_conformal(
        truth, probability, same_patient, coverage=0.9, learned=np.array([True, False])
    )
    assert fitted.reasons == (few, NOT_LEARNED)
    assert np.isnan([fitted.positive, fitted.negative]).all()
    assert (fitted(probability) == 0).all()
    measured = measure_answers(
        truth, probability, fitted, label_names=("a", "b"), patients=patients
    )
    assert measured.per_label["a"].error is None
    assert measured.per_label["a"].positive.coverage is None
    assert measured.per_label["a"].reason == few


def test_shares_count_patients_and_have_exact_intervals():
    # Patient 0 has four positive images, two of them answered "absent"; the others have one each.
    truth = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, -1], dtype=np.int8)[:, np.newaxis]
    patients = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
    probability = np.array([0.1, 0.1, 0.5, 0.9, 0.9, 0.5, 0.1, 0.9, 0.1, 0.9])[:, np.newaxis]
    rule = limits([0.4], [0.6])
    label = measure_answers(
        truth, probability, rule, label_names=("a",), patients=patients
    ).per_label["a"]
    assert label.positive.coverage == pytest.approx((0.5 + 1 + 1) / 3)
    assert label.negative.coverage == pytest.approx(2 / 3)
    assert label.unsure == pytest.approx((0.25 + 1) / 6)
    assert label.error == pytest.approx((2 / 3 + 0 + 0 + 1 + 0) / 5)
    exact = binomtest(2, 3).proportion_ci(method="exact")
    assert label.negative.ci95 == pytest.approx((exact.low, exact.high))
    assert (label.positive.n_patients, label.negative.n_patients) == (3, 3)
    assert label.positive.ci95[0] < 2.5 / 3 < label.positive.ci95[1]


def test_limits_are_read_back_from_the_metrics():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < [0.5, 0.5, 0.01]).astype(np.int8)
    probability, names = rng.random((200, 3)), ("a", "b", "c")
    fitted = fit_conformal(
        truth, probability, np.arange(200), coverage=0.8, learned=np.ones(3, dtype=bool)
    )
    measured = measure_answers(
        truth, probability, fitted, label_names=names, patients=np.arange(200)
    )
    read = read_answers(type(measured).model_validate(measured.to_json()), ("c", "a", "b"))
    expected = fitted.of_labels([2, 0, 1])
    for name in ("positive", "negative", "expected"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
    assert (read.coverage, read.reasons) == (0.8, expected.reasons)
    assert read_answers(None, names) is None
