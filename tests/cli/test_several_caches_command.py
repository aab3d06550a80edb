"""Two encoders' caches of the same films on the command line."""

import csv
from pathlib import Path

import pytest


@pytest.fixture
def two_caches(run, tiny_clip, extract_options):
    """By ``tiny``, which ships with the package, and by a CLIP of random weights."""
    made = run("extract", "--model", "tiny", "--model", tiny_clip, *extract_options, "--json")
    assert made.code == 0, made.stderr
    return [part for one in made.json for part in ("--cache", one["path"])]


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_head_on_both_is_trained_evaluated_and_predicts(
    run, two_caches, tiny_clip, films, fusion
):
    trained = run(
        *("train-head", "--head", "linear", *two_caches, "--fusion", fusion),
        *("--n-bootstrap", 0, "--no-controls", "--json"),
    )
    assert trained.code == 0, trained.stderr
    assert "cache cache/films/tiny.h5 and cache/films/tiny-clip.h5" in trained.stderr
    folder = trained.json["run"]
    assert folder == "runs/films-tiny+tiny-clip-linear"

    evaluated = run("evaluate", folder, *two_caches, "--n-bootstrap", 0, "--json")
    assert evaluated.code == 0, evaluated.stderr
    assert evaluated.json["macro"]["auroc"] == pytest.approx(trained.json["macro"]["auroc"])

    with Path(folder, "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    found = run(
        *("predict", folder, films / row["id"], "--model", "tiny", "--model", tiny_clip, "--json")
    )
    assert found.code == 0, found.stderr
    probability = found.json[0]["probabilities"]["Opacity"]
    assert probability == pytest.approx(float(row["Opacity probability"]), abs=1e-3)


def test_one_encoder_for_a_head_of_two_is_refused(run, two_caches, films):
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
    refused = run("predict", folder, films / "film-000.png", "--model", "tiny")
    assert refused.code == 2
    assert "takes 2 encoders, but --model names 1" in " ".join(refused.stderr.split())


def test_a_curve_over_both(run, two_caches):
    made = run(
        *("learning-curve", "--head", "linear", *two_caches, "--fusion", "late", "--sizes", "20"),
        *("--seeds", 1, "--n-bootstrap", 0, "--json"),
    )
    assert made.code == 0, made.stderr
    assert made.json["sizes"] == [20]
