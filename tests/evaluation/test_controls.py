"""Negative controls: prevalence by view counted by hand, shuffled labels and random features."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from featurecache.evaluation.controls import (
    derangement,
    permute_texts,
    random_features,
    shuffle_labels,
    summarize_control,
    text_gain,
    untrained_controls,
)
from featurecache.evaluation.repeated_runs import Trial, rank_all, ranking_gain
from featurecache.evaluation.simple_predictors import view_only_probabilities
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.ranking import auroc


def test_the_probability_is_the_prevalence_in_training_of_that_view():
    views = np.array(["AP", "AP", "AP", "AP", "PA", "PA", "PA"])
    labels = np.int8([[1, 1], [1, 0], [1, -1], [0, -1], [0, 0], [1, 0], [0, -1]])
    found = view_only_probabilities(views, labels, np.array(["PA", "AP", "PA"]))
    np.testing.assert_allclose(found, [[1 / 3, 0], [3 / 4, 1 / 2], [1 / 3, 0]])


def test_an_unseen_view_gets_the_overall_prevalence():
    views = np.array(["AP", "PA", "PA", "PA"])
    labels = np.int8([[1], [1], [0], [0]])
    found = view_only_probabilities(views, labels, np.array(["LATERAL", "AP", ""]))
    np.testing.assert_allclose(found, [[0.5], [1.0], [0.5]])


def test_a_view_without_known_labels_gets_the_overall_prevalence():
    views = np.array(["AP", "AP", "PA", "PA"])
    labels = np.int8([[1, -1], [1, -1], [0, 1], [0, 0]])
    found = view_only_probabilities(views, labels, np.array(["AP"]))
    np.testing.assert_allclose(found, [[1.0, 0.5]])


def test_a_label_without_known_values_is_undefined():
    views, labels = np.array(["AP", "PA"]), np.int8([[-1, 1], [-1, 0]])
    found = view_only_probabilities(views, labels, np.array(["AP", "LATERAL"]))
    np.testing.assert_allclose(found, [[np.nan, 1.0], [np.nan, 0.5]])


def test_it_agrees_with_a_logistic_regression_on_the_view():
    rng = np.random.default_rng(0)
    views = rng.choice(["AP", "PA", "LATERAL"], size=3000)
    rate = {"AP": 0.6, "PA": 0.2, "LATERAL": 0.4}
    truth = (rng.random(3000) < np.array([rate[view] for view in views])).astype(np.int8)
    indicators = (views[:, np.newaxis] == np.unique(views)).astype(float)
    train, test = slice(0, 2000), slice(2000, None)
    found = view_only_probabilities(views[train], truth[train, np.newaxis], views[test])[:, 0]
    reference = LogisticRegression(C=1e6).fit(indicators[train], truth[train])
    expected = reference.predict_proba(indicators[test])[:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    area = roc_auc_score(truth[test], expected.round(2))
    assert area > 0.65
    assert auroc(truth[test], found) == pytest.approx(area)


def test_labels_are_shuffled_within_each_split():
    labels = np.arange(60, dtype=np.int8).reshape(30, 2)
    train, val = np.arange(0, 20), np.arange(20, 25)
    found = shuffle_labels(labels, [train, val], seed=3)
    for rows in (train, val):
        assert sorted(map(tuple, found[rows])) == sorted(map(tuple, labels[rows]))
        assert (found[rows] != labels[rows]).any()
    assert (found[25:] == labels[25:]).all()
    assert (found == shuffle_labels(labels, [train, val], seed=3)).all()
    assert (found != shuffle_labels(labels, [train, val], seed=4)).any()


def test_random_features_are_standard_normal():
    features = random_features((400, 50), seed=1)
    assert features.shape == (400, 50)
    assert abs(features.astype(float).mean()) < 0.03
    assert features.astype(float).std() == pytest.approx(1, abs=0.03)
    assert len(np.unique(features[:, 0])) > 300


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    truth = (rng.random((80, 2)) < 0.4).astype(np.int8)
    return SplitData(
        truth=truth,
        label_names=("Mass", "Edema"),
        patient=np.array([f"p{number // 2}" for number in range(80)]),
        view=np.full(80, ""),
        train=np.arange(20),
        val=np.arange(20, 40),
        test=np.arange(40, 80),
        learned=np.array([True, True]),
    )


def test_metrics_of_a_control_are_means_over_its_trials(data):
    rng = np.random.default_rng(12)
    scores = [rng.random((80, 2)) for _ in range(3)]
    test = data.test
    found = summarize_control([Trial(data, s) for s in scores], test, n_bootstrap=60).to_json()
    areas = [[roc_auc_score(data.truth[test, c], s[test, c]) for c in range(2)] for s in scores]
    assert found["macro"]["auroc"] == pytest.approx(np.mean(areas))
    assert found["per_label"]["Edema"]["auroc"] == pytest.approx(np.mean(areas, axis=0)[1])


def test_a_gain_is_the_mean_paired_difference(data):
    rng = np.random.default_rng(13)
    test, truth = data.test, data.truth
    good, poor = truth + rng.normal(size=truth.shape), rng.random(truth.shape)
    trials = [Trial(data, score) for score in (good, poor)]
    ranked = rank_all(trials, test, np.ones(2, dtype=bool))
    better, worse = ranked.trials
    found = ranking_gain([(better, worse), (better, worse)], ranked.dof).to_json()

    def gain(rows):
        return np.mean(
            [
                roc_auc_score(truth[rows, c], good[rows, c])
                - roc_auc_score(truth[rows, c], poor[rows, c])
                for c in range(2)
            ]
        )

    assert found["macro"]["auroc"]["difference"] == pytest.approx(gain(test))
    # By hand: without the rows of each patient in turn.
    patients = np.unique(data.patient[test])
    left_out = [gain(test[data.patient[test] != patient]) for patient in patients]
    share = (len(patients) - 1) / len(patients)
    error = np.sqrt(share * np.sum((np.array(left_out) - gain(test)) ** 2))
    low, high = found["macro"]["auroc"]["ci95"]
    assert (low + high) / 2 == pytest.approx(gain(test))
    assert 2.0 * error < (high - low) / 2 < 2.2 * error
    nothing = ranking_gain([(better, better)], ranked.dof).to_json()
    assert nothing["macro"]["auroc"] == {"difference": 0.0, "ci95": None}


def test_a_text_gain_is_over_labels_with_enough_patients(data):
    rng = np.random.default_rng(14)
    test = data.test
    few = data.truth.copy()
    few[test, 0] = 0
    few[test[:1], 0] = 1
    data = replace(data, truth=few)
    trials = [Trial(data, rng.random(few.shape)) for _ in range(2)]
    gain = text_gain(trials[:1], trials[1:], test)
    assert gain.labels == [data.label_names[1]]
    areas = [roc_auc_score(few[test, 1], trial.score[test, 1]) for trial in trials]
    assert gain.macro.auroc.difference == pytest.approx(areas[0] - areas[1])
    assert gain.macro.auroc.ci95 is not None
    few[test, 1] = 1
    assert text_gain(trials[:1], trials[1:], test) is None


def test_the_interval_of_several_trials_includes_their_differences(data):
    truth = data.truth.astype(np.float64)
    trials = [Trial(data, truth), Trial(data, -truth)]
    found = summarize_control(trials, data.test, n_bootstrap=100).to_json()
    assert found["macro"]["auroc"] == 0.5
    low, high = found["ci95"]["macro"]["auroc"]
    assert low < 0.01
    assert high > 0.99


def test_a_label_that_one_trial_did_not_learn_is_undefined(data):
    score = np.random.default_rng(13).random((80, 2))
    lacking = replace(data, learned=np.array([True, False]))
    trials = [Trial(data, score), Trial(lacking, score)]
    found = summarize_control(trials, data.test, n_bootstrap=0).to_json()
    assert found["per_label"]["Edema"]["auroc"] is None
    assert found["per_label"]["Mass"]["auroc"] is not None
    assert found["ci95"]["macro"]["auroc"] is None


def test_perfect_scores_are_at_chance_on_shuffled_labels(data):
    truth = data.truth.astype(np.float64)
    found = untrained_controls(data, truth, np.zeros((len(data.test), 2)), n_bootstrap=200)
    assert found["random_features"].macro.auroc == 0.5
    low, high = found["shuffled_labels"].macro.auroc_ci
    assert low < 0.5 < high
    assert found["shuffled_labels"].macro.auroc < 0.7


@pytest.mark.parametrize("number", [2, 3, 14])
def test_a_derangement_leaves_no_label_in_place(number):
    for seed in range(20):
        others = derangement(number, seed=seed)
        assert sorted(others) == list(range(number))
        assert (others != np.arange(number)).all()


def test_permuted_texts_score_each_label_by_another_one(data):
    score = np.random.default_rng(4).normal(size=data.truth.shape)
    found = summarize_control(permute_texts(data, score), data.test, n_bootstrap=20).to_json()
    truth = data.truth[data.test]
    known = truth >= 0
    for c, name in enumerate(data.label_names):
        rows = known[:, c]
        expected = roc_auc_score(truth[rows, c], score[data.test][rows, 1 - c])
        assert found["per_label"][name]["auroc"] == pytest.approx(expected)


def test_a_single_label_has_no_permuted_texts(data):
    alone = replace(
        data,
        truth=data.truth[:, :1],
        label_names=("Mass",),
        learned=np.array([True]),
    )
    assert permute_texts(alone, np.zeros((80, 1))) == []
