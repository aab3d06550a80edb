"""Section "Training": losses by epoch, selected settings, and learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurecache.metrics.metrics import CurvePoint
from featurecache.metrics.ranking import Floats
from featurecache.report import plots
from featurecache.report.load_runs import CurveRun, ScoredRun
from featurecache.report.plot_registry import PlotRegistry
from featurecache.report.plots import Estimate
from featurecache.report.table import Table, format_difference, format_interval
from featurecache.wording import count_noun


def training_histories(scored: Sequence[ScoredRun], registry: PlotRegistry) -> list[dict[str, Any]]:
    """Return losses by epoch, or selected settings, of runs with a history."""
    histories = []
    for run in scored:
        table, plot = selection_table(run), None
        if losses := _losses(run.history):
            best = run.config.get("best_epoch")
            figure = plots.loss_plot(losses, best_epoch=best if isinstance(best, int) else None)
            plot = registry.add(f"losses-{run.name}", f"Loss of {run.name} by epoch", figure)
        if plot or table:
            histories.append({"name": run.name, "plot": plot, "table": table})
    return histories


def _losses(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Floats, Floats]]:
    """Return epochs and losses by name, separately for each member of an ensemble."""
    losses: dict[str, tuple[list[float], list[float]]] = {}
    for line in history:
        if "epoch" not in line:
            return {}
        member = f"seed {line['seed']}: " if "seed" in line else ""
        member += f"{line['model']}: " if "model" in line else ""
        for column, name in (("train_loss", "training"), ("val_loss", "validation")):
            if column in line:
                epochs, values = losses.setdefault(member + name, ([], []))
                epochs.append(float(line["epoch"]))
                values.append(float(line[column]))
    return {name: (np.array(epochs), np.array(values)) for name, (epochs, values) in losses.items()}


def selection_table(run: ScoredRun) -> Table | None:
    """Return the settings that a head selected; None for a history of epochs."""
    if not run.history or not {"setting", "validation"} <= set(run.history[0]):
        return None
    names = run.scored.label_names

    def label_name(number: str) -> str:
        # The history refers to labels by number.
        return names[int(number)] if number.isdecimal() and int(number) < len(names) else "all"

    return Table(
        f"settings-{run.name}",
        f"{run.name}: selected settings, out of {count_noun(len(run.history), 'candidate')}",
        ["label", "setting", "score", "measure", "chosen by"],
        [
            [
                label_name(str(line.get("label", ""))),
                str(line["setting"]),
                f"{float(line['validation']):.4f}",
                str(line.get("measure", "")),
                str(line.get("chosen_by", "")),
            ]
            for line in run.history
            if str(line.get("chosen")) == "True"
        ],
    )


def learning_curves(curves: Sequence[CurveRun], registry: PlotRegistry) -> list[dict[str, Any]]:
    """Return the plots and the table of each learning curve."""
    sections = []
    for run in curves:
        sizes, cells = run.curve.sizes, run.curve.cells
        scores = {
            head: [Estimate(head, one.macro.auroc, one.macro.auroc_ci) for one in points]
            for head, points in cells.items()
        }
        curve_plots = [
            registry.add(
                f"curve-{run.name}",
                f"{run.name}: macro AUROC by number of training images",
                plots.learning_curve_plot(sizes, scores, y_label="macro AUROC"),
            )
        ]
        first, *others = cells
        if others:
            gains = {head: [_gain(head, point) for point in cells[head]] for head in others}
            figure = plots.learning_curve_plot(
                sizes, gains, y_label=f"gain over {first}", first_index=1
            )
            title = f"{run.name}: paired gain in macro AUROC over {first}"
            curve_plots.append(registry.add(f"gain-{run.name}", title, figure))
        sections.append({"name": run.name, "plots": curve_plots, "table": curve_table(run)})
    return sections


def _over(n_seeds: int) -> str:
    """Return what the values are means over, and their intervals."""
    if n_seeds > 1:
        return f"means over {n_seeds} seeds, 95 % intervals over patients and seeds"
    return "one seed, 95 % intervals over patients"


def _gain(head: str, point: CurvePoint) -> Estimate:
    return Estimate(head, point.auroc_gain.difference, point.auroc_gain.ci95)


def curve_table(run: CurveRun) -> Table:
    """Return a learning curve as a table, one row per head and size."""
    rows = []
    for head, points in run.curve.cells.items():
        for size, point in zip(run.curve.sizes, points, strict=True):
            gain = _gain(head, point)
            rows.append(
                [
                    head,
                    f"{size:,}",
                    str(point.labels),
                    format_interval(point.macro.auroc, point.macro.auroc_ci),
                    format_interval(point.macro.auprc, point.macro.auprc_ci),
                    format_difference(gain.value, gain.ci),
                ]
            )
    return Table(
        f"curve-{run.name}",
        f"{run.name}: {count_noun(run.curve.n, 'test image')} of "
        f"{count_noun(run.curve.n_patients, 'patient')}, macro over "
        f"{', '.join(run.curve.labels) or 'no label'}, {_over(len(run.config.get('seeds', [])))}",
        [
            *("head", "training images", "labels learned", "macro AUROC", "macro AUPRC"),
            "paired gain in AUROC over the first head",
        ],
        rows,
    )
