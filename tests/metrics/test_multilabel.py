"""Compare all metrics at once with scikit-learn, label by label."""

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.metrics.multilabel import compute_metrics


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    truth = (rng.random((80, 4)) < [0.5, 0.2, 0.1, 0.3]).astype(np.int8)
    truth[rng.random(truth.shape) < 0.1] = -1
    score = np.round(rng.random((80, 4)) * 0.6 + 0.4 * (truth == 1), 1)
    return truth, score


def test_each_label_is_scored_on_its_known_rows(problem):
    truth, score = problem
    predicted = score >= 0.5
    metrics = compute_metrics(truth, predicted, score)
    references = {
        "precision": lambda t, p, s: reference.precision_score(t, p),
        "recall": lambda t, p, s: reference.recall_score(t, p),
        "f1": lambda t, p, s: reference.f1_score(t, p),
        "accuracy": lambda t, p, s: reference.accuracy_score(t, p),
        "auroc": lambda t, p, s: reference.roc_auc_score(t, s),
        "auprc": lambda t, p, s: reference.average_precision_score(t, s),
    }
    valid = truth >= 0
    for name, metric in references.items():
        columns = [
            metric(truth[valid[:, c], c], predicted[valid[:, c], c], score[valid[:, c], c])
            for c in range(4)
        ]
        np.testing.assert_allclose(metrics.per_label[name], columns, atol=1e-12)
        assert metrics.macro[name] == pytest.approx(np.mean(columns))
        pooled = metric(truth[valid], predicted[valid], score[valid])
        assert metrics.micro[name] == pytest.approx(pooled)
    complete = valid.all(axis=1)
    assert metrics.exact_match == pytest.approx(
        reference.accuracy_score(truth[complete], predicted[complete])
    )
    assert metrics.hamming_loss == pytest.approx(np.mean(truth[valid] != predicted[valid]))


def test_ranking_determines_the_areas_and_decisions_the_other_metrics(problem):
    truth, score = problem
    plain = compute_metrics(truth, score >= 0.5, score)
    reversed_ranking = compute_metrics(truth, score >= 0.5, -score)
    np.testing.assert_allclose(reversed_ranking.per_label["auroc"], 1 - plain.per_label["auroc"])
    np.testing.assert_array_equal(reversed_ranking.per_label["f1"], plain.per_label["f1"])
