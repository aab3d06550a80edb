"""Commands with the caches of two encoders of the same images."""

import csv
import shutil
from pathlib import Path

import pytest


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
