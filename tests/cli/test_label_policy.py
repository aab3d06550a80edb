"""Policies of uncertain and blank labels, from the command line."""

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.report.load_runs import load_runs
from featurecache.report.reproduce import reproduction_commands


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create 24 images, one a patient, with positive, negative, uncertain and blank cells."""
    root = tmp_path_factory.mktemp("clinic")
    rng = np.random.default_rng(0)
    lines = ["path,split,Edema"]
    for number in range(24):
        pixels = rng.integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02d}.png")
        split = ("train", "val", "test")[number // 8]
        cell = ("1.0", "0", "-1.0" if number % 8 == 2 else "u", "")[number % 4]
        lines.append(f"{number:02d}.png,{split},{cell}")
    (root / "clinic.csv").write_text("\n".join(lines) + "\n")
    return root / "clinic.csv"


def test_another_policy_needs_no_encoder(run, table, monkeypatch):
    options = ["--label-column", "Edema", "--split-column", "split"]
    assert run("extract", "--data-root", table, *options).code == 0
    counts = run("cache", "info", "cache/clinic/tiny.h5", "--json").json
    assert counts["labels"]["Edema"] == {
        "positive": 6,
        "negative": 6,
        "uncertain": 6,
        "blank": 6,
    }
    assert counts["label_policy"] == asdict(fc.LabelPolicy())
    printed = run("cache", "info", "cache/clinic/tiny.h5").stdout
    assert "6 uncertain cells count as unknown (--uncertain ignore)" in printed
    assert "6 blank cells count as unknown (--blank unknown)" in printed

    def refuse(*_args, **_kwargs):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("featurecache.encoders.loading.load_encoder", refuse)
    monkeypatch.setattr("featurecache.encoders.loading.as_encoder", refuse)
    head = ["train-head", "--head", "prototype", "--no-controls", "--n-bootstrap", 0]
    default = run(*head, "--out", "default")
    assert "labels: 6 uncertain cells count as unknown (--uncertain ignore)\n" in default.stderr
    changed = run(*head, "--out", "all", "--uncertain", "positive", "--blank", "negative")
    assert (
        "labels: 6 uncertain cells count as positive (--uncertain positive), 6 blank cells count "
        "as negative (--blank negative)\n"
    ) in changed.stderr
    for folder, known in (("default", 4), ("all", 8)):
        with Path(folder, "predictions.csv").open() as file:
            truth = [row["Edema truth"] for row in csv.DictReader(file) if row["split"] == "test"]
        assert sum(map(bool, truth)) == known
    refused = run("compare", "default", "all")
    assert refused.code == 2
    assert "uncertain is 'ignore' for default and 'positive' for all" in refused.stderr
    refused = run("evaluate", "default", "--uncertain", "positive")
    assert refused.code == 2
    assert "under one policy: open the cache with --uncertain ignore" in refused.stderr
    wrong = run(*head, "--uncertain", "positiv")
    assert "unknown label policy --uncertain 'positiv': did you mean positive" in wrong.stderr


def test_policy_is_part_of_the_command_that_repeats_a_run(run, table):
    data = fc.load_dataset(table, labels="Edema", split="split")
    cache = fc.extract(data, "tiny")
    policy = fc.LabelPolicy(uncertain="negative")
    path = fc.train_head(
        cache.with_policy(policy), "prototype", controls=False, n_bootstrap=0
    ).save("negative")
    command = reproduction_commands(*load_runs([path]))[-1]
    assert "--uncertain negative --blank unknown" in " ".join(command.replace("\\\n", "").split())


def test_fine_tuning_follows_the_policy(run, table):
    options = ["--data-root", table, "--label-column", "Edema", "--split-column", "split"]
    finetune = ["finetune", "--objective", "bce", "--trainable", "head", "--epochs", 1]
    finetune += ["--batch-size", 8]
    outcome = run(*finetune, *options, "--blank", "negative", "--n-bootstrap", 0, "--out", "tuned")
    assert outcome.code == 0, outcome.stderr
    assert "6 blank cells count as negative (--blank negative)" in outcome.stderr
    tuned = fc.load_run("tuned")
    assert tuned.label_policy == {"uncertain": "ignore", "blank": "negative"}
    assert (tuned.scored.truth == [[1], [0], [-1], [0]] * 4).all()
