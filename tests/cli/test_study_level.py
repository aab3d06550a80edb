"""Heads that are trained, evaluated and applied at study level from the command line."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

import featurecache as fc
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.errors import FeaturecacheWarning
from featurecache.report.load_runs import load_runs
from featurecache.report.reproduce import reproduction_commands

HEAD = ("train-head", "--head", "prototype", "--no-controls", "--n-bootstrap", 0)
SIDE_BY_SIDE = ("--level", "study", "--study-features", "frontal+lateral")


def test_studies_from_training_to_prediction(run) -> None:
    generate_phantom("ph", n_images=80, n_views=2, size=48)
    assert run("extract", "--data-root", "ph").code == 0
    trained = run(*HEAD, *SIDE_BY_SIDE, "--out", "studies")
    assert trained.code == 0, trained.stderr
    assert (
        "using studies, frontal and lateral embeddings side by side (40 studies)" in trained.stderr
    )
    assert re.search(r"\d+ test studies of \d+ patients", trained.stdout + trained.stderr)
    assert run(*HEAD, "--level", "study", "--views", "frontal", "--out", "frontal").code == 0
    assert run(*HEAD, "--out", "images").code == 0
    compared = run("compare", "frontal", "studies", "--json").json
    assert compared["level"] == "study"
    refused = run("compare", "images", "studies")
    assert refused.code == 2
    assert "with --level study" in refused.stderr
    assert run("compare", "images", "studies", "--level", "study").code == 0
    assert run("table", "images", "studies").code == 2

    for command in (
        ("retrieve", "--label", "Effusion", "--top", 40),
        ("suggest", "--split", "all"),
        ("audit", "--n-bootstrap", 0),
        ("learning-curve", "--head", "prototype", "--sizes", 8, "--seeds", 1),
        ("cache", "export", "cache/phantom/tiny.h5", "laterals.npy"),
    ):
        outcome = run(*command, "--views", "lateral")
        assert "using images, lateral views (40 images)" in outcome.stderr, command
    assert sorted(pd.read_csv("laterals.images.csv")["view"].unique()) == ["LATERAL"]
    pooled = ("--level", "study", "--study-features", "mean", "--json")
    exported = run("cache", "export", "cache/phantom/tiny.h5", "studies.npy", *pooled)
    expected = {"path": "studies.npy", "level": "study", "n": 40, "dim": 128, "tokens": None}
    assert exported.json == expected

    # A row per study, of the cache and of the files, which need a table to be studies.
    assert run("predict", "studies", "cache/phantom/tiny.h5", "--out", "cached.csv").code == 0
    cached = pd.read_csv("cached.csv")
    assert cached.columns[0] == "study"
    assert len(cached) == 40
    with Path("new.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "exam", "view"])
        for study in cached["study"][:2]:
            rows.writerow([f"ph/images/{study}_lateral.png", study, "LL"])
            rows.writerow([f"ph/images/{study}.png", study, "PA"])
    columns = ("--study-column", "exam", "--view-column", "view")
    outcome = run("predict", "studies", "new.csv", *columns, "--out", "new-predictions.csv")
    assert outcome.code == 0, outcome.stderr
    new = pd.read_csv("new-predictions.csv")
    assert new["study"].tolist() == cached["study"][:2].tolist()
    labels = [name for name in new if name.endswith(" probability") and new[name].notna().all()]
    assert labels
    for label in labels:
        assert new[label].tolist() == pytest.approx(cached[label][:2].tolist(), abs=1e-3)
    Path(f"ph/images/{cached['study'][1]}_lateral.png").write_bytes(b"")
    with pytest.warns(FeaturecacheWarning, match="is predicted without images that could not be"):
        incomplete = fc.load_run("studies").predict(
            fc.load_dataset("new.csv", study="exam", view="view")
        )
    assert incomplete["error"].isna().all()
    unknown = run("predict", "studies", f"ph/images/{cached['study'][0]}.png")
    assert unknown.code == 2
    assert "no image is known to be frontal" in unknown.stderr
    other = run("predict", "studies", "new.csv", "--level", "image")
    assert "--level is 'study' for studies and 'image' for this prediction" in other.stderr

    evaluate = ("evaluate", "studies", "--split", "all", "--n-bootstrap", 0)
    assert "level is" not in run(*evaluate).stderr  # refused for other reasons: a leak
    assert "--level is 'study'" in run(*evaluate, "--level", "image").stderr
    command = reproduction_commands(*load_runs(["studies"]))[-1].replace("\\\n", "")
    assert "--level study --study-features frontal+lateral" in " ".join(command.split())
