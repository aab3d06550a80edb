"""How much heads get out of frozen CLIP features: sizes, balance, seeds, text ablations.

    python pipelines/squeeze_features.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folder nih. docs/studies/squeeze_features.md describes the study and its results.
"""

from collections.abc import Sequence

from page import table
from study import CONTROLS, Study, control_cells, macro_cells, open_study, publish, run_script

import featurecache as fc
from featurecache.evaluation.comparison import MetricComparison
from featurecache.heads.registry import HEADS as REGISTERED_HEADS
from featurecache.report.table import format_difference, format_interval
from featurecache.wording import UNDEFINED

HEADS = ("baseline", "concat", "weighted_sum")
TEXT_HEADS = HEADS[1:]
TEXT_ABLATIONS = ("none", "permuted", "random", "zero")
SIZES = (50, 100, 200, 400)
QUICK_SIZES = (60,)
MACRO = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
SUPPORTED = "macro over the labels with enough patients"
OVER_SEEDS = {"auroc": "AUROC", "precision": "precision", "recall": "recall", "f1": "F1"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("squeeze_features", __doc__, arguments)
    cache = study.extract(study.load("nih", split="patient"), prompts=("signs",))
    publish(
        study,
        [
            *all_images(study, cache),
            text_ablations(study, cache),
            every_head(study, cache),
            training_sizes(study, cache),
        ],
    )


def all_images(study: Study, cache: fc.Cache) -> list[str]:
    """Train three heads on all training images, and compare them with each other and controls."""
    runs = {head: full_run(study, cache, head) for head in HEADS}
    metrics = {f"`{head}`": run.metrics for head, run in runs.items()}
    micro = ["micro precision", "micro recall", "micro F1", "exact match", "Hamming loss"]
    first, *others = HEADS
    differences = []
    for head in others:
        macro = study.compare(runs[first], runs[head]).averages
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
            f"Difference from `{first}`, of the same patients, {SUPPORTED}",
            ["", *MACRO.values()],
            differences,
        ),
        table(
            "Controls: AUROC without any finding to learn from",
            ["", *CONTROLS.values()],
            [[head, *control_cells(m)] for head, m in metrics.items()],
        ),
    ]


def full_run(study: Study, cache: fc.Cache, head: str) -> fc.Run:
    """Train one of the three heads on all training images, over seeds and with controls."""
    return study.train_head(f"{head}-all", cache, head, seeds=study.seeds, controls=True)


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


def text_ablations(study: Study, cache: fc.Cache) -> str:
    """Train heads with real text, and with text that cannot carry meaning, over seeds."""
    baseline = full_run(study, cache, HEADS[0])
    rows = [[f"`{HEADS[0]}`, no text", *seed_cells(baseline.metrics)]]
    for head in TEXT_HEADS:
        for ablation in TEXT_ABLATIONS:
            if ablation == "none":
                run = full_run(study, cache, head)
            else:
                run = study.train_head(
                    f"{head}-{ablation}", cache, head, seeds=study.seeds, text_ablation=ablation
                )
            text = "real" if ablation == "none" else ablation
            rows.append([f"`{head}`, {text} text", *seed_cells(run.metrics)])
    title = f"Text ablations: mean and standard deviation over {study.seeds} seeds"
    return table(title, ["", *OVER_SEEDS.values()], rows)


def every_head(study: Study, cache: fc.Cache) -> str:
    """Train all heads that suit the encoder, and compare them with the first."""
    baseline = full_run(study, cache, HEADS[0])
    rows = []
    for head, spec in REGISTERED_HEADS.items():
        if spec.takes_tokens or (spec.text == "aligned" and not study.encoder.aligned):
            continue
        run = study.train_head(f"{head}-all", cache, head, controls=True)
        difference = UNDEFINED
        if head != HEADS[0]:
            difference = difference_cell(study.compare(baseline, run).headline)
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
    columns = ["", "AUROC", "AUPRC", "AUROC*", f"AUROC* minus `{HEADS[0]}`"]
    return table(title, [*columns, "AUROC*, own texts minus permuted texts"], rows)


def training_sizes(study: Study, cache: fc.Cache) -> str:
    """Train heads on balanced subsets of increasing size, over seeds."""
    heads = [(head, "none") for head in HEADS] + [(head, "permuted") for head in TEXT_HEADS]
    rows = []
    for size in QUICK_SIZES if study.quick else SIZES:
        for head, ablation in heads:
            run = study.train_head(
                f"{head}-{ablation}-{size}",
                cache,
                head,
                seeds=study.seeds,
                resample="undersample",
                train_size=size,
                text_ablation=ablation,
            )
            name = f"`{head}`" if ablation == "none" else f"`{head}`, {ablation} text"
            rows.append([str(size), name, *seed_cells(run.metrics)])
    title = f"Balanced subsets: mean and standard deviation over {study.seeds} seeds"
    return table(title, ["images", "", *OVER_SEEDS.values()], rows)


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
