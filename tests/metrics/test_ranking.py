"""Compare metrics with scikit-learn: tied scores, one-class labels and unknown entries."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from featurecache.metrics import ranking as metrics

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
# Five scores for up to 144 entries, so that most are tied.
TIED_SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def problems(draw, labels=(-1, 0, 1)):
    shape = draw(SHAPES)
    truth = draw(arrays(np.int8, shape, elements=st.sampled_from(labels)))
    return truth, draw(arrays(np.float64, shape, elements=TIED_SCORES))


def both_classes(truth):
    return {0, 1} <= set(truth.ravel().tolist())


@settings(deadline=None, max_examples=40)
@given(problems())
def test_ranking_metrics_of_known_entries_equal_scikit_learn(problem):
    truth, score = problem
    assume(both_classes(truth))
    valid = truth >= 0
    assert metrics.auroc(truth, score) == pytest.approx(
        reference.roc_auc_score(truth[valid], score[valid]), abs=1e-12
    )
    assert metrics.auprc(truth, score) == pytest.approx(
        reference.average_precision_score(truth[valid], score[valid]), abs=1e-12
    )


@settings(deadline=None, max_examples=40)
@given(problems(labels=(0, 1)))
def test_matrix_gives_the_micro_average(problem):
    truth, score = problem
    assume(both_classes(truth))
    # scikit-learn treats a one-column matrix as a vector and does not average it.
    doubled, scores = np.hstack([truth, truth]), np.hstack([score, score])
    assert metrics.auroc(doubled, scores) == pytest.approx(
        reference.roc_auc_score(doubled, scores, average="micro"), abs=1e-12
    )
    assert metrics.auprc(doubled, scores) == pytest.approx(
        reference.average_precision_score(doubled, scores, average="micro"), abs=1e-12
    )


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_ranking_metrics_ignore_row_order_and_monotone_transforms(problem, random):
    truth, score = problem
    order = list(range(len(truth)))
    random.shuffle(order)
    for metric in (metrics.auroc, metrics.auprc):
        value = metric(truth, score)
        assert metric(truth[order], np.exp(3 * score[order]) - 7) == pytest.approx(
            value, abs=1e-12, nan_ok=True
        )


def test_ranking_metrics_of_a_hand_computed_case():
    # Positives 0.9, 0.4; negatives 0.4, 0.1. Pairs: win, win, tie, win.
    truth, score = np.array([1, 1, 0, 0, -1]), np.array([0.9, 0.4, 0.4, 0.1, 0.95])
    assert metrics.auroc(truth, score) == (3 + 0.5) / 4
    # Recall 1/2 at precision 1, then recall 1 at precision 2/3.
    assert metrics.auprc(truth, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize("labels", [[1, 1, -1], [0, 0, -1], [-1, -1, -1]])
def test_ranking_of_one_class_is_undefined(labels):
    score = np.array([0.1, 0.2, 0.3])
    assert np.isnan(metrics.auroc(np.array(labels), score))
    assert np.isnan(metrics.auprc(np.array(labels), score))


def test_infinite_logits_rank_at_the_ends():
    truth, score = np.array([1, 0, 1, 0]), np.array([np.inf, -np.inf, 0.3, 0.5])
    assert metrics.auroc(truth, score) == 3 / 4


@settings(deadline=None, max_examples=40)
@given(problems(labels=(0, 1)))
def test_decision_metrics_equal_scikit_learn(problem):
    truth, score = problem
    predicted = score >= 0.5
    each = np.array([metrics.confusion(t, p) for t, p in zip(truth.T, predicted.T, strict=True)])
    np.testing.assert_array_equal(
        each,
        [
            reference.confusion_matrix(t, p, labels=[False, True])
            for t, p in zip(truth.T.astype(bool), predicted.T, strict=True)
        ],
    )
    pooled = metrics.confusion(truth, predicted)
    for ours, theirs in (
        (metrics.precision, reference.precision_score),
        (metrics.recall, reference.recall_score),
        (metrics.f1, reference.f1_score),
    ):
        # Doubled columns: scikit-learn treats a one-column matrix as a vector.
        twice = np.hstack([truth, truth]), np.hstack([predicted, predicted]).astype(int)
        options = {"zero_division": np.nan}
        np.testing.assert_allclose(
            np.tile(ours(each), 2), theirs(*twice, average=None, **options), atol=1e-12
        )
        assert float(metrics.macro(ours(each))) == pytest.approx(
            theirs(*twice, average="macro", **options), nan_ok=True
        )
        assert float(ours(pooled)) == pytest.approx(
            theirs(*twice, average="micro", **options), nan_ok=True
        )
    assert metrics.accuracy(pooled) == pytest.approx(
        reference.accuracy_score(truth.ravel(), predicted.ravel())
    )
    assert metrics.hamming_loss(pooled) == pytest.approx(reference.hamming_loss(*twice), abs=1e-12)
    assert metrics.exact_match(truth, predicted) == pytest.approx(reference.accuracy_score(*twice))


@settings(deadline=None)
@given(problems())
def test_decisions_on_unknown_labels_are_ignored(problem):
    truth, score = problem
    predicted = score >= 0.5
    flipped = np.where(truth < 0, ~predicted, predicted)
    valid = truth >= 0
    expected = (
        reference.confusion_matrix(truth[valid], predicted[valid], labels=[0, 1])
        if valid.any()
        else np.zeros((2, 2))
    )
    np.testing.assert_array_equal(metrics.confusion(truth, predicted), expected)
    np.testing.assert_array_equal(metrics.confusion(truth, flipped), expected)
    assert metrics.exact_match(truth, flipped) == pytest.approx(
        metrics.exact_match(truth, predicted), nan_ok=True
    )


def test_exact_match_counts_only_rows_with_every_label_known():
    truth = np.array([[1, 0], [1, 1], [1, -1], [0, 0]])
    predicted = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], dtype=bool)
    assert metrics.exact_match(truth, predicted) == 2 / 3


def test_division_by_zero_is_undefined():
    no_labels = np.zeros((2, 2))
    for metric in (
        metrics.precision,
        metrics.recall,
        metrics.f1,
        metrics.accuracy,
        metrics.hamming_loss,
    ):
        assert np.isnan(metric(no_labels))
    only_true_negatives = np.array([[5.0, 0.0], [0.0, 0.0]])
    assert np.isnan(metrics.precision(only_true_negatives))
    assert np.isnan(metrics.recall(only_true_negatives))
    assert np.isnan(metrics.f1(only_true_negatives))
    assert metrics.accuracy(only_true_negatives) == 1
    assert np.isnan(metrics.exact_match(np.array([[1, -1]]), np.array([[True, True]])))


def test_macro_averages_where_the_metric_is_defined():
    values = np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(metrics.macro(values), [0.75, np.nan])


@pytest.mark.parametrize(
    ("truth", "score", "message"),
    [
        (np.array([1, 0]), np.array([0.5]), "scores have shape"),
        (np.array([1, 2]), np.array([0.5, 0.5]), r"\[2\] were found"),
        (np.array([1, 0]), np.array([0.5, np.nan]), "1 of 2 scores are NaN"),
    ],
)
def test_invalid_input_is_refused(truth, score, message):
    with pytest.raises(ValueError, match=message):
        metrics.auroc(truth, score)
