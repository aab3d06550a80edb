"""``demo``: its output and the files that it leaves."""

import csv
import json

import pytest
from sklearn.metrics import roc_auc_score

METHODS = ["baseline", "concat", "weighted_sum", "zero-shot"]


@pytest.fixture
def demonstrated(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    outcome = run("demo", "--n-bootstrap", 100)
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_the_demo_prints_a_table_and_leaves_a_folder_for_every_other_command(
    run, tmp_path, demonstrated
):
    folder = tmp_path / "featurecache-demo"
    for method in METHODS:
        assert method in demonstrated.stdout
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        metrics = json.loads((folder / "runs" / row["method"] / "metrics.json").read_text())
        assert float(row["auroc"]) == metrics["macro"]["auroc"]
        assert float(row["low"]) < float(row["auroc"]) < float(row["high"])
        assert float(row["auroc"]) > 0.7
    with (folder / "runs/zero-shot/predictions.csv").open() as file:
        test = [line for line in csv.DictReader(file) if line["split"] == "test"]
    truth = [int(line["Effusion truth"]) for line in test]
    probability = [float(line["Effusion probability"]) for line in test]
    metrics = json.loads((folder / "runs/zero-shot/metrics.json").read_text())
    expected = metrics["per_label"]["Effusion"]["auroc"]
    assert roc_auc_score(truth, probability) == pytest.approx(expected, abs=1e-3)
    cache = folder / "cache/phantom/tiny.h5"
    again = run("train-head", "--head", "weighted_sum", "--cache", cache, "--n-bootstrap", 0)
    assert again.code == 0, again.stderr
    # The defaults of the two stages are the same images, the same model, and the newest cache.
    assert run("extract", "--cache", folder / "cache", "--json").json[0]["done"] == 0
    refused = run("demo", "--out", folder)
    assert refused.code == 2
    assert "already exists" in refused.stderr
