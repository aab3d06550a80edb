"""Exclusive classes against scikit-learn and SciPy, from probabilities to the printed table."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from featurecache.cli.output import print_metrics
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.classes import are_exclusive
from featurecache.metrics.metrics import Metrics
from featurecache.report.results_section import class_tables

NAMES = ("cat", "dog", "owl", "yak")


def split_data(actual: np.ndarray, patient: np.ndarray, **changes: object) -> SplitData:
    n = len(actual)
    fields = {
        "truth": (actual[:, np.newaxis] == np.arange(4)).astype(np.int8),
        "label_names": NAMES,
        "patient": patient.astype(str),
        "view": np.full(n, ""),
        "train": np.empty(0, dtype=np.intp),
        "val": np.empty(0, dtype=np.intp),
        "test": np.arange(n),
        "learned": np.ones(4, dtype=np.bool_),
    }
    return SplitData(**{**fields, **changes})


def scores_of(actual: np.ndarray, seed: int) -> np.ndarray:
    probability = np.random.default_rng(seed).random((len(actual), 4))
    probability[np.arange(len(actual)), actual] += 0.4
    return np.minimum(probability / 1.4, 1)


RNG = np.random.default_rng(0)
ACTUAL = RNG.choice(3, 400, p=[0.6, 0.3, 0.1])  # no image of the last class
PATIENT = np.arange(400)


def test_scores_equal_scikit_learn_and_intervals_wilson():
    probability = scores_of(ACTUAL, 1)
    classes = evaluate(split_data(ACTUAL, PATIENT), probability).classes
    predicted = probability.argmax(axis=1)
    assert classes.labels == list(NAMES)
    assert classes.accuracy == pytest.approx(accuracy_score(ACTUAL, predicted))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(ACTUAL, predicted)
    assert classes.balanced_accuracy == pytest.approx(expected)
    np.testing.assert_array_equal(
        classes.confusion, confusion_matrix(ACTUAL, predicted, labels=range(4))
    )
    # With one image per patient, accuracy is a proportion.
    right = int((predicted == ACTUAL).sum())
    wilson = binomtest(right, 400).proportion_ci(method="wilson")
    assert classes.ci95.accuracy == pytest.approx((wilson.low, wilson.high), abs=0.005)
    # The variance of the mean recall is that of independent proportions.
    counts = np.bincount(ACTUAL)[:3]
    recalls = np.diag(classes.confusion)[:3] / counts
    half = 1.96 * np.sqrt((recalls * (1 - recalls) / counts).sum()) / 3
    low, high = classes.ci95.balanced_accuracy
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_intervals_are_over_patients():
    # Ten equal images of each of 40 patients say no more than one.
    actual, probability = ACTUAL[:40], scores_of(ACTUAL[:40], 2)
    one = evaluate(split_data(actual, PATIENT[:40]), probability).classes
    ten = evaluate(
        split_data(np.repeat(actual, 10), np.repeat(PATIENT[:40], 10)),
        np.repeat(probability, 10, axis=0),
    ).classes
    assert ten.ci95.accuracy == pytest.approx(one.ci95.accuracy, abs=1e-9)
    assert ten.ci95.balanced_accuracy == pytest.approx(one.ci95.balanced_accuracy, abs=1e-9)


def test_several_trainings_are_averaged():
    data = split_data(ACTUAL, PATIENT)
    seeds = [scores_of(ACTUAL, seed) for seed in (1, 2, 3)]
    classes = evaluate(
        data, seeds[0], trials=[Trial(data, score) for score in seeds], n_bootstrap=0
    ).classes
    accuracies = [accuracy_score(ACTUAL, score.argmax(axis=1)) for score in seeds]
    assert classes.accuracy == pytest.approx(np.mean(accuracies))
    assert classes.ci95.accuracy is None
    np.testing.assert_array_equal(
        classes.confusion, confusion_matrix(ACTUAL, seeds[0].argmax(axis=1), labels=range(4))
    )


def test_a_class_that_was_not_learned_is_never_predicted():
    probability = scores_of(ACTUAL, 1)
    learned = np.array([True, False, True, True])
    data = split_data(ACTUAL, PATIENT, learned=learned)
    classes = evaluate(data, probability, n_bootstrap=0).classes
    predicted = np.where(learned, probability, -1).argmax(axis=1)
    assert classes.accuracy == pytest.approx(accuracy_score(ACTUAL, predicted))
    assert np.sum(classes.confusion, axis=0)[1] == 0


@pytest.mark.parametrize(
    ("truth", "exclusive"),
    [
        ([[1, 0], [0, 1]], True),
        ([[1, 0], [1, 1]], False),
        ([[1, 0], [0, 0]], False),
        ([[1, 0], [1, -1]], False),
        ([[1], [0]], False),
    ],
)
def test_which_labels_are_exclusive(truth, exclusive):
    assert are_exclusive(np.array(truth, dtype=np.int8)) is exclusive


def test_other_labels_have_no_classes(capsys):
    data = split_data(ACTUAL, PATIENT)
    data.truth[0] = 1
    metrics = evaluate(data, scores_of(ACTUAL, 1), n_bootstrap=0)
    assert metrics.classes is None
    print_metrics("title", metrics, set())
    assert "top-1" not in capsys.readouterr().out
    assert class_tables([SimpleNamespace(name="run", metrics=metrics)]) == []


def test_classes_are_printed_and_reported(capsys):
    metrics = evaluate(split_data(ACTUAL, PATIENT), scores_of(ACTUAL, 1), n_bootstrap=100)
    print_metrics("title", metrics, set())
    out = capsys.readouterr().out
    assert f"top-1 accuracy {metrics.classes.accuracy:.3f} [" in out
    assert f"balanced accuracy {metrics.classes.balanced_accuracy:.3f} [" in out
    row = "\t".join(["cat", *map(str, metrics.classes.confusion[0])])
    assert row in out
    accuracies, confusion = class_tables([SimpleNamespace(name="run", metrics=metrics)])
    assert accuracies.rows[0][1].startswith(f"{metrics.classes.accuracy:.3f} [")
    assert confusion.rows[2] == ["owl", *map(str, metrics.classes.confusion[2])]
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics
