"""How much heads get out of frozen CLIP features: sizes, balance, seeds, text ablations.

    python pipelines/squeeze_features.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folder nih. squeeze_features.toml lists the runs, and
docs/studies/squeeze_features.md describes the study and its results.
"""

from collections.abc import Mapping, Sequence

from page import table
from study import (
    CONTROLS,
    compare,
    control_cells,
    macro_cells,
    open_study,
    publish,
    run_script,
)

import featurecache as fc
from featurecache.evaluation.comparison import MetricComparison
from featurecache.report.table import format_difference, format_interval
from featurecache.study.run import StudyResult
from featurecache.wording import UNDEFINED

FIRST = "baseline"
"""The head that all others are compared with."""
MACRO = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
SUPPORTED = "macro over the labels with enough patients"
OVER_SEEDS = {"auroc": "AUROC", "precision": "precision", "recall": "recall", "f1": "F1"}

Heads = Mapping[str, fc.Run]
"""Heads that were trained on all training images with their own texts, by name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("squeeze_features", __doc__, arguments)
    result = study.run()
    every: Heads = {
        one.method: run
        for one, run in result.runs.items()
        if not {"train_size", "text_ablation"} & set(one.arguments)
    }
    repeated: Heads = {head: run for head, run in every.items() if run.metrics.seeds is not None}
    publish(
        study,
        [
            *all_images(repeated),
            text_ablations(result, repeated),
            every_head(every),
            training_sizes(result),
        ],
    )


def all_images(runs: Heads) -> list[str]:
    """Compare the heads that were trained over seeds with each other and with controls."""
    metrics = {f"`{head}`": run.metrics for head, run in runs.items()}
    micro = ["micro precision", "micro recall", "micro F1", "exact match", "Hamming loss"]
    differences = []
    for head, run in runs.items():
        if head != FIRST:
            macro = compare(runs[FIRST], run).averages
            differences.append([f"`{head}`", *(difference_cell(macro[name]) for name in MACRO)])
    return [
        table(
            "All training images, seed 0, macro over the findings",
            ["", *MACRO.values()],
            [[head, *macro_cells(m, list(MACRO))] for head, m in metrics.items()],
        ),
        table(
            "The same heads, micro over the findings",
            ["", *micro],
            [[head, *micro_cells(m)] for head, m in metrics.items()],
        ),
        table(
            f"Difference from `{FIRST}`, of the same patients, {SUPPORTED}",
            ["", *MACRO.values()],
            differences,
        ),
        table(
            "Controls: AUROC without any finding to learn from",
            ["", *CONTROLS.values()],
            [[head, *control_cells(m)] for head, m in metrics.items()],
        ),
    ]


def micro_cells(metrics: fc.Metrics) -> list[str]:
    """Format micro precision, recall and F1, exact match and Hamming loss."""
    micro, intervals = metrics.micro, metrics.ci95
    return [
        *(
            format_interval(getattr(micro, name), getattr(intervals.micro, name))
            for name in ("precision", "recall", "f1")
        ),
        format_interval(metrics.exact_match, intervals.exact_match),
        format_interval(metrics.hamming_loss, intervals.hamming_loss),
    ]


def text_ablations(result: StudyResult, heads: Heads) -> str:
    """Compare heads with real text, and with text that cannot carry meaning, over seeds."""
    rows = []
    for head, run in heads.items():
        text = "no text" if head == FIRST else "real text"
        rows.append([f"`{head}`, {text}", *seed_cells(run.metrics)])
        rows += [
            [f"`{head}`, {one.arguments['text_ablation']} text", *seed_cells(ablated.metrics)]
            for one, ablated in result.runs.items()
            if one.method == head
            and "text_ablation" in one.arguments
            and "train_size" not in one.arguments
        ]
    title = f"Text ablations: mean and standard deviation over {n_seeds(heads[FIRST])} seeds"
    return table(title, ["", *OVER_SEEDS.values()], rows)


def every_head(heads: Heads) -> str:
    """Compare all heads that suit the encoder with the first."""
    rows = []
    for head, run in heads.items():
        difference = UNDEFINED
        if head != FIRST:
            difference = difference_cell(compare(heads[FIRST], run).headline)
        gain = run.metrics.text_gain
        auroc_gain = gain and format_difference(gain.macro.auroc.difference, gain.macro.auroc.ci95)
        supported = run.metrics.supported
        auroc = supported and format_interval(supported.macro.auroc, supported.macro.auroc_ci)
        scores = [*macro_cells(run.metrics, ("auroc", "auprc")), auroc or UNDEFINED]
        rows.append([f"`{head}`", *scores, difference, auroc_gain or UNDEFINED])
    title = (
        "Every head on all training images, seed 0: macro over the findings, and (*) over the "
        "labels with enough patients"
    )
    columns = ["", "AUROC", "AUPRC", "AUROC*", f"AUROC* minus `{FIRST}`"]
    return table(title, [*columns, "AUROC*, own texts minus permuted texts"], rows)


def training_sizes(result: StudyResult) -> str:
    """Compare heads trained on balanced subsets of increasing size, over seeds."""
    runs = {one: run for one, run in result.runs.items() if "train_size" in one.arguments}
    rows = []
    for one in sorted(runs, key=lambda one: int(one.arguments["train_size"])):
        ablation = one.arguments.get("text_ablation")
        name = f"`{one.method}`" if ablation is None else f"`{one.method}`, {ablation} text"
        rows.append([str(one.arguments["train_size"]), name, *seed_cells(runs[one].metrics)])
    seeds = n_seeds(next(iter(runs.values())))
    title = f"Balanced subsets: mean and standard deviation over {seeds} seeds"
    return table(title, ["images", "", *OVER_SEEDS.values()], rows)


def n_seeds(run: fc.Run) -> int:
    """Return the number of seeds that a head was trained with."""
    return run.metrics.headline.n_seeds


def seed_cells(metrics: fc.Metrics) -> list[str]:
    """Format macro metrics as mean and standard deviation over seeds."""
    assert metrics.seeds is not None
    spreads = [metrics.seeds.macro[name] for name in OVER_SEEDS]
    return [
        UNDEFINED if s.mean is None or s.sd is None else f"{s.mean:.3f} ± {s.sd:.3f}"
        for s in spreads
    ]


def difference_cell(metric: MetricComparison) -> str:
    """Format a paired difference with its interval."""
    return format_difference(metric.difference, metric.ci95)


if __name__ == "__main__":
    run_script(main)
