"""Commands with several caches: of the same images, or of several data sets."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def both_extractions(tmp_path_factory, isolate_commands, tiny_clip, extract_options):
    """A folder with the caches of ``tiny`` and a CLIP with random weights, and their paths."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        run = isolate_commands(patch, folder)
        models = ("--model", "tiny", "--model", tiny_clip)
        outcome = run("extract", *models, *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr
    return folder, [summary["path"] for summary in outcome.json]


@pytest.fixture
def two_caches(run, both_extractions, tmp_path):
    """Copy both caches into the current folder; return the options that select them."""
    folder, paths = both_extractions
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return [word for path in paths for word in ("--cache", path)]


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_head_on_two_encoders_is_trained_evaluated_and_predicts(
    run, two_caches, tiny_clip, image_folder, fusion
):
    trained = run(
        *("train-head", "--head", "linear", *two_caches, "--fusion", fusion),
        *("--n-bootstrap", 0, "--no-controls", "--json"),
    )
    assert trained.code == 0, trained.stderr
    assert "training linear on cache/xrays/tiny.h5 and cache/xrays/tiny-clip.h5" in trained.stderr
    folder = trained.json["run"]
    assert folder == "runs/xrays-tiny+tiny-clip-linear"

    evaluated = run("evaluate", folder, *two_caches, "--n-bootstrap", 0, "--json")
    assert evaluated.code == 0, evaluated.stderr
    assert evaluated.json["macro"]["auroc"] == pytest.approx(trained.json["macro"]["auroc"])

    with Path(folder, "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    predicted = run(
        *(
            "predict",
            folder,
            image_folder / row["id"],
            "--model",
            "tiny",
            "--model",
            tiny_clip,
            "--json",
        )
    )
    assert predicted.code == 0, predicted.stderr
    probability = predicted.json[0]["probabilities"]["Opacity"]
    assert probability == pytest.approx(float(row["Opacity probability"]), abs=1e-3)


def test_one_encoder_for_a_head_on_two_is_refused(run, two_caches, image_folder):
    folder = run(
        *(
            "train-head",
            "--head",
            "linear",
            *two_caches,
            "--n-bootstrap",
            0,
            "--no-controls",
            "--json",
        )
    ).json["run"]
    refused = run("evaluate", folder, *two_caches[:2])
    assert refused.code == 2
    assert "takes the embeddings of 2 encoders, but --cache gives 1" in " ".join(
        refused.stderr.split()
    )
    refused = run("predict", folder, image_folder / "image-000.png", "--model", "tiny")
    assert refused.code == 2
    assert "takes 2 encoders, but --model names 1" in " ".join(refused.stderr.split())


def test_learning_curve_on_two_encoders(run, two_caches):
    outcome = run(
        *("learning-curve", "--head", "linear", *two_caches, "--fusion", "late", "--sizes", "20"),
        *("--seeds", 1, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["sizes"] == [20]


def test_rows_of_two_data_sets_are_joined(run, extracted, tiny_clip, image_folder, tmp_path):
    """The second set has the same finding under another name, one label more and one less."""
    other = tmp_path / "other"
    other.mkdir()
    table = (image_folder / "xrays.csv").read_text().replace("Opacity,Rare", "Lung Opacity,Device")
    rng = np.random.default_rng(3)
    for line in table.splitlines()[1:]:
        name, *_, opacity, _ = line.split(",")
        pixels = rng.integers(20, 120, (48, 40)).astype(np.uint8)
        pixels[10:30, 10:30] += 120 * int(opacity)
        Image.fromarray(pixels).save(other / name)
    (other / "other.csv").write_text(table)
    columns = ("--patient-column", "patient", "--split-column", "split", "--view-column", "view")
    labels = ("--label-column", "Lung Opacity", "--label-column", "Device")
    run("extract", "--data-root", other / "other.csv", *columns, *labels, "--model", tiny_clip)
    first, second = extracted["path"], "cache/other/tiny-clip.h5"
    trained = run(
        *("train-head", "--head", "linear", "--cache", first, "--cache", second, "--join", "rows"),
        *("--n-bootstrap", 0, "--no-controls", "--json"),
    )
    assert trained.code == 0, trained.stderr
    printed = " ".join(trained.stderr.split())
    assert f"training linear on {first} and {second}" in printed
    assert "labels of xrays: Opacity, Rare; unknown: Device" in printed
    assert "other: Lung Opacity as Opacity, Device; unknown: Rare" in printed
    folder = trained.json["run"]
    assert folder == "runs/xrays+other-tiny-clip-linear"
    config = json.loads(Path(folder, "config.json").read_text())
    assert [source["path"] for source in config["cache"]["rows_of"]] == [first, second]
    assert config["cache"]["rows_of"][1]["labels"] == {
        "Opacity": ["Lung Opacity"],
        "Device": ["Device"],
    }
    assert config["labels"] == ["Opacity", "Rare", "Device"]
    assert trained.json["n"] == 2 * 14

    # Each data set alone is scored by the same head, with its own names.
    evaluated = run("evaluate", folder, "--cache", second, "--n-bootstrap", 0, "--json")
    assert evaluated.code == 0, evaluated.stderr
    assert evaluated.json["n"] == 14
    match = {"labels": ["Lung Opacity"], "kind": "same"}
    assert evaluated.json["label_map"] == {
        "Opacity": match,
        "Device": match | {"labels": ["Device"]},
    }
    assert "labels: Opacity (here Lung Opacity), Device" in " ".join(evaluated.stderr.split())
    leaked = run("evaluate", folder, "--cache", second, "--split", "all")
    assert leaked.code == 2
    assert "was trained on 46 of the 60 images of other" in " ".join(leaked.stderr.split())

    predicted = run("predict", folder, other / "image-059.png", "--model", tiny_clip, "--json")
    assert predicted.code == 0, predicted.stderr
    with Path(folder, "predictions.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    probability = predicted.json[0]["probabilities"]["Opacity"]
    expected = float(rows["other/image-059.png"]["Opacity probability"])
    assert probability == pytest.approx(expected, abs=1e-3)

    reported = run("report", folder, "--out", "report.html")
    assert reported.code == 0, reported.stderr
    page = Path("report.html").read_text()
    assert "--join rows" in page
    assert "principal component" in page
