"""The view-only control: shares counted by hand, and what it scores where views confound."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from featurecache.scoring.controls import (
    random_features,
    shuffled_labels,
    view_only_probabilities,
)
from featurecache.scoring.metrics import auroc


def test_the_probability_is_the_share_in_training_of_that_view():
    views = np.array(["AP", "AP", "AP", "AP", "PA", "PA", "PA"])
    labels = np.int8([[1, 1], [1, 0], [1, -1], [0, -1], [0, 0], [1, 0], [0, -1]])
    found = view_only_probabilities(views, labels, np.array(["PA", "AP", "PA"]))
    np.testing.assert_allclose(found, [[1 / 3, 0], [3 / 4, 1 / 2], [1 / 3, 0]])


def test_an_unseen_view_gets_the_share_among_all():
    views = np.array(["AP", "PA", "PA", "PA"])
    labels = np.int8([[1], [1], [0], [0]])
    found = view_only_probabilities(views, labels, np.array(["LATERAL", "AP", ""]))
    np.testing.assert_allclose(found, [[0.5], [1.0], [0.5]])


def test_a_view_of_which_a_label_is_unknown_gets_the_share_among_all_for_that_label():
    views = np.array(["AP", "AP", "PA", "PA"])
    labels = np.int8([[1, -1], [1, -1], [0, 1], [0, 0]])
    found = view_only_probabilities(views, labels, np.array(["AP"]))
    np.testing.assert_allclose(found, [[1.0, 0.5]])


def test_a_label_of_which_nothing_is_known_is_undefined():
    views, labels = np.array(["AP", "PA"]), np.int8([[-1, 1], [-1, 0]])
    found = view_only_probabilities(views, labels, np.array(["AP", "LATERAL"]))
    np.testing.assert_allclose(found, [[np.nan, 1.0], [np.nan, 0.5]])


def test_where_views_confound_it_scores_what_a_regression_on_the_view_scores():
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


def test_shuffled_labels_are_those_of_other_rows_of_the_same_split():
    labels = np.arange(60, dtype=np.int8).reshape(30, 2)
    train, val = np.arange(0, 20), np.arange(20, 25)
    found = shuffled_labels(labels, [train, val], seed=3)
    for rows in (train, val):
        assert sorted(map(tuple, found[rows])) == sorted(map(tuple, labels[rows]))
        assert (found[rows] != labels[rows]).any()
    assert (found[25:] == labels[25:]).all()
    assert (found == shuffled_labels(labels, [train, val], seed=3)).all()
    assert (found != shuffled_labels(labels, [train, val], seed=4)).any()


def test_random_features_have_the_shape_and_no_pattern():
    features = random_features((400, 50), seed=1)
    assert features.shape == (400, 50)
    assert abs(features.astype(float).mean()) < 0.03
    assert features.astype(float).std() == pytest.approx(1, abs=0.03)
    assert len(np.unique(features[:, 0])) > 300
