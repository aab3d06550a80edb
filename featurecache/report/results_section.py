"""Section "Results": all runs side by side, and their paired differences."""

from collections.abc import Sequence
from typing import Any

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import (
    Comparison,
    compare_scored,
    format_p,
    require_same_images,
)
from featurecache.metrics.metrics import Calibration, Metrics
from featurecache.report import plots
from featurecache.report.load_runs import ScoredRun
from featurecache.report.operating_tables import operating_tables, subgroup_tables
from featurecache.report.plot_registry import PlotRegistry
from featurecache.report.plots import Estimate
from featurecache.report.table import Table, format_difference, format_interval, format_score
from featurecache.wording import UNDEFINED, count_noun, pluralize


def results_section(scored: Sequence[ScoredRun], registry: PlotRegistry) -> dict[str, Any] | None:
    """Return the contents of the section; None without runs that scored images.

    Args:
        scored: the runs; further ones are compared with the first.
        registry: takes the plot.
    """
    if not scored:
        return None
    section: dict[str, Any] = {
        "headline": headline_table(scored),
        "tiles": _tiles(scored[0].metrics) if len(scored) == 1 else (),
        "seeds": [(run.name, line) for run in scored if (line := seed_spread(run.metrics))],
        "plot": None,
        "differences": None,
        "not_comparable": [],
        "decisions": decisions_table(scored),
        "retuned": [
            (run.name, reason)
            for run in scored
            if run.metrics.retuned and (reason := run.metrics.retuned.reason)
        ],
        "subgroups": [t for run in scored for t in subgroup_tables(run.name, run.metrics)],
        "operating": [table for run in scored for table in operating_tables(run.name, run.metrics)],
        "classes": class_tables(scored),
    }
    if len(scored) > 1:
        estimates = [
            Estimate(run.name, macro.auroc, macro.auroc_ci)
            for run in scored
            for macro in [run.metrics.headline.macro]
        ]
        section["plot"] = registry.add(
            "runs",
            "Macro AUROC of each run with its 95 % interval",
            plots.forest_plot(estimates, x_label="macro AUROC", reference=0.5),
        )
        section |= _comparison(scored)
    return section


def _comparison(scored: Sequence[ScoredRun]) -> dict[str, Any]:
    """Compare the first run with those that scored the same images."""
    comparable, reasons = [scored[0]], []
    for run in scored[1:]:
        try:
            require_same_images(scored[0].scored, run.scored)
        except UsageError as error:
            reasons.append(str(error))
        else:
            comparable.append(run)
    differences = None
    if len(comparable) > 1:
        try:
            comparison = compare_scored([run.scored for run in comparable])
        except UsageError as error:
            reasons.append(str(error))
        else:
            differences = differences_table(comparison)
    return {"differences": differences, "not_comparable": reasons}


def _tiles(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return the headline metrics: name, value, and the line below it."""
    headline, tiles = metrics.headline, []
    macro, note = headline.macro, f", {headline.note}" if headline.note else ""
    for name, value, ci in (
        (f"macro AUROC{note}", macro.auroc, macro.auroc_ci),
        (f"macro AUPRC{note}", macro.auprc, macro.auprc_ci),
        (f"macro F1{note}", macro.f1, macro.f1_ci),
    ):
        tiles.append((name, format_score(value), f"{ci[0]:.3f} to {ci[1]:.3f}" if ci else ""))
    if metrics.calibration is not None:
        errors = metrics.calibration.macro
        scaled = _scaled(metrics.calibration)
        interval = errors.before.ci95.error
        bounds = f"{interval[0]:.3f} to {interval[1]:.3f}; " if interval else ""
        after = f"{bounds}{format_score(errors.after.error)} after Platt scaling of {scaled}"
        of_seed = f", {metrics.seed_note}" if metrics.seed_note else ""
        name = f"calibration error{of_seed}"
        tiles.append((name, format_score(errors.before.error), after))
    patients = f"of {count_noun(metrics.n_patients, 'patient')}"
    units = f"{metrics.split} {pluralize(metrics.level)}"
    return [*tiles, (units, f"{metrics.n:,}", patients)]


def headline_table(runs: Sequence[ScoredRun]) -> Table:
    """Return averages over labels, one row per run; encoder and data set only where they differ."""
    several_sources = len({(run.model, run.dataset) for run in runs}) > 1
    labels = [run.metrics.headline.labels for run in runs]
    some_rare = any(len(one["supported"]) < len(one["macro"]) for one in labels)
    columns = ["run", *(["encoder and data"] if several_sources else []), "images", "patients"]
    columns.append("macro AUROC")
    if some_rare:
        columns.append("macro AUROC, labels with enough patients")
    rows = []
    for run in runs:
        metrics, headline = run.metrics, run.metrics.headline
        macro, micro, supported = headline.macro, headline.micro, UNDEFINED
        if headline.supported is not None:
            supported = format_interval(headline.supported.auroc, headline.supported.auroc_ci)
        rows.append(
            [
                f"{run.name}, {headline.note}" if headline.note else run.name,
                *([f"{run.model} on {run.dataset}"] if several_sources else []),
                f"{metrics.n:,} {metrics.split}",
                f"{metrics.n_patients:,}",
                format_interval(macro.auroc, macro.auroc_ci),
                *([supported] if some_rare else []),
                format_interval(macro.auprc, macro.auprc_ci),
                format_interval(macro.f1, macro.f1_ci),
                format_interval(micro.auroc, micro.auroc_ci),
                format_interval(headline.exact_match, headline.exact_match_ci),
                format_interval(headline.hamming_loss, headline.hamming_loss_ci),
            ]
        )
    return Table(
        "performance",
        "Averages over labels, with 95 % intervals over patients, and over seeds where there are "
        "several",
        [*columns, "macro AUPRC", "macro F1", "micro AUROC", "exact match", "Hamming loss"],
        rows,
    )


def class_tables(runs: Sequence[ScoredRun]) -> list[Table]:
    """Return accuracies over exclusive classes, and a confusion matrix for each run that has one.

    Empty without exclusive classes.
    """
    having = [(run.name, classes) for run in runs if (classes := run.metrics.classes) is not None]
    if not having:
        return []
    accuracies = Table(
        "classes",
        "Exclusive classes: how often the label with the highest probability is the true one",
        ["run", "top-1 accuracy", "balanced accuracy"],
        [
            [
                name,
                format_interval(classes.accuracy, classes.ci95.accuracy),
                format_interval(classes.balanced_accuracy, classes.ci95.balanced_accuracy),
            ]
            for name, classes in having
        ],
    )
    confusions = [
        Table(
            f"confusion-{name}",
            f"{name}: images by true class (row) and predicted class (column)",
            ["", *classes.labels],
            [
                [label, *(f"{count:,}" for count in row)]
                for label, row in zip(classes.labels, classes.confusion, strict=True)
            ],
        )
        for name, classes in having
    ]
    return [accuracies, *confusions]


def decisions_table(runs: Sequence[ScoredRun]) -> Table:
    """Return calibration and metrics at a threshold of 0.5, one row per run.

    Of a run with several seeds these are the scores of the first, and the row says so.
    """
    rows = []
    for run in runs:
        metrics, at_half = run.metrics, run.metrics.at_half
        rows.append(
            [
                f"{run.name}, {metrics.seed_note}" if metrics.seed_note else run.name,
                *_calibration_errors(metrics),
                format_score(at_half.macro.f1),
                format_score(at_half.micro.f1),
                format_score(at_half.exact_match),
                format_score(at_half.hamming_loss),
            ]
        )
    at_half_columns = (
        f"{name} at\u00a00.5" for name in ("macro F1", "micro F1", "exact match", "Hamming loss")
    )
    return Table(
        "at-half",
        "Calibration, and metrics at a threshold of 0.5 instead of those chosen on validation",
        ["run", "calibration error", "after Platt scaling", *at_half_columns],
        rows,
    )


def _calibration_errors(metrics: Metrics) -> tuple[str, str]:
    """Return the macro calibration error before and after Platt scaling."""
    if metrics.calibration is None:
        return UNDEFINED, UNDEFINED
    before, after = metrics.calibration.macro.before, metrics.calibration.macro.after
    return (
        format_interval(before.error, before.ci95.error),
        f"{format_interval(after.error, after.ci95.error)} ({_scaled(metrics.calibration)})",
    )


def _scaled(calibration: Calibration) -> str:
    """Return how many labels have Platt scaling."""
    labels = calibration.per_label.values()
    return f"{sum(label.slope is not None for label in labels)} of {len(labels)} labels"


def differences_table(comparison: Comparison) -> Table:
    """Return the differences of each further run from the first."""
    corrected = f"; p (Holm): {comparison.correction}" if comparison.correction else ""
    rows = []
    for run in comparison.comparisons:
        macro, auroc = run.averages, run.headline
        rows.append(
            [
                run.title,
                format_difference(auroc.difference, auroc.ci95),
                format_p(auroc.p),
                format_p(auroc.p_holm),
                *(
                    format_difference(macro[name].difference, macro[name].ci95)
                    for name in ("auprc", "f1")
                ),
            ]
        )
    return Table(
        "differences",
        f"Difference from {comparison.first_title}, on the same "
        f"{count_noun(comparison.n, comparison.level)} of "
        f"{count_noun(comparison.n_patients, 'patient')}, "
        f"mean of {comparison.averaged_over}{corrected}",
        ["run", "macro AUROC", "p", "p (Holm)", "macro AUPRC", "macro F1"],
        rows,
    )


def seed_spread(metrics: Metrics) -> str | None:
    """Return a sentence on the spread of macro AUROC over seeds; None for a single seed."""
    if metrics.seeds is None:
        return None
    spread = metrics.seeds.macro["auroc"]
    if spread.mean is None or spread.sd is None:
        return None
    return (
        f"Macro AUROC over {len(metrics.seeds.seeds)} seeds: {spread.mean:.4f} ± {spread.sd:.4f} "
        "(standard deviation between seeds). Metrics that are not a mean of seeds are those of the "
        "first, which is saved."
    )
