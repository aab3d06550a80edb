"""Section "Controls": each run beside scores that have nothing to do with the findings."""

from collections.abc import Sequence
from typing import Any, Final

from featurecache.metrics.metrics import Metrics, RankingSummary
from featurecache.report import plots
from featurecache.report.load_runs import ScoredRun
from featurecache.report.plot_registry import PlotRegistry
from featurecache.report.plots import Estimate
from featurecache.report.table import UNDEFINED, Table, format_difference, format_interval

CONTROL_NAMES: Final = {
    "view_only": "view position alone",
    "shuffled_labels": "shuffled labels",
    "random_features": "random features",
    "permuted_texts": "permuted texts",
}


def controls_section(scored: Sequence[ScoredRun], registry: PlotRegistry) -> list[dict[str, Any]]:
    """Return a table, a plot and the text gain of each run that has controls."""
    sections = []
    for run in scored:
        if not any(run.metrics.controls.values()):
            continue
        figure = plots.forest_plot(_estimates(run), x_label="macro AUROC", reference=0.5)
        title = f"Macro AUROC of {run.name} and its controls"
        sections.append(
            {
                "table": controls_table(run),
                "plot": registry.add(f"controls-{run.name}", title, figure),
                "text_gain": text_gain(run.metrics),
            }
        )
    return sections


def controls_table(run: ScoredRun) -> Table:
    """Return the ranking metrics of a run and of its controls."""
    rows = []
    for name, scores in _with_controls(run).items():
        if scores is None:
            rows.append([name, *[UNDEFINED] * 3])
            continue
        macro, micro = scores.macro, scores.micro
        rows.append(
            [
                name,
                format_interval(macro.auroc, macro.auroc_ci),
                format_interval(macro.auprc, macro.auprc_ci),
                format_interval(micro.auroc, micro.auroc_ci),
            ]
        )
    columns = ["scores", "macro AUROC", "macro AUPRC", "micro AUROC"]
    return Table(f"{run.name} and its controls", columns, rows)


def _estimates(run: ScoredRun) -> list[Estimate]:
    return [
        Estimate(name, s.macro.auroc, s.macro.auroc_ci, is_control=s is not run.metrics)
        for name, s in _with_controls(run).items()
        if s is not None
    ]


def _with_controls(run: ScoredRun) -> dict[str, Metrics | RankingSummary | None]:
    controls = {
        CONTROL_NAMES.get(key, key.replace("_", " ")): scores
        for key, scores in run.metrics.controls.items()
    }
    return {run.name: run.metrics, **controls}


def text_gain(metrics: Metrics) -> str | None:
    """Return a sentence on what a head gains from its texts; None where it was not measured."""
    if metrics.text_gain is None:
        return None
    auroc = metrics.text_gain.macro.auroc
    pairs = metrics.text_gain.pairs
    over = "" if pairs == 1 else f", mean over {pairs} seeds"
    return (
        f"Gain from its own texts over permuted texts (paired{over}): macro AUROC "
        f"{format_difference(auroc.difference, auroc.ci95)}."
    )
