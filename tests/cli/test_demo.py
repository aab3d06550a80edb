"""The ``demo`` command."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from sklearn.metrics import roc_auc_score

METHODS = ["baseline", "concat", "weighted_sum", "zero-shot"]


@pytest.mark.parametrize("step", [2, 4])
def test_interrupted_demo_is_completed_by_the_same_command(run, tmp_path, monkeypatch, step):
    """Interrupted before the extraction, and before a head whose predecessor is saved."""
    outcome = SimpleNamespace(
        macro=SimpleNamespace(auroc=0.9, auroc_ci=(0.8, 1.0), auprc=0.5, f1=0.4)
    )
    steps: list[str] = []
    interrupted_at = step

    def work(*arguments, **settings):
        steps.append("work")
        if len(steps) == interrupted_at:
            raise KeyboardInterrupt
        return SimpleNamespace(metrics=outcome, save=lambda folder: folder.mkdir(parents=True))

    for name in ("load_dataset", "extract", "train_head", "zero_shot"):
        monkeypatch.setattr(f"featurecache.demo.{name}", work)
    monkeypatch.setattr("featurecache.demo.load_dataset", lambda name: [work()])
    assert run("demo").code == 130
    assert run("demo", "--out", "featurecache-demo").code == 0
    assert not Path("featurecache-demo-2").exists()
    with Path("featurecache-demo/results.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == METHODS
    assert sorted(path.name for path in Path("featurecache-demo/runs").iterdir()) == METHODS
    assert run("demo", "--out", "featurecache-demo").code == 2  # finished
    interrupted_at = 0
    assert run("demo").code == 0
    assert Path("featurecache-demo-2").exists()
    Path("mine/runs/baseline").mkdir(parents=True)
    assert run("demo", "--out", "mine").code == 2


@pytest.fixture
def demo_outcome(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    outcome = run("demo", "--n-bootstrap", 20)
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_demo_prints_metrics_and_creates_a_folder_for_the_other_commands(
    run, tmp_path, demo_outcome
):
    folder = tmp_path / "featurecache-demo"
    for method in METHODS:
        assert method in demo_outcome.stdout
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        metrics = json.loads((folder / "runs" / row["method"] / "metrics.json").read_text())
        assert float(row["auroc"]) == metrics["macro"]["auroc"]
        assert float(row["low"]) < float(row["auroc"]) < float(row["high"])
        assert float(row["auroc"]) > 0.7
    with (folder / "runs/zero-shot/predictions.csv").open() as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    truth = [int(row["Effusion truth"]) for row in test]
    probability = [float(row["Effusion probability"]) for row in test]
    metrics = json.loads((folder / "runs/zero-shot/metrics.json").read_text())
    expected = metrics["per_label"]["Effusion"]["auroc"]
    assert roc_auc_score(truth, probability) == pytest.approx(expected, abs=1e-3)
    cache = folder / "cache/phantom/tiny.h5"
    quick = ("--epochs", 1, "--no-controls", "--n-bootstrap", 0)
    again = run("train-head", "--head", "weighted_sum", "--cache", cache, *quick)
    assert again.code == 0, again.stderr
    # By default, extract uses the data set and the model of the demo.
    assert run("extract", "--cache", folder / "cache", "--json").json[0]["done"] == 0
    refused = run("demo", "--out", folder)
    assert refused.code == 2
    assert "already exists" in refused.stderr
