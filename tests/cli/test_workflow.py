"""The main workflow: extract, train-head, zero-shot, predict, evaluate and compare."""

import csv
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import featurecache as fc
from featurecache.metrics.label_support import NOT_LEARNED

QUICK = ("--epochs", 5, "--n-bootstrap", 0, "--no-controls")
"""Options of a training of which any result will do."""


def test_second_extraction_reuses_the_first(run, tiny_clip, extract_options, extracted):
    assert extracted["path"] == "cache/xrays/tiny-clip.h5"
    assert (extracted["done"], extracted["reused"], extracted["failed"]) == (60, 0, {})
    shares = [extracted[f"{stage}_share"] for stage in ("read", "encode", "write")]
    assert sum(shares) == pytest.approx(1)
    again = run("extract", "--model", tiny_clip, *extract_options)
    assert again.code == 0
    assert "signs, reused" in again.stdout
    second = run("extract", "--model", tiny_clip, *extract_options, "--json").json[0]
    assert (second["done"], second["reused"], second["written"]) == (0, 60, False)


def test_second_extraction_does_not_load_the_weights(
    run, tiny_clip, extract_options, extracted, monkeypatch
):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("featurecache.encoders.inference.InferenceNetwork.inference", refuse)
    assert run("extract", "--model", tiny_clip, *extract_options).code == 0


def test_a_sample_is_reported_with_its_own_splits(run, extract_options):
    outcome = run("extract", "--model", "tiny", *extract_options, "--limit", 20)
    cache = fc.open_cache("cache/xrays/tiny.h5")
    sizes = ", ".join(f"{len(cache.rows(split))} {split}" for split in ("train", "val", "test"))
    assert f"a sample of 20 ({sizes}) of 60 images of xrays" in outcome.stderr


@pytest.mark.parametrize("head", ["baseline", "concat", "weighted_sum"])
def test_metrics_of_each_head_follow_from_its_predictions(run, extracted, head):
    options = ("--no-controls", "--n-bootstrap", 0)
    outcome = run("train-head", "--head", head, *options, "--json")
    assert outcome.code == 0, outcome.stderr
    metrics = outcome.json
    assert metrics["run"] == f"runs/xrays-tiny-clip-{head}"
    with Path(metrics["run"], "predictions.csv").open() as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    truth = [int(row["Opacity truth"]) for row in test]
    probability = [float(row["Opacity probability"]) for row in test]
    assert metrics["per_label"]["Opacity"]["auroc"] == pytest.approx(
        roc_auc_score(truth, probability)
    )
    assert metrics["per_label"]["Rare"]["auroc"] is None
    assert any("Rare has no positives in training" in text for text in metrics["warnings"])


def test_several_seeds_give_mean_and_standard_deviation(run, extracted):
    options = ("--seeds", 3, *QUICK)
    outcome = run("train-head", "--head", "baseline", *options, "--json")
    spread = outcome.json["seeds"]["macro"]["auroc"]
    assert len(spread["values"]) == 3
    assert spread["mean"] == pytest.approx(np.mean(spread["values"]))
    assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
    printed = run("train-head", "--head", "baseline", *options)
    assert f"over 3 seeds: {spread['mean']:.4f}" in printed.stdout
    assert "averages: mean of 3 seeds; labels: seed 0" in printed.stdout
    assert "this run, seed 0" in printed.stdout


def test_newest_cache_is_the_default_and_is_printed(run, extracted):
    outcome = run("train-head", "--head", "baseline", *QUICK)
    assert (
        "training baseline on cache/xrays/tiny-clip.h5 (the newest) with seed 0" in outcome.stderr
    )


def test_shard_is_not_chosen_as_the_newest_cache(run, extracted):
    newest = Path("cache/xrays/tiny-clip.1-of-2.h5")
    shutil.copy(Path("cache/xrays/tiny-clip.h5"), newest)
    outcome = run("train-head", "--head", "baseline", *QUICK)
    assert "cache/xrays/tiny-clip.h5 (the newest)" in outcome.stderr
    Path("cache/xrays/tiny-clip.h5").unlink()
    outcome = run("zero-shot")
    assert outcome.code == 2
    assert "holds only shards: merge them" in outcome.stderr


def test_second_run_folder_gets_a_new_name(run, extracted):
    first, second = (run("train-head", "--head", "baseline", *QUICK, "--json") for _ in "ab")
    name = "runs/xrays-tiny-clip-baseline"
    assert [first.json["run"], second.json["run"]] == [name, f"{name}-2"]
    assert "was kept" not in first.stderr
    assert f"{name} exists and was kept: this run is in {name}-2" in " ".join(second.stderr.split())


def test_predictions_of_images_equal_those_from_the_cache(run, tiny_clip, image_folder, extracted):
    run("train-head", "--head", "concat", *QUICK, "--out", "run")
    calibrate("run", "Opacity", slope=0.5, intercept=-1.0)
    with Path("run/predictions.csv").open() as file:
        stored = {row["id"]: float(row["Opacity probability"]) for row in csv.DictReader(file)}
    names = sorted(stored)[:3]
    outcome = run(
        "predict", "run", *(image_folder / name for name in names), "--model", tiny_clip, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    threshold = fc.load_run("run").metrics.per_label["Opacity"].threshold
    for name, prediction in zip(names, outcome.json, strict=True):
        p = prediction["probabilities"]["Opacity"]
        assert p == pytest.approx(stored[name], abs=1e-4)
        odds = 0.5 * np.log(p / (1 - p)) - 1
        calibrated = prediction["calibrated"]["Opacity"]
        assert calibrated == pytest.approx(1 / (1 + np.exp(-odds)))
        assert prediction["thresholds"]["Opacity"] == threshold
        assert prediction["positive"]["Opacity"] == (p >= threshold)
        for column in ("probabilities", "thresholds", "positive", "calibrated"):
            assert prediction[column]["Rare"] is None
        assert prediction["not_learned"] == ["Rare"]
        assert prediction["uncalibrated"] == {"Rare": NOT_LEARNED}
    printed = run("predict", "run", image_folder / names[-1], "--model", tiny_clip).stdout
    mark = "*" if p >= threshold else ""
    assert f"{p:.3f}{mark} ({calibrated:.3f})" in printed
    assert re.search(rf"threshold\s+{threshold:.3f}\s*\n", printed)
    assert "* the probability is at or above the threshold of its label" in printed
    assert f"no prediction of Rare: {NOT_LEARNED}" in printed
    assert printed.count("Rare") == 1
    with Path("run/predictions.csv").open() as file:
        assert {row["Rare probability"] for row in csv.DictReader(file)} == {""}


def calibrate(folder, label, *, slope, intercept):
    """Write a Platt scaling into the metrics of a run."""
    path = Path(folder, "metrics.json")
    metrics = json.loads(path.read_text())
    metrics["calibration"]["per_label"][label] |= {
        "slope": slope,
        "intercept": intercept,
        "reason": None,
    }
    path.write_text(json.dumps(metrics))


def test_unreadable_image_is_reported_and_the_others_are_predicted(
    run, tiny_clip, image_folder, extracted, tmp_path
):
    run("train-head", "--head", "baseline", *QUICK, "--out", "run")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    outcome = run("predict", "run", "bad.png", image_folder / "image-000.png", "--model", tiny_clip)
    assert outcome.code == 2
    assert "bad.png: not an image of a known format" in outcome.stderr
    assert "image-000.png" in outcome.stdout
    only_bad = run("predict", "run", "bad.png", "--model", tiny_clip)
    assert (only_bad.code, only_bad.stdout) == (2, "")


@pytest.mark.parametrize("scoring", ["auto", "sigmoid", "pair", "softmax"])
def test_zero_shot_scores_follow_from_the_cached_embeddings(run, extracted, scoring):
    outcome = run(
        "zero-shot", "--scoring", scoring, "--n-bootstrap", 0, "--out", f"zero-{scoring}", "--json"
    )
    assert outcome.code == 0, outcome.stderr
    with h5py.File("cache/xrays/tiny-clip.h5") as file:
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


def test_new_prompts_encode_no_image(run, tiny_clip, extract_options, extracted, tmp_path):
    (tmp_path / "mine.toml").write_text('templates = ["an image with {pathology}"]\n')
    outcome = run(
        "extract", "--model", tiny_clip, *extract_options, "--prompts", "mine.toml", "--json"
    )
    assert (outcome.json[0]["done"], outcome.json[0]["prompts"]) == (0, "mine, encoded")
    info = run("cache", "info", "cache/xrays/tiny-clip.h5", "--json").json
    assert set(info["prompts"]) == {"signs", "mine"}
    several = run("train-head", "--head", "concat")
    assert several.code == 2
    assert "give --prompts" in several.stderr
    assert run("train-head", "--head", "concat", "--prompts", "mine", *QUICK).code == 0


def test_two_models_in_one_command_give_two_caches(
    run, tiny_clip, tiny_pair, extract_options, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    outcome = run(
        "extract", "--model", tiny_clip, "--model", "dinov2-minilm", *extract_options, "--json"
    )
    assert [summary["done"] for summary in outcome.json] == [60, 60]
    listed = run("cache", "ls", "--json").json
    assert [entry["path"] for entry in listed] == [
        "cache/xrays/dinov2-minilm.h5",
        "cache/xrays/tiny-clip.h5",
    ]
    refused = run("zero-shot", "--cache", "cache/xrays/dinov2-minilm.h5")
    assert refused.code == 2
    assert "never trained together" in refused.stderr


def test_failed_images_are_recorded_and_reported(run, tiny_clip, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    (tmp_path / "copy/image-003.png").write_bytes(b"")
    (tmp_path / "copy/image-004.png").unlink()
    options = ["--dataset", "csv", "--data-root", "copy/xrays.csv", "--label-column", "Opacity"]
    outcome = run("extract", "--model", tiny_clip, *options, "--split-column", "split")
    assert outcome.code == 0
    assert "failed: image-003.png: the file is empty" in outcome.stderr
    assert "failed: image-004.png: missing: no such file" in outcome.stderr
    info = run("cache", "info", "cache/xrays/tiny-clip.h5", "--json").json
    assert set(info["failures"]) == {"image-003.png", "image-004.png"}
    assert info["excluded"] == {"missing": 1, "the file is empty": 1}
    assert info["listed"] == {"images": info["images"] + 2, "patients": None}
    table = run("cache", "info", "cache/xrays/tiny-clip.h5").stdout
    assert "2 (1 the file is empty; 1 missing)" in " ".join(table.split())
    assert "patients\tunknown\nstudies\tunknown\n" in table
    assert re.search("splits\ttrain .*, test", table)
    assert run("cache", "verify", "cache/xrays/tiny-clip.h5").code == 0


def test_json_prints_exactly_one_document(run, tiny_clip, extract_options, extracted):
    for command in (
        ["models"],
        ["models", "show", "tiny"],
        ["datasets"],
        ["heads"],
        ["cache", "ls"],
        ["cache", "info", "cache/xrays/tiny-clip.h5"],
        ["cache", "verify", "cache/xrays/tiny-clip.h5"],
    ):
        outcome = run(*command, "--json")
        assert outcome.code == 0
        json.loads(outcome.stdout)
        assert run(*command).stdout


def test_main_workflow_on_real_images_with_real_weights(
    run, shared_data, shared_models, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(shared_models))
    monkeypatch.setenv("FEATURECACHE_DATA", str(shared_data))
    outcome = run(
        *("extract", "--model", "dinov2-minilm", "--dataset", "nih", "--split", "patient"),
        *("--limit", 16, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json[0]["done"] == 16
    quick = ("--epochs", 3, "--no-controls", "--n-bootstrap", 20)
    trained = run("train-head", "--head", "weighted_sum", *quick, "--json")
    assert trained.code == 0, trained.stderr
    assert trained.json["per_label"]["Hernia"]["auroc"] is None
    image = sorted((shared_data / "nih/originals_1024").iterdir())[0]
    Image.open(image).close()
    predicted = run("predict", trained.json["run"], image, "--json")
    assert predicted.code == 0, predicted.stderr
    prediction = predicted.json[0]
    assert "Hernia" in prediction["not_learned"]
    for label, probability in prediction["probabilities"].items():
        assert (probability is None) == (label in prediction["not_learned"])
        assert probability is None or 0 <= probability <= 1


def test_head_is_evaluated_on_another_data_set(
    run, tiny_clip, image_folder, extract_options, extracted, tmp_path
):
    assert run("train-head", "--head", "baseline", *QUICK).code == 0
    head = "runs/xrays-tiny-clip-baseline"
    table = (image_folder / "xrays.csv").read_text().replace("Opacity", "Shadow")
    (image_folder / "same.csv").write_text(table)
    rng = np.random.default_rng(1)
    (image_folder / "others").mkdir(exist_ok=True)
    for path in image_folder.glob("image-*.png"):
        pixels = rng.integers(20, 120, (48, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(image_folder / "others" / path.name)
    (image_folder / "others" / "others.csv").write_text(
        table.replace(",p", ",q").replace("qatient", "patient")
    )
    # A table of the same files hides nothing.
    for name in ("same.csv", "others/others.csv"):
        options = [str(o).replace("xrays.csv", name) for o in extract_options]
        options = [o.replace("Opacity", "Shadow") for o in options]
        assert run("extract", "--model", tiny_clip, *options).code == 0
    copies = ("--cache", "cache/same/tiny-clip.h5", "--label-map", "Opacity=Shadow")
    refused = run("evaluate", head, *copies, "--split", "all")
    assert refused.code == 2
    words = "trained on 46 of the 60 images of same to score (46 with the same file)"
    assert words in " ".join(refused.stderr.split())
    # By default only Rare would be compared, which has no positives.
    outcome = run("evaluate", head, "--label-map", "Opacity=Shadow", "--split", "all", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["n"] == 60
    assert outcome.json["label_map"] == {"Opacity": {"labels": ["Shadow"], "kind": "map"}}
    assert "labels: Opacity (here Shadow)" in outcome.stderr
    assert "1 label of the cache not scored: Rare" in outcome.stderr
    for label_map, words in (
        ("Opacity", "write two names as A=B"),
        ("Opacity=Mass", "trained: Opacity, Rare; in the data set: Shadow, Rare"),
    ):
        refused = run("evaluate", head, "--label-map", label_map)
        assert refused.code == 2
        assert words in " ".join(refused.stderr.split())
    # On its own data set, the images that it was trained on are not scored.
    own = ("--cache", extracted["path"], "--n-bootstrap", 0)
    same = run("evaluate", head, *own, "--json")
    assert same.json["per_label"]["Opacity"] == json.loads(
        (tmp_path / head / "metrics.json").read_text()
    )["per_label"]["Opacity"] | {"threshold_source": "f1 on validation of the training run"}
    leaked = run("evaluate", head, *own, "--split", "all")
    assert leaked.code == 2
    assert "trained on 46 of the 60" in leaked.stderr
    out = run("evaluate", head, *own, "--out", "runs/measured")
    assert out.code == 0
    assert (tmp_path / "runs/measured/predictions.csv").is_file()


def test_runs_are_compared_with_the_first(run, extracted, tmp_path):
    for head in ("baseline", "concat"):
        assert run("train-head", "--head", head, *QUICK).code == 0
    first, second = "runs/xrays-tiny-clip-baseline", "runs/xrays-tiny-clip-concat"
    printed = run("compare", first, second)
    assert printed.code == 0, printed.stderr
    assert f"{second} minus {first}" in printed.stdout
    assert "p (Holm): " not in printed.stdout  # There are no tests to correct for.
    document = run("compare", first, second, "--json").json
    aurocs = [
        json.loads((tmp_path / folder / "metrics.json").read_text())["macro"]["auroc"]
        for folder in (first, second)
    ]
    macro = document["comparisons"][0]["macro"]["auroc"]
    assert [macro["first"], macro["run"]] == pytest.approx(aurocs)
    # Rare had no positives in training, so it is in no average.
    assert list(document["labels"]) == ["Opacity"]
    refused = run("compare", first)
    assert refused.code == 2
    assert "at least two runs" in refused.stderr


def test_table_of_metrics_lists_the_controls(run, extracted):
    outcome = run("train-head", "--head", "baseline", "--n-bootstrap", 0, "--epochs", 2)
    assert outcome.code == 0, outcome.stderr
    assert "baseline on xrays: " in outcome.stdout
    for control in ("every image normal", "prevalence", "shuffled labels", "random features"):
        assert control in outcome.stdout
