"""Tables of runs: which columns have a best value."""

import numpy as np
import pytest
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli.app import app
from featurecache.errors import UsageError
from featurecache.evaluation.evaluate import evaluate, spread_over_seeds
from featurecache.evaluation.repeated_runs import Trial
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.ranking import confusion
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run

N, LABELS = 60, ("Mass", "Edema", "Hernia")
METRICS = ["macro AUROC", "supported AUROC", "micro F1"]
TRUTH = (np.random.default_rng(8).random((N, 3)) < 0.4).astype(np.int8)
TRUTH[:, 2] = np.arange(N) == 7  # of one patient


def trial(learned: list[bool], seed: int, *, gain: float = 1) -> Trial:
    rows = np.arange(N)
    data = SplitData(
        truth=TRUTH,
        label_names=LABELS,
        patient=np.array([f"p{row // 2}" for row in rows]),
        view=np.full(N, ""),
        train=rows[:0],
        val=rows[:0],
        test=rows,
        learned=np.array(learned),
    )
    noise = np.random.default_rng(seed).normal(size=TRUTH.shape)
    return Trial(data, 1 / (1 + np.exp(-(gain * (2 * TRUTH - 1) + noise))))


def make_run(learned: list[bool], seed: int, *, gain: float = 1) -> Run:
    made = trial(learned, seed, gain=gain)
    data, score = made.data, made.score
    texts = np.full(N, "")
    predictions = Predictions(
        ids=np.array([f"{row:03d}.png" for row in range(N)]),
        patients=data.patient,
        studies=texts,
        splits=np.full(N, "test"),
        sha256=texts,
        label_names=LABELS,
        truth=TRUTH,
        probability=np.where(data.learned, score, np.nan),
    )
    metrics = evaluate(data, score, n_bootstrap=0)
    return Run(kind="head", config={}, metrics=metrics, scored=predictions, default_name=str(seed))


def test_only_averages_over_the_same_labels_have_a_best_value_and_marks():
    alike = fc.table([make_run([True] * 3, 1), make_run([True] * 3, 2)], metrics=METRICS)
    assert alike.ranked == METRICS
    assert alike.to_markdown().count("**") == 2 * 3
    runs = [make_run([True, True, learned], seed) for seed, learned in enumerate([True, False])]
    made = fc.table(runs, metrics=METRICS, marks=True)
    assert made.comparable
    assert made.ranked == ["supported AUROC"]
    assert list(made.marked) == ["supported AUROC"]
    best = made.frame["supported AUROC"].idxmax()
    bold = [line.count("**") for line in made.to_markdown().splitlines()[2:]]
    assert bold == [2 if row == best else 0 for row in range(2)]


def test_marks_are_of_paired_differences_from_the_best():
    best, *others = (make_run([True] * 3, seed, gain=gain) for seed, gain in enumerate([2, 1.8, 0]))
    made = fc.table([*others, best], metrics=METRICS, marks=True)
    assert made.frame["supported AUROC"].idxmax() == 2
    intervals = [one.supported["auroc"].ci95 for one in fc.compare([best, *others]).comparisons]
    assert [high < 0 for _, high in intervals] == [False, True]
    assert made.marked["supported AUROC"] == [False, True, False]
    assert made.to_markdown().count("†") == sum(map(sum, made.marked.values()))
    assert made.marked["macro AUROC"] == [False] * 3  # of a label with too few patients


def test_the_command_names_columns_without_a_best_value(tmp_path):
    folders = [
        str(make_run([True, True, learned], seed).save(tmp_path / str(seed)))
        for seed, learned in enumerate([True, False])
    ]
    result = CliRunner().invoke(app, ["table", *folders, "--metric", "macro F1"])
    assert result.exit_code == 0
    assert "note: macro F1: averages over different labels" in result.stderr


def test_means_over_seeds_are_over_the_labels_that_every_seed_learned():
    trials = [trial([True, True, False], 1), trial([True, False, False], 2)]
    spread = spread_over_seeds(trials, [1, 2], n_bootstrap=0)
    assert spread.learned == ["Mass"]
    metrics = evaluate(trials[0].data, trials[0].score, trials=trials, seeds=spread, n_bootstrap=0)
    assert metrics.headline.labels == {name: ["Mass"] for name in ("macro", "supported", "micro")}
    assert "macro over 1 label, mean of 2 seeds" in repr(metrics)
    # At a threshold of 0.5, without validation images.
    accuracies = []
    for one in trials:
        (tn, fp), (fn, tp) = confusion(TRUTH[:, 0], one.score[:, 0] >= 0.5)
        accuracies.append((tn + tp) / (tn + fp + fn + tp))
    assert spread.micro["accuracy"].values == pytest.approx(accuracies)
    with pytest.raises(UsageError, match="no label was learned with every seed"):
        spread_over_seeds([trials[0], trial([False, False, True], 2)], [1, 2])
