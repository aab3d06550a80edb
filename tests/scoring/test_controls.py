"""The view-only control: shares counted by hand, and what it scores where views confound."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from featurecache.scoring.controls import view_only_probabilities
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
