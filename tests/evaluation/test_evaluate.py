"""Evaluation of predictions: thresholds from validation, metrics on test."""

import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.scores import score_predictions
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.delong import delong_interval
from featurecache.metrics.thresholds import NOT_CHOSEN, OperatingPoint

NAMES = ("Mass", "Effusion", "Nodule")
NO_ROWS = np.empty(0, dtype=np.intp)


@pytest.fixture
def rows() -> SplitData:
    rng = np.random.default_rng(4)
    truth = (rng.random((400, 3)) < [0.5, 0.3, 0.2]).astype(np.int8)
    # Sick patients lie in bed, where images are AP views.
    view = np.where(rng.random(400) < np.where(truth[:, 0] == 1, 0.8, 0.2), "AP", "PA")
    truth[rng.random(truth.shape) < 0.05] = -1
    return SplitData(
        truth=truth,
        label_names=NAMES,
        patient=np.array([f"patient {row // 2}" for row in range(400)]),
        view=view,
        train=np.arange(200),
        val=np.arange(200, 280),
        test=np.arange(280, 400),
        learned=np.ones(3, dtype=bool),
    )


@pytest.fixture
def probability(rows) -> np.ndarray:
    uniform = np.random.default_rng(5).random((400, 3))
    return 0.6 * uniform * uniform + 0.35 * uniform * (rows.truth == 1)


def document(rows, probability, **changes):
    return evaluate(dataclasses.replace(rows, **changes), probability, n_bootstrap=50).to_json()


def test_metrics_are_of_test_at_the_best_thresholds_of_validation(rows, probability):
    found = document(rows, probability)
    assert (found["split"], found["n"], found["n_patients"]) == ("test", 120, 60)
    for c, name in enumerate(NAMES):
        known = rows.truth[:, c] >= 0
        val = rows.val[known[rows.val]]
        scores, p = found["per_label"][name], probability[:, c]
        best = max(reference.f1_score(rows.truth[val, c], p[val] >= cut) for cut in p[val])
        chosen = reference.f1_score(rows.truth[val, c], p[val] >= scores["threshold"])
        assert chosen == pytest.approx(best)
        assert scores["threshold_source"] == "f1 on validation"
        test = rows.test[known[rows.test]]
        expected = reference.f1_score(rows.truth[test, c], p[test] >= scores["threshold"])
        assert scores["f1"] == pytest.approx(expected)
        assert scores["auroc"] == pytest.approx(
            reference.roc_auc_score(rows.truth[test, c], p[test])
        )
    json.dumps(found, allow_nan=False)


def test_operating_point_decides_the_thresholds(rows, probability):
    point = OperatingPoint.parse("sensitivity=0.9")
    scores = evaluate(rows, probability, operating_point=point, n_bootstrap=0).per_label
    for c, name in enumerate(NAMES):
        positive = probability[rows.val, c][rows.truth[rows.val, c] == 1]
        reached = (positive >= scores[name].threshold).mean()
        assert 0.9 <= reached < 0.9 + 2 / len(positive)  # no positive more than needed
        assert scores[name].threshold_source == "sensitivity=0.9 on validation"


def test_useless_operating_points_are_a_warning(rows, probability):
    probability = np.where(rows.truth == 1, 0.1, probability + 0.01)
    point = OperatingPoint.parse("specificity=1")
    warnings = evaluate(rows, probability, operating_point=point, n_bootstrap=0).warnings
    assert any(
        "a specificity of at least 1 is reached only without finding a single positive: Mass, "
        "Effusion, Nodule" in warning
        for warning in warnings
    )


def test_predictive_values_at_a_stated_prevalence(rows, probability):
    metrics = evaluate(rows, probability, prevalence={"Mass": 0.02}, n_bootstrap=50)
    values, scores = metrics.at_prevalence["Mass"], metrics.per_label["Mass"]
    assert list(metrics.at_prevalence) == ["Mass"]
    expected = 0.02 * scores.recall / (0.02 * scores.recall + 0.98 * (1 - scores.specificity))
    assert values.ppv == pytest.approx(expected)
    assert values.ci95.ppv[0] < values.ppv < values.ci95.ppv[1]
    assert evaluate(rows, probability, n_bootstrap=0).at_prevalence is None
    with pytest.raises(UnknownNameError, match="Masss"):
        evaluate(rows, probability, prevalence={"Masss": 0.02})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "a patient has several images"),
        ({"patient": np.arange(400).astype(str)}, None),
        ({"patient": np.arange(400).astype(str), "patients_known": False}, "are unknown"),
    ],
)
def test_delong_intervals_are_those_of_independent_images(rows, probability, changes, reason):
    found = document(rows, probability, **changes)["delong"]
    assert reason in found["reason"] if reason else found["reason"] is None
    expected = delong_interval(rows.truth[rows.test, 0], probability[rows.test, 0])
    assert found["per_label"]["Mass"]["auroc"] == (None if reason else list(expected))


def test_thresholds_do_not_depend_on_test_labels(rows, probability):
    other = rows.truth.copy()
    other[rows.test] = 1 - np.abs(other[rows.test])
    before, after = document(rows, probability), document(rows, probability, truth=other)
    for name in NAMES:
        thresholds = [found["per_label"][name]["threshold"] for found in (before, after)]
        assert thresholds[0] == thresholds[1]
        assert before["per_label"][name]["f1"] != after["per_label"][name]["f1"]


def test_the_same_metrics_at_a_threshold_of_one_half_are_included(rows, probability):
    found = document(rows, probability)["at_half"]
    truth, decided = rows.truth[rows.test], probability[rows.test] >= 0.5
    known = truth >= 0
    scores = []
    for c, name in enumerate(NAMES):
        mask = known[:, c]
        scores.append(reference.f1_score(truth[mask, c], decided[mask, c]))
        assert found["per_label"][name]["f1"] == pytest.approx(scores[-1])
        assert found["per_label"][name]["threshold"] == 0.5
    assert found["macro"]["f1"] == pytest.approx(np.mean(scores))
    assert found["micro"]["f1"] == pytest.approx(reference.f1_score(truth[known], decided[known]))
    assert found["hamming_loss"] == pytest.approx((truth != decided)[known].mean())
    whole = known.all(axis=1)
    assert found["exact_match"] == pytest.approx(
        reference.accuracy_score(truth[whole], decided[whole].astype(int))
    )


def test_a_label_without_validation_positives_gets_a_threshold_of_one_half(rows, probability):
    truth = rows.truth.copy()
    truth[rows.val, 1] = 0
    found = document(rows, probability, truth=truth)["per_label"]
    effusion = found["Effusion"]
    assert (effusion["threshold"], effusion["threshold_source"]) == (0.5, NOT_CHOSEN)
    assert found["Mass"]["threshold_source"] == "f1 on validation"


def test_without_validation_all_thresholds_are_one_half(rows, probability):
    found = document(rows, probability, val=NO_ROWS)
    assert {scores["threshold"] for scores in found["per_label"].values()} == {0.5}
    assert {scores["threshold_source"] for scores in found["per_label"].values()} == {NOT_CHOSEN}
    assert found["macro"] == found["at_half"]["macro"]


def test_without_test_validation_is_scored_at_one_half(rows, probability):
    found = document(rows, probability, test=NO_ROWS)
    assert (found["split"], found["n"]) == ("val", 80)
    # A threshold scored on the rows it was chosen on would be optimistic.
    assert {scores["threshold"] for scores in found["per_label"].values()} == {0.5}
    known = rows.truth[rows.val] >= 0
    assert found["micro"]["auroc"] == pytest.approx(
        reference.roc_auc_score(rows.truth[rows.val][known], probability[rows.val][known])
    )


def test_the_reason_for_no_platt_scaling_names_the_split_that_is_missing(rows, probability):
    for split, name in (("val", "validation"), ("test", "test")):
        found = document(rows, probability, **{split: NO_ROWS})
        for label in found["calibration"]["per_label"].values():
            assert label["reason"].startswith(f"there is no {name} split")


def test_only_training_rows_are_refused(rows, probability):
    with pytest.raises(UsageError, match="neither test nor validation images to score"):
        document(rows, probability, test=NO_ROWS, val=NO_ROWS)


def test_a_test_label_of_one_class_is_undefined(rows, probability):
    truth = rows.truth.copy()
    truth[rows.test, 2] = 0
    found = document(rows, probability, truth=truth)
    assert found["per_label"]["Nodule"]["auroc"] is None
    assert found["per_label"]["Nodule"]["auprc"] is None
    assert found["per_label"]["Nodule"]["recall"] is None
    others = [found["per_label"][name]["auroc"] for name in ("Mass", "Effusion")]
    assert found["macro"]["auroc"] == pytest.approx(np.mean(others))


def test_labels_that_were_not_learned_are_undefined_and_left_out_of_averages(rows, probability):
    found = document(rows, probability, learned=np.array([True, False, True]))
    two = [0, 2]
    scored = score_predictions(
        rows.truth[rows.test][:, two],
        probability[rows.test][:, two],
        label_names=("Mass", "Nodule"),
        thresholds=np.array([found["per_label"][name]["threshold"] for name in ("Mass", "Nodule")]),
        resamples=resample_patients(rows.patient[rows.test], n_bootstrap=50, seed=0),
    )
    alone = {**scored.scores.to_json(), "ci95": scored.intervals.to_json()}
    for key in ("macro", "micro", "exact_match", "hamming_loss"):
        assert found[key] == alone[key]
        assert found["ci95"][key] == alone["ci95"][key]
    assert list(found["per_label"]) == list(found["ci95"]["per_label"]) == list(NAMES)
    missing = found["per_label"]["Effusion"]
    truth = rows.truth[rows.test, 1]
    assert missing.pop("n_positive") == (truth == 1).sum()
    assert missing.pop("n_known") == (truth >= 0).sum()
    patient = rows.patient[rows.test]
    assert missing.pop("n_positive_patients") == len(set(patient[truth == 1]))
    assert missing.pop("n_negative_patients") == len(set(patient[truth == 0]))
    assert missing.pop("no_interval") == "it was not learned"
    counts = {"n_positive", "n_known", "n_positive_patients", "n_negative_patients"}
    assert missing.keys() == alone["per_label"]["Mass"].keys() - counts - {"no_interval"}
    assert found["macro_labels"] == ["Mass", "Nodule"]
    undefined = {key: missing[key] for key in missing.keys() - {"threshold", "threshold_source"}}
    assert set(undefined.values()) == set(found["ci95"]["per_label"]["Effusion"].values()) == {None}
    assert found["controls"]["view_only"]["per_label"]["Effusion"] == {"auroc": None, "auprc": None}
    json.dumps(found, allow_nan=False)


def test_no_learned_label_is_refused(rows, probability):
    with pytest.raises(UsageError, match="no label has both positives and negatives"):
        document(rows, probability, learned=np.zeros(3, dtype=bool))


def test_the_ranking_is_used_for_auroc_and_probabilities_for_the_rest(rows, probability):
    logits = np.log(probability / (1 - probability))
    saturated = (probability > 0.3).astype(np.float64)
    by_ranking = evaluate(rows, saturated, ranking=logits, n_bootstrap=0).to_json()
    plain, flat = (
        evaluate(rows, probability, n_bootstrap=0).to_json(),
        evaluate(rows, saturated, n_bootstrap=0).to_json(),
    )
    for group in ("macro", "micro"):
        assert by_ranking[group]["f1"] == flat[group]["f1"]
        assert flat["macro"]["auroc"] < by_ranking["macro"]["auroc"]
    assert by_ranking["macro"]["auroc"] == pytest.approx(plain["macro"]["auroc"])


def test_the_view_control_scores_the_prevalence_by_view(rows, probability):
    control = document(rows, probability)["controls"]["view_only"]
    areas = []
    for c, name in enumerate(NAMES):
        y, known = rows.truth[:, c], rows.truth[:, c] >= 0
        share = {
            view: y[rows.train][known[rows.train] & (rows.view[rows.train] == view)].mean()
            for view in ("AP", "PA")
        }
        test = rows.test[known[rows.test]]
        p = [share[view] for view in rows.view[test]]
        areas.append(reference.roc_auc_score(y[test], p))
        assert control["per_label"][name]["auroc"] == pytest.approx(areas[-1])
        assert control["per_label"][name]["auprc"] == pytest.approx(
            reference.average_precision_score(y[test], p)
        )
    assert areas[0] > 0.7
    assert control["macro"]["auroc"] == pytest.approx(np.mean(areas))
    low, high = control["ci95"]["macro"]["auroc"]
    assert low < np.mean(areas) < high


@pytest.mark.parametrize("missing", ["training", "views", "training views", "test views"])
def test_the_view_control_needs_training_rows_and_views(rows, probability, missing):
    view = rows.view.copy()
    if missing == "training":
        changes = {"train": NO_ROWS}
    else:
        where = {"views": slice(None), "training views": rows.train, "test views": rows.test}
        view[where[missing]] = ""
        changes = {"view": view}
    assert document(rows, probability, **changes)["controls"]["view_only"] is None
