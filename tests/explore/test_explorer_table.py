"""The table of the explorer, against plain computations on a few random embeddings."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from featurecache.errors import CacheError, UsageError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.explore.table import explorer_table
from tests.audit.audit_caches import make_cache

SPLITS = ["train", "train", "train", "val", "test", "test"]


@pytest.fixture
def embedding():
    return np.random.default_rng(1).normal(size=(6, 5)).astype(np.float16)


def cosines(embedding):
    unit = embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def scored(cache, rows, *, name="run", **changes):
    """Predictions of "Mass" alone for these rows: 0.1, 0.5, 0.9, ... at a threshold of 0.5."""
    values = {
        "name": name,
        "split": "test",
        "ids": cache.ids[rows],
        "patients": cache.patients[rows],
        "studies": cache.studies[rows],
        "splits": cache.splits[rows],
        "sha256": np.array([f"{row:064d}" for row in rows]),
        "label_names": ("Mass", "Edema"),
        "truth": cache.labels.values[rows],
        "probability": np.column_stack(
            [np.resize([0.1, 0.5, 0.9], len(rows)), np.full(len(rows), np.nan)]
        ),
        "thresholds": np.array([0.5, np.nan]),
    }
    return ScoredImages(**values | changes)


def test_each_image_has_its_place_neighbors_and_familiarity(tmp_path, embedding):
    patients = ["a", "a", "b", "c", "d", "d"]
    cache = make_cache(tmp_path, SPLITS, embedding=embedding, patient=patients)
    table = explorer_table(cache)
    assert table["__row"].tolist() == list(range(6))
    unit = embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = PCA(2, svd_solver="full").fit_transform(unit)
    np.testing.assert_allclose(np.abs(table[["__x", "__y"]]), np.abs(expected), atol=1e-5)
    similarity = cosines(embedding)
    for row, near in enumerate(table["__neighbors"]):
        nearest = [other for other in np.argsort(-similarity[row]) if other != row]
        assert near["ids"].tolist() == nearest
        np.testing.assert_allclose(near["distances"], 1 - similarity[row, nearest], atol=1e-5)
    comparable = {0: [2], 1: [2], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2], 5: [0, 1, 2]}
    nearest = [similarity[row, others].max() for row, others in comparable.items()]
    np.testing.assert_allclose(table["familiarity"], nearest, atol=1e-5)


def test_labels_and_metadata_are_words_where_known(tmp_path):
    labels = [[1, 1], [0, 1], [-2, 0], [0, 0], [1, 0], [0, 1]]
    cache = make_cache(
        tmp_path,
        SPLITS,
        labels=labels,
        label_names=("Mass", "View"),
        view=["PA"] * 6,
        age=["40", "", "3", "80", "50", "60"],
    )
    table = explorer_table(cache)
    assert [name for name in table if not name.startswith("__")] == [
        *("id", "patient", "split", "view", "age", "labels", "familiarity"),
        *("Mass", "View (label)"),
    ]
    assert table["labels"].tolist() == ["Mass, View", "View", "", "", "Mass", "View"]
    assert table["Mass"].fillna("?").tolist() == [
        *("positive", "negative", "?"),
        *("negative", "positive", "negative"),
    ]
    assert table["age"].fillna(-1).tolist() == [40, -1, 3, 80, 50, 60]


def test_a_label_named_like_metadata_stands_beside_it(tmp_path):
    labels = np.array([[1]] * 6)
    cache = make_cache(tmp_path, SPLITS, labels=labels, label_names=("age",), age=["40"] * 6)
    table = explorer_table(cache)
    assert (table["age"].tolist(), table["age (label)"].tolist()) == ([40] * 6, ["positive"] * 6)


def test_unlabeled_images_without_training_images_have_a_map_and_neighbors(tmp_path):
    cache = make_cache(tmp_path, ["test"] * 3, labels=np.zeros((3, 0)))
    table = explorer_table(cache)
    assert [name for name in table if not name.startswith("__")] == ["id", "patient", "split"]
    assert [len(near["ids"]) for near in table["__neighbors"]] == [2, 2, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_have_a_map(tmp_path, n):
    table = explorer_table(make_cache(tmp_path, ["train"] * n))
    assert np.isfinite(table[["__x", "__y"]]).all(axis=None)
    assert [len(near["ids"]) for near in table["__neighbors"]] == [n - 1] * n


def test_predictions_and_errors_are_those_of_the_run(tmp_path):
    labels = np.array([[1], [1], [1], [0], [0], [-1]])
    cache = make_cache(tmp_path, SPLITS, labels=np.hstack([labels, labels]))
    run = scored(cache, np.arange(1, 6))  # 0.1, 0.5, 0.9, 0.1, 0.5
    table = explorer_table(cache, [run])
    pd.testing.assert_series_equal(
        table["Mass probability"],
        pd.Series([np.nan, 0.1, 0.5, 0.9, 0.1, 0.5], name="Mass probability"),
    )
    assert table["Mass error"].fillna("?").tolist() == [
        *("?", "false negative", "none"),
        *("false positive", "none", "?"),
    ]
    assert "Edema probability" not in table
    two = explorer_table(cache, [run, scored(cache, np.arange(2), name="other")])
    assert {"run: Mass error", "other: Mass error"} <= set(two)


def test_runs_on_other_images_are_refused(tmp_path):
    cache = make_cache(tmp_path, SPLITS, labels=np.ones((6, 2)))
    rows = np.arange(2)
    with pytest.raises(UsageError, match="run scored none of the images"):
        explorer_table(cache, [scored(cache, rows, ids=np.array(["x", "y"]))])
    with pytest.raises(CacheError, match="holds other files"):
        explorer_table(cache, [scored(cache, rows, sha256=np.array(["a" * 64] * 2))])
