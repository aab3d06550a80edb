"""External validation: metrics against scikit-learn, and the ways in which they could mislead."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.controls import random_features
from featurecache.evaluation.external import external_rows, validate_external
from featurecache.provenance.provenance import Provenance
from tests.evaluation.toy_caches import write_toy_cache

TRAINED = ("Opacity", "Mass")
PRESENT = ("Mass", "Pneumonia", "Edema")


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(6)
    labels = (rng.random((120, 3)) < 0.4).astype(np.int8)
    return write_toy_cache(tmp_path / "other.h5", rng.normal(size=(120, 8)), labels, names=PRESENT)


@pytest.fixture
def probability():
    return np.random.default_rng(7).random((120, 2))


def test_a_label_is_scored_against_the_union_of_several(tmp_path):
    """Positive if one is; unknown if none is and one is unknown."""
    kinds = [[1, 0], [1, -1], [1, 1], [0, 1], [-1, 1], [0, 0], [0, -1], [-1, 0], [-1, -1], [0, 0]]
    truth = [1, 1, 1, 1, 1, 0, -1, -1, -1, 0]
    cache = write_toy_cache(
        *(tmp_path / "a.h5", np.ones((10, 2)), np.array(kinds)),
        names=("pulmonary mass", "mass"),
        dataset="padchest",
    )
    run = validate_external(
        cache,
        lambda embedding: np.linspace(0.1, 0.9, 2 * len(embedding)).reshape(-1, 2),
        name="runs/trained",
        labels=("Mass", "Hernia"),
        provenance=Provenance(),
        thresholds=(0.5, 0.5),
        split="all",
        n_bootstrap=0,
    )
    assert run.scored.truth[:, 0].tolist() == truth
    assert run.scored.label_names == ("Mass",)
    match = {"Mass": {"labels": ["pulmonary mass", "mass"], "kind": "union"}}
    assert run.config["label_map"] == run.metrics.to_json()["label_map"] == match
    assert any(warning.endswith("means the same: Hernia") for warning in run.warnings)


@pytest.mark.parametrize("rows", ["test", "all"])
def test_metrics_are_of_the_matched_labels_at_the_trained_thresholds(cache, probability, rows):
    metrics = validate_external(
        cache,
        lambda embedding: probability[: len(embedding)],
        name="runs/trained",
        labels=TRAINED,
        provenance=Provenance(),
        thresholds=(0.3, 0.6),
        label_map={"Opacity": "Pneumonia", "Mass": "Mass"},
        split=rows,
        n_bootstrap=20,
    ).metrics
    scored = external_rows(cache, rows)
    assert metrics.n == len(scored) == {"test": 30, "all": 120}[rows]
    assert metrics.split == rows
    for target, source, threshold in (("Pneumonia", 0, 0.3), ("Mass", 1, 0.6)):
        truth = cache.labels.values[scored, PRESENT.index(target)]
        scores = metrics.per_label[target]
        expected = roc_auc_score(truth, probability[scored, source])
        assert scores.auroc == pytest.approx(expected)
        decided = probability[scored, source] >= threshold
        assert scores.f1 == pytest.approx(f1_score(truth, decided))
        assert (scores.threshold, scores.threshold_source) == (
            threshold,
            "f1 on validation of the training run",
        )
    assert list(metrics.per_label) == ["Pneumonia", "Mass"]


def test_the_view_control_never_learns_from_scored_images(cache, probability):
    def control(rows):
        return validate_external(
            cache,
            lambda embedding: probability[: len(embedding)],
            name="runs/trained",
            labels=TRAINED,
            provenance=Provenance(),
            thresholds=(0.5, 0.5),
            label_map={"Mass": "Mass"},
            split=rows,
            n_bootstrap=0,
        ).metrics.controls["view_only"]

    assert control("test") is not None
    assert control("all") is None


def test_controls_are_shuffled_labels_and_random_embeddings(cache):
    def classify(embedding):
        return 1 / (1 + np.exp(-embedding[:, :2].astype(np.float64)))

    found = validate_external(
        cache,
        classify,
        name="runs/trained",
        labels=TRAINED,
        provenance=Provenance(),
        thresholds=(0.5, 0.5),
        label_map={"Mass": "Mass"},
        n_bootstrap=50,
    ).metrics.controls
    random = classify(random_features((len(cache.rows("test")), cache.dim), seed=0))[:, 1]
    truth = cache.labels.values[cache.rows("test"), 0]
    expected = roc_auc_score(truth, random)
    assert found["random_features"].per_label["Mass"].auroc == pytest.approx(expected)
    low, high = found["shuffled_labels"].macro.auroc_ci
    assert low < 0.5 < high


def test_an_unknown_split_is_refused_with_a_suggestion(cache):
    with pytest.raises(UnknownNameError, match="did you mean test"):
        external_rows(cache, "tests")


def test_a_cache_without_test_images_is_refused(tmp_path):
    labels = np.array([[0], [1], [1]])
    split = np.array(["train", "train", "val"])
    cache = write_toy_cache(
        tmp_path / "a.h5", np.ones((3, 2)), labels, names=("Mass",), split=split
    )
    with pytest.raises(UsageError, match="no test images: give `split` all"):
        external_rows(cache, "test")


def test_the_split_of_the_other_data_set_gives_no_warning(tmp_path):
    """Nothing was trained on it: by image or without a test split, it does not matter."""
    labels = np.array([[0], [1]] * 20)
    cache = write_toy_cache(
        tmp_path / "a.h5",
        np.ones((40, 2)),
        labels,
        names=("Mass",),
        split=np.array(["train"] * 40),
        by_image=True,
    )
    run = validate_external(
        cache,
        lambda embedding: np.linspace(0.1, 0.9, len(embedding))[:, np.newaxis],
        name="runs/trained",
        labels=("Mass",),
        provenance=Provenance(),
        thresholds=(0.5,),
        split="all",
        n_bootstrap=0,
    )
    assert not any("split" in warning for warning in run.warnings)


def test_a_saved_external_validation_holds_its_predictions(cache, probability, tmp_path):
    label_map = {"Opacity": ["Pneumonia"]}
    run = validate_external(
        cache,
        lambda embedding: probability[: len(embedding)],
        name="runs/trained",
        labels=TRAINED,
        provenance=Provenance(),
        thresholds=(0.3, 0.6),
        label_map=label_map,
        n_bootstrap=0,
    )
    target = run.save(tmp_path / "runs" / "external")
    assert json.loads((target / "metrics.json").read_text()) == run.metrics.to_json()
    with (target / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    test = cache.rows("test")
    assert [line["id"] for line in lines] == cache.ids[test].tolist()
    stored = [float(line["Pneumonia probability"]) for line in lines]
    assert stored == probability[test, 0].tolist()
    truth = [int(line["Pneumonia truth"]) for line in lines]
    assert truth == cache.labels.values[test, 1].tolist()
    assert json.loads((target / "config.json").read_text())["label_map"] == {
        "Opacity": {"labels": ["Pneumonia"], "kind": "map"}
    }


def test_images_that_the_model_was_trained_on_are_refused(cache, probability):
    [seen] = cache.records(cache.rows("test")[:2])
    with pytest.raises(UsageError, match="trained on 2 of the 30 images"):
        validate_external(
            cache,
            lambda embedding: probability[: len(embedding)],
            name="runs/trained",
            labels=TRAINED,
            thresholds=(0.5, 0.5),
            provenance=Provenance().with_training(seen),
            label_map={"Mass": "Mass"},
            n_bootstrap=0,
        )
