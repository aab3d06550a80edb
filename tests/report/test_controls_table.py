"""Table of a run beside its controls."""

from types import SimpleNamespace

import numpy as np
import pytest

from featurecache.evaluation.evaluate import evaluate
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.metrics import SeedSpread
from featurecache.report.controls_section import _estimates
from featurecache.report.controls_table import controls_table
from featurecache.report.results_section import decisions_table, headline_table


@pytest.fixture
def metrics():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 3)) < [0.3, 0.2, 0.02]).astype(np.int8)
    data = SplitData(
        truth=truth,
        label_names=("Mass", "Edema", "Hernia"),
        patient=np.array([f"p{row // 3}" for row in range(300)]),
        view=np.full(300, ""),
        train=np.arange(150),
        val=np.empty(0, dtype=np.intp),
        test=np.arange(150, 300),
        learned=np.ones(3, dtype=bool),
    )
    p = np.clip(0.3 * truth + 0.7 * rng.random(truth.shape), 0, 1)
    any_finding = np.tile(p.mean(axis=1, keepdims=True), (1, 3))
    return evaluate(data, p, any_finding=any_finding, n_bootstrap=20)


def test_the_run_is_beside_every_control_that_could_be_made(metrics):
    table = controls_table("linear", metrics)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == [
        "linear",
        "any finding (one score)",
        "prevalence of each label",
        "every image normal",
    ]
    control = metrics.controls["any_finding"]
    assert rows["any finding (one score)"]["macro AUROC, 2 labels with enough patients"].startswith(
        f"{control.supported.macro.auroc:.3f} ["
    )
    assert rows["linear"]["within abnormal images"].startswith(
        f"{metrics.within_abnormal.macro.auroc:.3f} ["
    )
    normal = metrics.controls["always_negative"]
    assert rows["every image normal"]["Hamming loss"] == f"{normal.hamming_loss:.3f}"
    assert rows["every image normal"]["macro AUROC, 3 labels"] == "–"
    assert rows["linear"]["exact match"] == f"{metrics.exact_match:.3f}"


def test_of_several_seeds_the_first_is_beside_the_controls(metrics):
    seeds = SeedSpread.model_validate(
        {
            "seeds": [5, 6],
            "learned": list(metrics.per_label),
            "macro": {},
            "micro": {},
            "exact_match": {"mean": None, "sd": None},
            "hamming_loss": {"mean": None, "sd": None},
        }
    )
    metrics = metrics.replace(seeds=seeds)
    first = "this run, seed 5 (first of 2)"
    assert controls_table("this run", metrics).rows[0][0] == first
    run = SimpleNamespace(name="this run", metrics=metrics)
    assert decisions_table([run]).rows[0][0] == first
    assert _estimates(run)[0].name == "this run, seed 5"
    long = SimpleNamespace(name="phantom-tiny-weighted_sum-of-today", metrics=metrics)
    assert _estimates(long)[0].name.endswith("-of-today, seed 5")  # names lose their middle


def test_results_have_the_mean_over_labels_with_enough_patients_beside_macro(metrics):
    run = SimpleNamespace(name="linear", model="tiny", dataset="phantom", metrics=metrics)
    table = headline_table([run])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    supported = metrics.supported.macro
    assert metrics.supported_labels == ["Mass", "Edema"]
    assert row["macro AUROC, labels with enough patients"] == (
        f"{supported.auroc:.3f} [{supported.auroc_ci[0]:.3f}, {supported.auroc_ci[1]:.3f}]"
    )
    assert row["macro AUROC"].startswith(f"{metrics.macro.auroc:.3f} [")
    assert row["macro AUPRC"].startswith(f"{metrics.macro.auprc:.3f} [")


def test_columns_without_any_score_are_left_out(metrics):
    table = controls_table("linear", metrics.replace(within_abnormal=None, controls={}))
    assert "within abnormal images" not in table.columns
    assert len(table.rows) == 1
