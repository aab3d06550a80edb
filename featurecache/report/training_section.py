"""The section of learning: losses by epoch, and figures by the number of training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurecache.report import plots, tables
from featurecache.report.load_runs import CurveRun, ScoredRun
from featurecache.report.plot_registry import Plots
from featurecache.report.plots import Estimate


def histories(scored: Sequence[ScoredRun], drawn: Plots) -> list[dict[str, Any]]:
    """Of each run that has a history, its losses by epoch or what was chosen on validation."""
    found = []
    for run in scored:
        table, plot = tables.chosen(run), None
        if losses := _losses(run.history):
            best = run.config.get("best_epoch")
            plot = drawn.add(
                f"losses-{run.name}",
                f"Loss of {run.name} by epoch",
                plots.losses_figure(losses, best=best if isinstance(best, int) else None),
            )
        if plot or table:
            found.append({"name": run.name, "plot": plot, "table": table})
    return found


def _losses(history: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Epochs and losses by name; of several members each has its own."""
    losses: dict[str, tuple[list[float], list[float]]] = {}
    for line in history:
        if "epoch" not in line:
            return {}
        member = f"{line['model']}: " if "model" in line else ""
        for column, name in (("train_loss", "training"), ("val_loss", "validation")):
            if column in line:
                epochs, values = losses.setdefault(member + name, ([], []))
                epochs.append(float(line["epoch"]))
                values.append(float(line[column]))
    return {name: (np.array(one), np.array(two)) for name, (one, two) in losses.items()}


def learning_curves(curves: Sequence[CurveRun], drawn: Plots) -> list[dict[str, Any]]:
    """Of each learning curve its plots and its table."""
    found = []
    for run in curves:
        sizes, cells = run.figures["sizes"], run.figures["cells"]
        scores = {
            head: [Estimate(head, one["macro"]["auroc"], one["ci95"]["auroc"]) for one in row]
            for head, row in cells.items()
        }
        shown = [
            drawn.add(
                f"curve-{run.name}",
                f"{run.name}: macro AUROC by the number of training images",
                plots.sizes_figure(sizes, scores, axis="macro AUROC"),
            )
        ]
        gains = {
            head: [
                Estimate(head, one["gain"]["auroc"]["difference"], one["gain"]["auroc"]["ci95"])
                if one["gain"]
                else Estimate(head, None, None)
                for one in row
            ]
            for head, row in list(cells.items())[1:]
        }
        if gains:
            first = next(iter(cells))
            shown.append(
                drawn.add(
                    f"gain-{run.name}",
                    f"{run.name}: gain in macro AUROC over {first}, paired",
                    plots.sizes_figure(sizes, gains, axis=f"gain over {first}", first=1),
                )
            )
        found.append({"name": run.name, "plots": shown, "table": tables.curve(run)})
    return found
