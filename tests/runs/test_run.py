"""A ``Run``: what it shows, how it is saved and loaded, and what it refuses."""

import json

import numpy as np
import pytest

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.runs.folder import new_run, write_config
from featurecache.runs.run import Run, load_run
from tests.evaluation.toy_caches import toy_texts, write_toy_cache


@pytest.fixture
def run(tmp_path) -> Run:
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 2)) < 0.5).astype(np.int8)
    texts = toy_texts(rng.normal(size=(2, 8)), rng.normal(size=(2, 8)), ("Mass", "Edema"))
    cache = write_toy_cache(
        tmp_path / "toy" / "encoder.h5",
        rng.normal(size=(80, 8)),
        labels,
        texts,
        names=("Mass", "Edema"),
    )
    return zero_shot(cache, n_bootstrap=50)


def test_a_saved_run_loads_again(run, tmp_path):
    loaded = load_run(str(run.save(tmp_path / "runs" / "one")))
    assert loaded.metrics == run.metrics
    assert loaded.metrics.macro.auroc_ci == run.metrics.macro.auroc_ci
    assert loaded.kind == "zero-shot"
    assert loaded.predictions.equals(run.predictions)
    assert (loaded.dataset_name, loaded.model_name) == ("toy", "toy-encoder")
    assert loaded.path == run.path == tmp_path / "runs" / "one"


def test_metrics_json_is_the_serialization_of_metrics(run, tmp_path):
    folder = run.save(tmp_path / "one")
    assert json.loads((folder / "metrics.json").read_text()) == run.metrics.to_json()


def test_default_folders_are_named_after_data_set_model_and_method(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(run.save()) == "runs/toy-encoder-zero-shot"
    assert str(run.save()) == "runs/toy-encoder-zero-shot-2"
    assert run.name == "toy-encoder-zero-shot-2"


def test_a_run_shows_its_headline_metrics_with_intervals(run):
    macro = run.metrics.macro
    low, high = macro.auroc_ci
    expected = f"AUROC {macro.auroc:.3f} [{low:.3f}, {high:.3f}]"
    assert expected in repr(run)
    assert f"{macro.auroc:.3f} [{low:.3f}, {high:.3f}]" in run._repr_html_()


def test_a_run_without_a_model_predicts_nothing(run):
    assert run.model is None
    for call in (lambda: run.predict("a.png"), lambda: run.evaluate("cache.h5")):
        with pytest.raises(UsageError, match="trained no model"):
            call()


def test_metrics_and_predictions_of_different_labels_are_refused(run, tmp_path):
    folder = run.save(tmp_path / "one")
    text = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text(text.replace("Edema", "Nodule"))
    with pytest.raises(RunError, match="different labels"):
        load_run(folder)


def test_a_prediction_of_a_label_that_was_not_learned_is_refused(run, tmp_path):
    folder = run.save(tmp_path / "one")
    document = json.loads((folder / "metrics.json").read_text())
    document["per_label"]["Edema"]["confusion"] = None
    (folder / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="learned other labels than it predicted"):
        load_run(folder)


def test_intervals_of_other_labels_are_refused(run, tmp_path):
    folder = run.save(tmp_path / "one")
    document = json.loads((folder / "metrics.json").read_text())
    document["ci95"]["per_label"]["Nodule"] = document["ci95"]["per_label"].pop("Edema")
    (folder / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="other labels than the metrics"):
        load_run(folder)


def test_a_learning_curve_is_not_a_run_with_metrics(tmp_path):
    with new_run(tmp_path / "curve") as folder:
        write_config(folder, "curve", {})
    with pytest.raises(RunError, match="kind 'curve'"):
        load_run(tmp_path / "curve")
