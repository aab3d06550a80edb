"""Scores of predictions: names, values against scikit-learn, intervals, and invalid input."""

import json

import numpy as np
import pytest
import sklearn.metrics as reference

from featurecache.evaluation.scores import score_predictions
from featurecache.metrics.bootstrap import resample_patients

DECISIONS = {"precision", "recall", "specificity", "npv", "f1", "accuracy"}
RANKINGS = {"auroc", "auprc"}


@pytest.fixture
def problem():
    rng = np.random.default_rng(8)
    truth = (rng.random((120, 3)) < [0.5, 0.3, 0.0]).astype(np.int8)
    truth[rng.random(truth.shape) < 0.05] = -1
    probability = np.clip(rng.random((120, 3)) * 0.7 + 0.3 * (truth == 1), 0, 1)
    return {
        "truth": truth,
        "probability": probability,
        "label_names": ["Effusion", "Mass", "Hernia"],
        "thresholds": np.array([0.5, 0.6, 0.999]),
        "patients": [f"patient {i // 3}" for i in range(120)],
        "n_bootstrap": 60,
    }


def summary(problem, **changes):
    arguments = {**problem, **changes}
    arguments["resamples"] = resample_patients(
        arguments.pop("patients"),
        n_bootstrap=arguments.pop("n_bootstrap"),
        seed=arguments.pop("seed", 0),
    )
    scored = score_predictions(arguments.pop("truth"), arguments.pop("probability"), **arguments)
    return {
        **scored.scores.to_json(),
        "ci95": scored.intervals.to_json(),
        "n_patients": scored.n_patients,
        "n_bootstrap": scored.n_bootstrap,
    }


def test_scores_and_intervals_have_the_names_of_the_contract(problem):
    document = summary(problem)
    metrics = {"macro", "micro", "exact_match", "hamming_loss", "per_label"}
    assert set(document) == {*metrics, "ci95", "n_patients", "n_bootstrap"}
    assert set(document["ci95"]) == metrics
    for average in ("macro", "micro"):
        assert set(document[average]) == set(document["ci95"][average]) == DECISIONS | RANKINGS
    assert list(document["per_label"]) == ["Effusion", "Mass", "Hernia"]
    for label in problem["label_names"]:
        counts = {"n_positive", "n_known", "n_positive_patients", "n_negative_patients"}
        extra = {*counts, "no_interval", "threshold", "threshold_source", "confusion"}
        assert set(document["per_label"][label]) == DECISIONS | RANKINGS | extra
        assert set(document["ci95"]["per_label"][label]) == DECISIONS | RANKINGS
    assert (document["n_patients"], document["n_bootstrap"]) == (40, 60)


def test_scores_are_plain_json_and_undefined_is_null(problem):
    document = summary(problem)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    hernia = document["per_label"]["Hernia"]
    assert [hernia[name] for name in ("auroc", "auprc", "recall")] == [None, None, None]
    assert hernia["accuracy"] == 1.0
    assert document["ci95"]["per_label"]["Hernia"]["auroc"] is None
    assert document["macro"]["auroc"] is not None


def test_scores_of_a_label_agree_with_scikit_learn(problem):
    truth, probability = problem["truth"], problem["probability"]
    mass = summary(problem)["per_label"]["Mass"]
    known = truth[:, 1] >= 0
    t, s = truth[known, 1], probability[known, 1]
    assert mass["n_positive"] == t.sum()
    assert mass["n_known"] == known.sum()
    assert mass["threshold"] == 0.6
    assert mass["confusion"] == reference.confusion_matrix(t, s >= 0.6).tolist()
    assert mass["f1"] == pytest.approx(reference.f1_score(t, s >= 0.6))
    assert mass["specificity"] == pytest.approx(reference.recall_score(t, s >= 0.6, pos_label=0))
    assert mass["npv"] == pytest.approx(reference.precision_score(t, s >= 0.6, pos_label=0))
    assert mass["auroc"] == pytest.approx(reference.roc_auc_score(t, s))
    assert mass["auprc"] == pytest.approx(reference.average_precision_score(t, s))


def test_intervals_contain_their_scores(problem):
    document = summary(problem, n_bootstrap=400)
    for average in ("macro", "micro"):
        for name, value in document[average].items():
            low, high = document["ci95"][average][name]
            assert low < value < high
    for name in ("exact_match", "hamming_loss"):
        low, high = document["ci95"][name]
        assert low < document[name] < high


def test_the_bootstrap_is_reproducible_and_depends_on_its_seed(problem):
    assert summary(problem) == summary(problem)
    assert summary(problem)["ci95"] != summary(problem, seed=1)["ci95"]


def test_the_order_of_rows_does_not_matter(problem):
    order = np.random.default_rng(0).permutation(120)
    shuffled = summary(
        problem,
        truth=problem["truth"][order],
        probability=problem["probability"][order],
        patients=np.array(problem["patients"])[order],
    )
    assert shuffled == summary(problem)


def test_the_ranking_is_used_for_auroc_and_auprc_only(problem):
    truth, logits = problem["truth"], 1000 * (problem["probability"] - 0.5)
    saturated = (logits > 0).astype(np.float64)
    document = summary(problem, probability=saturated, ranking=logits)
    assert document["micro"]["auroc"] == summary(problem)["micro"]["auroc"]
    known = truth[:, 0] >= 0
    assert document["per_label"]["Effusion"]["f1"] == pytest.approx(
        reference.f1_score(truth[known, 0], saturated[known, 0])
    )


def test_a_probability_at_its_threshold_is_predicted(problem):
    document = summary(
        problem,
        truth=np.array([[1], [0]]),
        probability=np.array([[0.25], [0.125]], dtype=np.float16),
        label_names=["Mass"],
        thresholds=np.array([0.25]),
        patients=[1, 2],
    )
    assert document["per_label"]["Mass"]["confusion"] == [[1, 0], [0, 1]]


def test_a_single_patient_or_no_bootstrap_gives_no_intervals(problem):
    for changes in ({"patients": ["one"] * 120}, {"n_bootstrap": 0}):
        document = summary(problem, **changes)
        assert document["n_bootstrap"] == 0
        assert document["macro"]["auroc"] is not None
        assert set(document["ci95"]["macro"].values()) == {None}
        assert document["ci95"]["exact_match"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": np.zeros((0, 3), np.int8)}, "rows and labels"),
        ({"truth": np.full((120, 3), 2, np.int8)}, "1, 0 or -1"),
        ({"probability": np.zeros((119, 3))}, "probabilities have shape"),
        ({"probability": np.full((120, 3), 1.5)}, "360 of 360 probabilities"),
        ({"probability": np.full((120, 3), np.nan)}, "360 of 360 probabilities"),
        ({"label_names": ["Mass", "Mass", "Hernia"]}, "3 distinct names"),
        ({"thresholds": np.array([0.5])}, r"shape \(3,\)"),
        ({"thresholds": np.array([0.5, 0.5, np.nan])}, "1 of 3 thresholds"),
        ({"patients": ["a"] * 119}, "119 rows"),
        ({"ranking": np.zeros((120, 2))}, "ranking has shape"),
        ({"ranking": np.full((120, 3), np.nan)}, "scores are NaN"),
    ],
)
def test_invalid_input_is_refused(problem, changes, message):
    with pytest.raises(ValueError, match=message):
        summary(problem, **changes)
