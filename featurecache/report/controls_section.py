"""Section "Controls": each run beside predictors that cannot tell one finding from another."""

from collections.abc import Sequence
from typing import Any

from featurecache.metrics.metrics import Metrics, PairedGain
from featurecache.report import plots
from featurecache.report.controls_table import controls_table, with_controls
from featurecache.report.load_runs import ScoredRun
from featurecache.report.plot_registry import PlotRegistry
from featurecache.report.plot_style import display_name
from featurecache.report.plots import Estimate
from featurecache.report.table import format_difference
from featurecache.wording import count_noun


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
                "table": controls_table(run.name, run.metrics),
                "plot": registry.add(f"controls-{run.name}", title, figure),
                "gains": [
                    line
                    for line in (any_finding_gain(run.metrics), text_gain(run.metrics))
                    if line is not None
                ],
            }
        )
    return sections


def _estimates(run: ScoredRun) -> list[Estimate]:
    seeds = run.metrics.seeds
    suffix = "" if seeds is None else f", seed {seeds.seeds[0]}"  # the first, but shorter
    return [
        Estimate(name, s.macro.auroc, s.macro.auroc_ci, is_control=True)
        if s is not run.metrics
        else Estimate(display_name(run.name, suffix=suffix), s.macro.auroc, s.macro.auroc_ci)
        for name, s in with_controls(run.name, run.metrics).items()
        if s.macro.auroc is not None
    ]


def any_finding_gain(metrics: Metrics) -> str | None:
    """Return a sentence on the gain over "any finding"; None where it was not measured."""
    control = metrics.controls.get("any_finding")
    if control is None or control.gain is None:
        return None
    return f"Gain over one score of any finding {_gain(control.gain)}"


def text_gain(metrics: Metrics) -> str | None:
    """Return a sentence on what a head gains from its texts; None where it was not measured."""
    if metrics.text_gain is None:
        return None
    return f"Gain from its own texts over permuted texts {_gain(metrics.text_gain)}"


def _gain(gain: PairedGain) -> str:
    auroc = gain.macro.auroc
    over = "" if gain.pairs == 1 else f", mean over {gain.pairs} seeds"
    return (
        f"(paired{over}): macro AUROC over {count_noun(len(gain.labels), 'label')} "
        f"{format_difference(auroc.difference, auroc.ci95)}."
    )
