"""Paired comparisons, against rows that are repeated by hand, and runs that cannot be compared."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.comparison import compare, holm
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import resample_patients
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run, load_run

N, LABELS = 60, ("Mass", "Edema")


@pytest.fixture
def write(tmp_path):
    rng = np.random.default_rng(8)
    truth = (rng.random((N, 2)) < 0.4).astype(np.int8)
    truth[3, 1] = -1
    patients = np.array([f"p{row // 3}" for row in range(N)])
    ids = np.array([f"{row:03d}.png" for row in range(N)])

    def write(name, *, seed=0, gain=1.0, ids=ids, truth=truth, labels=LABELS, patients=patients):
        noise = np.random.default_rng(seed).normal(size=truth.shape)
        probability = 1 / (1 + np.exp(-(gain * (truth == 1) + noise)))
        rows = np.arange(len(ids))
        metrics = evaluate(
            SplitData(
                truth=truth,
                label_names=labels,
                patient=patients,
                view=np.full(len(ids), ""),
                train=rows[:0],
                val=rows[:0],
                test=rows,
                learned=np.ones(len(labels), dtype=bool),
            ),
            probability,
            thresholds=np.array([0.4, 0.6]),
            n_bootstrap=0,
        )
        run = Run(
            kind="head",
            config={},
            metrics=metrics,
            scored=Predictions(
                ids, patients, np.full(len(ids), "test"), labels, truth, probability
            ),
            default_name=name,
        )
        return run.save(tmp_path / name), truth, probability, patients, metrics

    return write


def test_a_run_does_not_differ_from_itself(write):
    run = write("one")[0]
    (found,) = compare([run, run], n_bootstrap=50).comparisons
    for metrics in (found.macro, found.micro, *found.per_label.values()):
        for metric in metrics.values():
            assert metric.difference == 0
            assert metric.ci95 == (0, 0)
            assert metric.p == metric.p_holm == 1


def test_differences_and_intervals_agree_with_rows_repeated_by_hand(write):
    one, truth, p_one, patients, metrics_one = write("one", seed=1, gain=0.5)
    two, _, p_two, _, metrics_two = write("two", seed=2, gain=2.0)
    found = compare([one, two], n_bootstrap=200, seed=3)
    (comparison,) = found.comparisons
    assert (found.n, found.n_patients, found.split) == (N, 20, "test")
    metric = comparison.per_label["Mass"]["auroc"]
    assert metric.first == pytest.approx(metrics_one.per_label["Mass"].auroc)
    assert metric.run == pytest.approx(metrics_two.per_label["Mass"].auroc)
    assert metric.difference == pytest.approx(metric.run - metric.first)
    differences = []
    for counts in resample_patients(patients, n_bootstrap=200, seed=3).row_counts():
        rows = np.repeat(np.arange(N), counts)
        y = truth[rows, 0]
        scores = [roc_auc_score(y, p[rows, 0]) for p in (p_one, p_two)]
        differences.append(scores[1] - scores[0])
    assert metric.ci95 == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    share = min(np.sum(np.array(differences) <= 0), np.sum(np.array(differences) >= 0))
    assert metric.p == pytest.approx(min(1, 2 * (share + 1) / 201))
    assert comparison.macro["f1"].run == pytest.approx(metrics_two.macro.f1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_p_values_of_several_runs_are_corrected_together(write):
    runs = [write(str(seed), seed=seed, gain=seed)[0] for seed in range(1, 4)]
    two, three = (c.macro["auroc"] for c in compare(runs, n_bootstrap=100).comparisons)
    assert [two.p_holm, three.p_holm] == pytest.approx(holm([two.p, three.p]))


def test_the_order_of_rows_does_not_matter(write, tmp_path):
    one = write("one", seed=1)[0]
    two = write("two", seed=2)[0]
    expected = compare([one, two], n_bootstrap=20)
    lines = (two / "predictions.csv").read_text().splitlines()
    (two / "predictions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert compare([one, two], n_bootstrap=20) == expected


def test_runs_of_other_images_labels_patients_or_truth_are_refused(write):
    one, truth, _, patients, _ = write("one")
    ids = np.array([f"x{row:03d}.png" for row in range(N)])
    others = {
        "scored 60 test and 60 test images": {"ids": ids},
        "their labels are Mass, Nodule and Mass, Edema": {"labels": ("Mass", "Nodule")},
        "other labels": {"truth": np.where(truth == 1, 0, 1).astype(np.int8)},
        "other patients": {"patients": np.roll(patients, 1)},
    }
    for number, (words, change) in enumerate(others.items()):
        with pytest.raises(UsageError, match=words):
            compare([one, write(str(number), **change)[0]], n_bootstrap=5)
    with pytest.raises(UsageError, match="at least two runs"):
        compare([one])
    with pytest.raises(UsageError, match="`n_bootstrap` 0"):
        compare([one, one], n_bootstrap=0)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "config.json"])
@pytest.mark.parametrize("content", [None, "{", "a,b\n1,2\n"])
def test_a_missing_or_damaged_file_is_named_in_the_error(write, name, content):
    run = write("one")[0]
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    with pytest.raises(RunError, match=name):
        compare([run, run], n_bootstrap=5)


def test_runs_and_run_folders_give_the_same_comparison(write):
    one, two = write("one", seed=1)[0], write("two", seed=2)[0]
    by_path = compare([one, str(two)], n_bootstrap=20)
    assert compare([load_run(one), load_run(two)], n_bootstrap=20) == by_path


def test_a_comparison_is_a_table_of_runs_labels_and_metrics(write):
    one, two = write("one", seed=1)[0], write("two", seed=2)[0]
    comparison = compare([one, two], n_bootstrap=20)
    table = comparison.to_pandas().set_index(["of", "metric"])
    expected = comparison.comparisons[0].per_label["Edema"]["f1"]
    assert table.loc[("Edema", "f1"), "difference"] == expected.difference
    assert table.loc[("Edema", "f1"), "ci95_low"] == expected.ci95[0]
    assert "macro AUROC" in repr(comparison)
    assert "<table" in comparison._repr_html_()
