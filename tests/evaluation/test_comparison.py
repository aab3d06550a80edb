"""Paired comparisons, against patients left out by hand, and runs that cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_errors import any_holm, simulate
from scipy import stats
from sklearn.metrics import roc_auc_score

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.comparison import compare, compare_scored, join_images
from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.holm import holm
from featurecache.metrics.metrics import SeedSpread
from featurecache.report.results_section import differences_table
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run, load_run
from featurecache.units import Units

N, LABELS = 60, ("Mass", "Edema")


@pytest.fixture
def write(tmp_path):
    rng = np.random.default_rng(8)
    truth = (rng.random((N, 2)) < 0.4).astype(np.int8)
    truth[3, 1] = -1
    patients = np.array([f"p{row // 3}" for row in range(N)])
    ids = np.array([f"{row:03d}.png" for row in range(N)])

    def write(
        name, *, seed=0, gain=1.0, ids=ids, truth=truth, labels=LABELS, patients=patients, file="a"
    ):
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
                ids,
                patients,
                np.full(len(ids), ""),
                np.full(len(ids), "test"),
                np.array([f"{file}{row}" for row in range(len(ids))]),
                labels,
                truth,
                probability,
            ),
            default_name=name,
        )
        return run.save(tmp_path / name), truth, probability, patients, metrics

    return write


def test_a_run_does_not_differ_from_itself(write):
    run = write("one")[0]
    (found,) = compare([run, run]).comparisons
    for metrics in (found.macro, found.micro, *found.per_label.values()):
        for metric in metrics.values():
            assert metric.difference == 0
            assert (metric.ci95, metric.p, metric.p_holm) == (None, None, None)
            assert "does not vary between patients" in metric.no_interval


def test_differences_and_intervals_agree_with_patients_left_out_by_hand(write):
    one, truth, p_one, patients, metrics_one = write("one", seed=1, gain=0.5)
    two, _, p_two, _, metrics_two = write("two", seed=2, gain=2.0)
    found = compare([one, two])
    (comparison,) = found.comparisons
    assert (found.n, found.n_patients, found.split) == (N, 20, "test")
    metric = comparison.per_label["Mass"]["auroc"]
    assert metric.first == pytest.approx(metrics_one.per_label["Mass"].auroc)
    assert metric.run == pytest.approx(metrics_two.per_label["Mass"].auroc)
    assert metric.difference == pytest.approx(metric.run - metric.first)
    y = truth[:, 0]
    left_out = np.array(
        [
            roc_auc_score(y[rows], p_two[rows, 0]) - roc_auc_score(y[rows], p_one[rows, 0])
            for rows in (patients != patient for patient in np.unique(patients))
        ]
    )
    error = np.sqrt(19 / 20 * np.sum((left_out - metric.difference) ** 2))
    images = [np.bincount(np.arange(N) // 3, y == value) for value in (0, 1)]
    weights = sum((of_patient / of_patient.sum()) ** 2 for of_patient in images)
    dof = weights.sum() ** 2 / np.sum(weights**2) - 1
    t = stats.t(dof)
    assert metric.p == pytest.approx(2 * t.sf(metric.difference / error))
    half = t.ppf(0.975) * error
    assert metric.ci95 == pytest.approx((metric.difference - half, metric.difference + half))
    assert comparison.macro["f1"].run == pytest.approx(metrics_two.macro.f1)
    assert comparison.per_label["Mass"]["f1"].p is None


def test_an_interval_excludes_zero_where_p_is_below_0_05(write):
    runs = [write(str(seed), seed=seed, gain=seed / 4)[0] for seed in range(8)]
    metrics = [c.per_label[label]["auroc"] for c in compare(runs).comparisons for label in LABELS]
    significant = [metric.p < 0.05 for metric in metrics]
    assert significant == [not metric.ci95[0] <= 0 <= metric.ci95[1] for metric in metrics]
    assert 0 < sum(significant) < len(metrics)


def test_only_the_ranking_of_each_run_counts(write, tmp_path):
    one, two = (load_run(write(name, seed=seed)[0]) for name, seed in (("one", 1), ("two", 2)))
    expected = compare([one, two]).comparisons[0].macro["auroc"]
    cubed = replace(two, scored=replace(two.scored, probability=two.scored.probability**3))
    assert compare([one, cubed]).comparisons[0].macro["auroc"] == expected


def test_a_label_of_one_positive_patient_has_a_difference_but_no_interval(write):
    truth = (np.random.default_rng(0).random((N, 2)) < 0.4).astype(np.int8)
    truth[:, 1] = 0
    truth[7, 1] = 1
    runs = [write(str(seed), seed=seed, truth=truth) for seed in (1, 2)]
    found = compare([folder for folder, *_ in runs])
    (comparison,) = found.comparisons
    rare = comparison.per_label["Edema"]["auroc"]
    areas = [roc_auc_score(truth[:, 1], probability[:, 1]) for _, _, probability, *_ in runs]
    assert rare.difference == pytest.approx(areas[1] - areas[0])
    assert (rare.ci95, rare.p, rare.p_holm) == (None, None, None)
    assert rare.no_interval == ("only 1 patient has a positive image, and at least 5 are needed")
    assert found.labels["Edema"].n_positive_patients == 1
    assert (found.macro_labels, found.supported_labels) == (["Mass", "Edema"], ["Mass"])
    # The mean over both labels is the runs' own, but has no interval; the supported one has.
    macro = comparison.macro["auroc"]
    assert macro.first == pytest.approx(runs[0][-1].macro.auroc)
    assert (macro.ci95, macro.no_interval) == (None, "too few patients in 1 of its 2 labels")
    assert comparison.headline == comparison.supported["auroc"]
    assert comparison.headline.ci95 == comparison.per_label["Mass"]["auroc"].ci95
    # One supported label: a single test, nothing to correct for.
    assert found.n_tests == {"supported": 1, "per_label": 1}
    assert comparison.headline.p_holm == comparison.headline.p


def test_an_interval_says_something_where_one_patient_has_most_images(write):
    """With as few degrees of freedom as effective patients it would be [-1, 1]."""
    patients = np.array(["p0"] * 20 + [f"p{row}" for row in range(20, N)])
    truth = np.zeros((N, 2), dtype=np.int8)
    truth[:29, 0] = 1  # twenty images of the first patient, one of each of nine others
    truth[20:30, 1] = 1
    runs = [
        write(str(seed), seed=seed, truth=truth, patients=patients, gain=seed)[0] for seed in (1, 2)
    ]
    found = compare(runs)
    uneven = found.comparisons[0].per_label["Mass"]["auroc"]
    assert found.labels["Mass"].n_positive_patients == 10
    low, high = uneven.ci95
    assert -1 < low < uneven.difference < high < 1
    # Student's t with four degrees of freedom: as of five patients, the fewest that are tested.
    error = (high - low) / 2 / stats.t(4).ppf(0.975)
    assert uneven.p == pytest.approx(2 * stats.t(4).sf(abs(uneven.difference) / error))


def test_without_any_supported_label_nothing_is_tested(write):
    truth = np.zeros((N, 2), dtype=np.int8)
    truth[[0, 3], [0, 1]] = 1
    found = compare([write(str(seed), seed=seed, truth=truth)[0] for seed in (1, 2)])
    assert found.comparisons[0].supported is None
    assert found.n_tests == {"supported": 0, "per_label": 0}
    assert found.correction == ""
    assert "Holm" not in differences_table(found).caption
    assert "no interval: too few patients in 2 of its 2 labels" in repr(found)
    assert "<table" in found._repr_html_()


def test_runs_of_equal_truth_rarely_differ():
    """Family-wise error over labels of few and many positives, and of three comparisons."""
    generator = np.random.default_rng(5)
    n_positive = np.array([1, 2, 4, 5, 6, 8, 12, 20, 40])
    n_wrong, covered = 0, []
    for _ in range(40):
        runs = simulate(generator, [0.8] * 4, n_positive=n_positive, n_patients=150)
        found = compare_scored(runs)
        labels = [label["auroc"] for run in found.comparisons for label in run.per_label.values()]
        # Six labels have five positive patients or more.
        assert sum(label.p is not None for label in labels) == 3 * 6
        n_wrong += any_holm(found.comparisons)
        covered += [label.ci95[0] <= 0 <= label.ci95[1] for label in labels if label.ci95]
    assert n_wrong <= 2
    assert np.mean(covered) >= 0.94


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_p_values_are_corrected_over_runs_and_labels(write):
    runs = [write(str(seed), seed=seed, gain=seed)[0] for seed in range(1, 4)]
    found = compare(runs)
    macro = [run.supported["auroc"] for run in found.comparisons]
    labels = [label["auroc"] for run in found.comparisons for label in run.per_label.values()]
    assert found.n_tests == {"supported": 2, "per_label": 4}
    for family in (macro, labels):
        expected = np.minimum(1, 2 * np.array(holm([metric.p for metric in family])))
        assert [metric.p_holm for metric in family] == pytest.approx(expected)
    assert [run.macro["auroc"] for run in found.comparisons] == macro
    assert (
        "number of tests: 2 of macro AUROC and, separately, 4 of single labels"
        in found._repr_html_()
    )


def test_the_order_of_rows_does_not_matter(write, tmp_path):
    one = write("one", seed=1)[0]
    two = write("two", seed=2)[0]
    expected = compare([one, two])
    lines = (two / "predictions.csv").read_text().splitlines()
    (two / "predictions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert compare([one, two]) == expected


def test_runs_of_other_images_labels_patients_or_truth_are_refused(write):
    one, truth, _, patients, _ = write("one")
    ids = np.array([f"x{row:03d}.png" for row in range(N)])
    others = {
        "scored 60 test and 60 test images": {"ids": ids},
        "their labels are Mass, Nodule and Mass, Edema": {"labels": ("Mass", "Nodule")},
        "other labels": {"truth": np.where(truth == 1, 0, 1).astype(np.int8)},
        "other patients": {"patients": np.roll(patients, 1)},
        "other files": {"file": "b"},
    }
    for number, (words, change) in enumerate(others.items()):
        with pytest.raises(UsageError, match=words):
            compare([one, write(str(number), **change)[0]])
    with pytest.raises(UsageError, match="at least two runs"):
        compare([one])


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "config.json"])
@pytest.mark.parametrize("content", [None, "{", "a,b\n1,2\n"])
def test_a_missing_or_damaged_file_is_named_in_the_error(write, name, content):
    run = write("one")[0]
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    with pytest.raises(RunError, match=name):
        compare([run, run])


def test_runs_and_run_folders_give_the_same_comparison(write):
    one, two = write("one", seed=1)[0], write("two", seed=2)[0]
    by_path = compare([one, str(two)])
    assert compare([load_run(one), load_run(two)]) == by_path


def test_of_several_seeds_the_first_is_compared_and_named(write):
    one, two = (load_run(write(name, seed=seed)[0]) for name, seed in (("one", 1), ("two", 2)))
    undefined = {"mean": None, "sd": None}
    seeds = {
        "seeds": [3, 4],
        "learned": [*LABELS],
        "macro": {},
        "micro": {},
        "exact_match": undefined,
    }
    spread = SeedSpread.model_validate({**seeds, "hamming_loss": undefined})
    several = replace(two, metrics=two.metrics.replace(seeds=spread))
    plain, comparison = compare([one, two]), compare([one, several])
    (found,) = comparison.comparisons
    assert found.macro == plain.comparisons[0].macro
    assert (comparison.first_seed, found.seed) == (None, "seed 3 (first of 2)")
    assert f"{two.path}, seed 3 (first of 2) {found.headline.difference:+.3f}" in repr(comparison)
    assert set(comparison.to_pandas()["seed"]) == {found.seed}
    assert differences_table(comparison).rows[0][0] == f"{two.path}, seed 3 (first of 2)"
    swapped = compare([several, one])
    assert f"minus that of {two.path}, seed 3 (first of 2):" in repr(swapped)
    assert "first of" not in repr(plain)


def test_a_comparison_is_a_table_of_runs_labels_and_metrics(write):
    one, two = write("one", seed=1)[0], write("two", seed=2)[0]
    comparison = compare([one, two])
    table = comparison.to_pandas().set_index(["of", "metric"])
    expected = comparison.comparisons[0].per_label["Edema"]["f1"]
    assert table.loc[("Edema", "f1"), "difference"] == expected.difference
    assert table.loc[("Edema", "f1"), "ci95_low"] == expected.ci95[0]
    assert "macro AUROC" in repr(comparison)
    assert "<table" in comparison._repr_html_()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [1, 0, -1]),
        ({"uncertain": "positive"}, [1, 0, -1]),
        ({"uncertain": "ignore"}, [1, -1, -1]),
    ],
)
def test_blank_cells_are_weaker_than_negative_ones_of_the_same_study(write, policy, expected):
    truth = np.array([[1, 1], [-1, 1], [0, 1], [-1, 0], [-1, 0], [-1, 0]], dtype=np.int8)
    ids, studies = (
        np.array([f"{c}{row // n}" for row in range(6)]) for c, n in (("i", 1), ("s", 2))
    )
    path, *_ = write("images", ids=ids, truth=truth, patients=studies)
    run = load_run(path)
    run = replace(run, config={"label_policy": policy}, scored=replace(run.scored, studies=studies))
    joined = join_images(run, Units(level="study"))
    assert joined.scored.truth[:, 0].tolist() == expected
