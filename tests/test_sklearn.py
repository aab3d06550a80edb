"""HeadClassifier: scikit-learn's own checks, and the head that it trains."""

import dataclasses
import inspect

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurecache.errors import FeaturecacheWarning
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.types import TrainingData
from featurecache.sklearn import HeadClassifier

SMALL = {"hidden": (16,), "epochs": 20, "learning_rate": 2e-2, "batch_size": 8}


@parametrize_with_checks([HeadClassifier("baseline", **SMALL), HeadClassifier("linear")])
def test_estimator_passes_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    x, y = make_multilabel_classification(300, 20, n_classes=3, random_state=0)
    return x.astype(np.float32), y


def test_parameters_are_the_settings_of_head_config():
    parameters = inspect.signature(HeadClassifier).parameters
    of_a_cache = {"prompts", "fusion", "train_size", "precision", "seed"}
    for field in dataclasses.fields(HeadConfig):
        if field.name not in of_a_cache | {"head"}:
            assert parameters[field.name].default == field.default


def test_estimator_trains_the_head_on_the_training_rows(data):
    x, y = data
    groups = np.arange(300) // 3
    model = HeadClassifier("linear", random_state=4).fit(x, y, groups=groups)
    train = model.trained_.train_rows
    val = np.setdiff1d(np.arange(300), train)
    assert not set(groups[train]) & set(groups[val])
    assert 0.1 < len(val) / 300 < 0.2
    training_data = TrainingData(x, y.astype(np.int8), train, val, patient=groups)
    head = fit_head(training_data, HeadConfig(head="linear", seed=4))
    np.testing.assert_array_equal(model.predict_proba(x), predict_probabilities(head.module, x))
    np.testing.assert_array_equal(model.predict(x), model.predict_proba(x) > 0.5)
    odds = model.decision_function(x)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), model.predict_proba(x), atol=1e-6)


def test_unknown_labels_are_left_out_of_training(data):
    x, y = data
    partly_known = y.astype(np.float32)
    partly_known[::3, 1] = np.nan
    model = HeadClassifier("linear", random_state=4).fit(x, partly_known)
    train = model.trained_.train_rows
    val = np.setdiff1d(np.arange(300), train)
    labels = np.where(np.isnan(partly_known), -1, partly_known).astype(np.int8)
    expected = fit_head(TrainingData(x, labels, train, val), HeadConfig("linear", seed=4))
    np.testing.assert_allclose(
        model.predict_proba(x), predict_probabilities(expected.module, x), rtol=1e-6
    )
    with pytest.raises(ValueError, match="NaN"):
        HeadClassifier("linear").fit(np.full_like(x, np.nan), y)


def test_estimator_works_in_cross_validation_and_pipelines(data):
    x, y = data
    model = make_pipeline(StandardScaler(), HeadClassifier("linear"))
    scores = cross_val_score(
        model, x, y, groups=np.arange(300) // 3, cv=GroupKFold(3), scoring="roc_auc"
    )
    assert (scores > 0.75).all()


class Recorder(HeadClassifier):
    """A classifier that records the groups of every fit, and of its validation rows."""

    def fit(self, X, y, groups=None):
        super().fit(X, y, groups)
        train = self.trained_.train_rows
        val = np.setdiff1d(np.arange(len(y)), train)
        FITS.append((None, None) if groups is None else (set(groups[train]), set(groups[val])))
        return self


FITS: list = []


@pytest.mark.parametrize("routing", [False, True])
def test_cross_validation_keeps_groups_whole_in_the_inner_split_too(data, routing):
    x, y = data
    patients = np.array([f"patient {row // 3}" for row in range(300)])
    FITS.clear()
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            model = Recorder("prototype").set_fit_request(groups=True)
            arguments = {"params": {"groups": patients}}
        else:
            model, arguments = (
                Recorder("prototype"),
                {"groups": patients, "params": {"groups": patients}},
            )
        cross_val_score(model, x, y, cv=GroupKFold(4), scoring="roc_auc", **arguments)
    assert len(FITS) == 4
    for train, val in FITS:
        assert not train & val
        assert (len(train), len(val)) == (63, 12)  # of 75 patients that the outer split leaves


def test_grid_search_passes_groups_to_the_inner_split(data):
    x, y = data
    patients = np.arange(300) // 3
    FITS.clear()
    with sklearn.config_context(enable_metadata_routing=True):
        model = Recorder("prototype").set_fit_request(groups=True)
        search = GridSearchCV(model, {"random_state": [0, 1]}, cv=GroupKFold(2))
        search.fit(x, y, groups=patients)
    assert len(FITS) == 5
    assert all(train and val and not train & val for train, val in FITS)


def test_without_groups_rows_are_split_at_random(data):
    x, y = data
    model = HeadClassifier("prototype").fit(x, y)
    patients = np.arange(300) // 3
    train = model.trained_.train_rows
    val = np.setdiff1d(np.arange(300), train)
    assert len(val) == 45
    assert set(patients[train]) & set(patients[val])


def test_fit_that_was_cut_off_is_warned_of(data, monkeypatch):
    monkeypatch.setattr("featurecache.heads.logistic.MAX_ITERATIONS", 1)
    with pytest.warns(FeaturecacheWarning, match="the fit of linear stopped before its optimum"):
        HeadClassifier("linear").fit(*data)


def test_one_of_three_classes_is_predicted():
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(3, 8))
    index = rng.integers(3, size=240)
    x = (centers[index] + rng.normal(size=(240, 8))).astype(np.float32)
    names = np.array(["normal", "viral", "bacterial"])[index]
    model = HeadClassifier("linear").fit(x, names)
    assert model.classes_.tolist() == ["bacterial", "normal", "viral"]
    p = model.predict_proba(x)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (model.predict(x) == names).mean() > 0.9


def test_indicators_other_than_zero_and_one_are_refused(data):
    x, y = data
    with pytest.raises(ValueError, match="must consist of 1 and 0"):
        HeadClassifier("linear").fit(x, 2 * y)
