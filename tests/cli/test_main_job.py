"""The main job as a user runs it: extract, train heads, zero-shot, predict."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score


@pytest.fixture
def extracted(run, tiny_clip, extract_options):
    outcome = run("extract", "--model", tiny_clip, *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr
    return outcome.json[0]


def test_extract_reports_what_it_did_and_reuses_it_the_second_time(
    run, tiny_clip, extract_options, extracted
):
    assert extracted["path"] == "cache/films/tiny-clip.h5"
    assert (extracted["done"], extracted["reused"], extracted["failed"]) == (60, 0, {})
    shares = [extracted[f"{part}_share"] for part in ("read", "encode", "write")]
    assert sum(shares) == pytest.approx(1)
    again = run("extract", "--model", tiny_clip, *extract_options)
    assert again.code == 0
    assert "signs, reused" in again.stdout
    second = run("extract", "--model", tiny_clip, *extract_options, "--json").json[0]
    assert (second["done"], second["reused"], second["written"]) == (0, 60, False)


def test_a_second_run_does_not_load_the_weights(
    run, tiny_clip, extract_options, extracted, monkeypatch
):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("featurecache.encoders.inference.InferenceNetwork.inference", refuse)
    assert run("extract", "--model", tiny_clip, *extract_options).code == 0


@pytest.mark.parametrize("head", ["baseline", "concat", "weighted_sum"])
def test_each_head_leaves_a_run_whose_figures_follow_from_its_predictions(run, extracted, head):
    outcome = run("train-head", "--head", head, "--n-bootstrap", 50, "--json")
    assert outcome.code == 0, outcome.stderr
    metrics = outcome.json
    assert metrics["run"] == f"runs/films-tiny-clip-{head}"
    with Path(metrics["run"], "predictions.csv").open() as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    truth = [int(row["Opacity truth"]) for row in test]
    probability = [float(row["Opacity probability"]) for row in test]
    assert metrics["per_label"]["Opacity"]["auroc"] == pytest.approx(
        roc_auc_score(truth, probability)
    )
    assert metrics["per_label"]["Rare"]["auroc"] is None
    assert any("Rare has no positives in training" in text for text in metrics["warnings"])


def test_several_seeds_give_mean_and_spread(run, extracted):
    outcome = run("train-head", "--head", "baseline", "--seeds", 3, "--n-bootstrap", 0, "--json")
    spread = outcome.json["seeds"]["macro"]["auroc"]
    assert len(spread["values"]) == 3
    assert spread["mean"] == pytest.approx(np.mean(spread["values"]))
    assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
    shown = run("train-head", "--head", "baseline", "--seeds", 3, "--n-bootstrap", 0)
    assert f"over 3 seeds: {spread['mean']:.4f}" in shown.stdout


def test_the_newest_cache_is_chosen_and_said(run, extracted):
    outcome = run("train-head", "--head", "baseline", "--n-bootstrap", 0)
    assert "cache cache/films/tiny-clip.h5 (the newest), head baseline" in outcome.stderr


def test_a_shard_is_not_the_newest_cache(run, extracted):
    newest = Path("cache/films/tiny-clip.1-of-2.h5")
    shutil.copy(Path("cache/films/tiny-clip.h5"), newest)
    outcome = run("train-head", "--head", "baseline", "--epochs", 1, "--n-bootstrap", 0)
    assert "cache cache/films/tiny-clip.h5 (the newest)" in outcome.stderr
    Path("cache/films/tiny-clip.h5").unlink()
    outcome = run("zero-shot")
    assert outcome.code == 2
    assert "holds only shards of caches: merge them" in outcome.stderr


def test_a_second_run_folder_gets_a_name_of_its_own(run, extracted):
    names = [
        run("train-head", "--head", "baseline", "--n-bootstrap", 0, "--json").json["run"]
        for _ in "ab"
    ]
    assert names == ["runs/films-tiny-clip-baseline", "runs/films-tiny-clip-baseline-2"]


def test_predict_gives_what_the_run_predicted_from_the_cache(run, tiny_clip, films, extracted):
    run("train-head", "--head", "concat", "--n-bootstrap", 0, "--out", "run")
    with Path("run/predictions.csv").open() as file:
        stored = {row["id"]: float(row["Opacity probability"]) for row in csv.DictReader(file)}
    names = sorted(stored)[:3]
    outcome = run(
        "predict", "run", *(films / name for name in names), "--model", tiny_clip, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    fitted = json.loads(Path("run/metrics.json").read_text())["calibration"]["per_label"]
    slope, intercept = (fitted["Opacity"][name] for name in ("slope", "intercept"))
    for name, prediction in zip(names, outcome.json, strict=True):
        p = prediction["probabilities"]["Opacity"]
        assert p == pytest.approx(stored[name], abs=1e-4)
        odds = slope * np.log(p / (1 - p)) + intercept
        assert prediction["calibrated"]["Opacity"] == pytest.approx(1 / (1 + np.exp(-odds)))
        assert prediction["calibrated"]["Rare"] is None
    shown = run("predict", "run", films / names[0], "--model", tiny_clip)
    assert f"{stored[names[0]]:.3f}" in shown.stdout


def test_predict_says_which_image_is_unreadable_and_predicts_the_others(
    run, tiny_clip, films, extracted, tmp_path
):
    run("train-head", "--head", "baseline", "--n-bootstrap", 0, "--out", "run")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    outcome = run("predict", "run", "bad.png", films / "film-000.png", "--model", tiny_clip)
    assert outcome.code == 2
    assert "bad.png: not an image of a known format" in outcome.stderr
    assert "film-000.png" in outcome.stdout


@pytest.mark.parametrize("scoring", ["auto", "sigmoid", "pair", "softmax"])
def test_zero_shot_scores_follow_from_the_cached_embeddings(run, extracted, scoring):
    outcome = run(
        "zero-shot", "--scoring", scoring, "--n-bootstrap", 0, "--out", f"zero-{scoring}", "--json"
    )
    assert outcome.code == 0, outcome.stderr
    with h5py.File("cache/films/tiny-clip.h5") as file:
        images = file["images/embedding"][()].astype(np.float64)
        positive = file["text/signs/ensemble"][()].astype(np.float64)
        negative = file["text/signs/negatives/ensemble"][()].astype(np.float64)
        test = file["images/split"].asstr()[()] == "test"
        truth = file["labels/values"][()][:, 0]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    scores = {
        "sigmoid": images @ positive[0],
        "pair": images @ (positive[0] - negative[0]),
        "softmax": images @ (positive[0] - positive[1]),
    }[outcome.json["scoring"]]
    assert outcome.json["scoring"] == ("pair" if scoring == "auto" else scoring)
    expected = roc_auc_score(truth[test], scores[test])
    assert outcome.json["per_label"]["Opacity"]["auroc"] == pytest.approx(expected, abs=0.02)


def test_new_prompts_and_new_labels_encode_no_image(
    run, tiny_clip, extract_options, extracted, tmp_path
):
    (tmp_path / "mine.toml").write_text('templates = ["a film with {pathology}"]\n')
    outcome = run(
        "extract", "--model", tiny_clip, *extract_options, "--prompts", "mine.toml", "--json"
    )
    assert (outcome.json[0]["done"], outcome.json[0]["prompts"]) == (0, "mine, encoded")
    info = run("cache", "info", "cache/films/tiny-clip.h5", "--json").json
    assert set(info["prompts"]) == {"signs", "mine"}
    several = run("train-head", "--head", "concat")
    assert several.code == 2
    assert "give --prompts" in several.stderr
    assert run("train-head", "--head", "concat", "--prompts", "mine", "--n-bootstrap", 0).code == 0


def test_two_models_in_one_run_give_two_caches(
    run, tiny_clip, tiny_pair, extract_options, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    outcome = run(
        "extract", "--model", tiny_clip, "--model", "dinov2-minilm", *extract_options, "--json"
    )
    assert [summary["done"] for summary in outcome.json] == [60, 60]
    listed = run("cache", "ls", "--json").json
    assert [entry["path"] for entry in listed] == [
        "cache/films/dinov2-minilm.h5",
        "cache/films/tiny-clip.h5",
    ]
    refused = run("zero-shot", "--cache", "cache/films/dinov2-minilm.h5")
    assert refused.code == 2
    assert "never trained together" in refused.stderr


def test_failed_images_are_recorded_and_shown(run, tiny_clip, films, tmp_path):
    shutil.copytree(films, tmp_path / "copy")
    (tmp_path / "copy/film-003.png").write_bytes(b"")
    (tmp_path / "copy/film-004.png").unlink()
    options = ["--dataset", "csv", "--data-root", "copy/films.csv", "--label-column", "Opacity"]
    outcome = run("extract", "--model", tiny_clip, *options, "--split-column", "split")
    assert outcome.code == 0
    assert "failed: film-003.png: the file is empty" in outcome.stderr
    assert "failed: film-004.png: missing: no such file" in outcome.stderr
    info = run("cache", "info", "cache/films/tiny-clip.h5", "--json").json
    assert set(info["failures"]) == {"film-003.png", "film-004.png"}
    assert run("cache", "verify", "cache/films/tiny-clip.h5").code == 0


def test_json_prints_exactly_one_document(run, tiny_clip, extract_options, extracted):
    for command in (
        ["models"],
        ["datasets"],
        ["heads"],
        ["cache", "ls"],
        ["cache", "info", "cache/films/tiny-clip.h5"],
        ["cache", "verify", "cache/films/tiny-clip.h5"],
    ):
        outcome = run(*command, "--json")
        assert outcome.code == 0
        json.loads(outcome.stdout)
        assert run(*command).stdout


def test_the_main_job_on_real_films_with_real_weights(run, shared_data, shared_models, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(shared_models))
    monkeypatch.setenv("FEATURECACHE_DATA", str(shared_data))
    outcome = run(
        *("extract", "--model", "dinov2-minilm", "--dataset", "nih", "--split", "patient"),
        *("--limit", 120, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json[0]["done"] == 120
    trained = run("train-head", "--head", "weighted_sum", "--n-bootstrap", 50, "--json")
    assert trained.code == 0, trained.stderr
    assert trained.json["per_label"]["Hernia"]["auroc"] is None
    film = sorted((shared_data / "nih/originals_1024").iterdir())[0]
    Image.open(film).close()
    predicted = run("predict", trained.json["run"], film, "--json")
    assert predicted.code == 0, predicted.stderr
    assert all(0 <= p <= 1 for p in predicted.json[0]["probabilities"].values())


def test_a_head_is_measured_on_another_data_set_of_the_same_encoder(
    run, tiny_clip, films, extract_options, extracted, tmp_path
):
    assert run("train-head", "--head", "baseline", "--n-bootstrap", 0).code == 0
    head = "runs/films-tiny-clip-baseline"
    table = (films / "films.csv").read_text().replace("Opacity", "Shadow")
    (films / "others.csv").write_text(table)
    others = [str(o).replace("films.csv", "others.csv") for o in extract_options]
    others = [o.replace("Opacity", "Shadow") for o in others]
    assert run("extract", "--model", tiny_clip, *others).code == 0
    # Rare alone has the same name, and no positives: nothing can be measured by default.
    outcome = run("evaluate", head, "--label-map", "Opacity=Shadow", "--split", "all", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["n"] == 60
    assert outcome.json["label_map"] == {"Opacity": "Shadow"}
    for label_map, words in (
        ("Opacity", "write SRC=DST"),
        ("Opacity=Mass", "trained: Opacity, Rare; in the data set: Shadow, Rare"),
    ):
        refused = run("evaluate", head, "--label-map", label_map)
        assert refused.code == 2
        assert words in " ".join(refused.stderr.split())
    # On its own data set the images it learned from are not scored.
    own = ("--cache", extracted["path"], "--n-bootstrap", 0)
    same = run("evaluate", head, *own, "--json")
    assert same.json["per_label"]["Opacity"] == json.loads(
        (tmp_path / head / "metrics.json").read_text()
    )["per_label"]["Opacity"] | {"threshold_source": "training"}
    leaked = run("evaluate", head, *own, "--split", "all")
    assert leaked.code == 2
    assert "trained on 46 of the 60" in leaked.stderr
    out = run("evaluate", head, *own, "--out", "runs/measured")
    assert out.code == 0
    assert (tmp_path / "runs/measured/predictions.csv").is_file()


def test_runs_are_compared_on_the_same_images_only(run, extracted, tmp_path):
    for head in ("baseline", "concat"):
        assert run("train-head", "--head", head, "--n-bootstrap", 0).code == 0
    one, two = "runs/films-tiny-clip-baseline", "runs/films-tiny-clip-concat"
    shown = run("compare", one, two, "--n-bootstrap", 50)
    assert shown.code == 0, shown.stderr
    assert f"{two} minus {one}" in shown.stdout
    found = run("compare", one, two, "--n-bootstrap", 50, "--json").json
    figures = [
        json.loads((tmp_path / folder / "metrics.json").read_text())["macro"]["auroc"]
        for folder in (one, two)
    ]
    macro = found["comparisons"][0]["macro"]["auroc"]
    assert [macro["first"], macro["run"]] == pytest.approx(figures)
    # Rare could not be learned: it is in no average.
    assert found["labels"] == ["Opacity"]
    alone = run("compare", one)
    assert alone.code == 2
    assert "at least two runs" in alone.stderr


def test_the_table_is_titled_by_what_was_measured_and_lists_its_controls(run, extracted):
    outcome = run("train-head", "--head", "baseline", "--n-bootstrap", 0, "--epochs", 2)
    assert outcome.code == 0, outcome.stderr
    assert "baseline on films: " in outcome.stdout
    for control in ("view only", "shuffled labels", "random features"):
        assert f"macro of {control}" in outcome.stdout
