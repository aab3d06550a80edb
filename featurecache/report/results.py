"""The section of results: all runs side by side, and what they differ by."""

from collections.abc import Sequence
from typing import Any

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import compare_scored, require_same_images
from featurecache.report import plots, tables
from featurecache.report.load_runs import ScoredRun
from featurecache.report.plot_registry import Plots
from featurecache.report.plots import Estimate


def results(scored: Sequence[ScoredRun], drawn: Plots, n_bootstrap: int) -> dict[str, Any] | None:
    """What the section shows; None without runs that have figures of images."""
    if not scored:
        return None
    result: dict[str, Any] = {
        "headline": tables.headline(scored),
        "tiles": _tiles(scored[0]) if len(scored) == 1 else (),
        "seeds": [(run.name, line) for run in scored if (line := tables.seeds(run))],
        "plot": None,
        "differences": None,
        "apart": [],
        "decisions": tables.decisions(scored),
    }
    if len(scored) == 1:
        return result
    estimates = [
        Estimate(run.name, run.metrics["macro"]["auroc"], run.metrics["ci95"]["macro"]["auroc"])
        for run in scored
    ]
    result["plot"] = drawn.add(
        "runs",
        "Macro AUROC of each run with its 95 % interval",
        plots.estimates_figure(estimates, axis="macro AUROC", reference=0.5),
    )
    together = [scored[0]]
    for run in scored[1:]:
        try:
            require_same_images(scored[0].scored, run.scored)
        except UsageError as error:
            result["apart"].append(str(error))
        else:
            together.append(run)
    if len(together) > 1 and n_bootstrap > 0:
        try:
            comparison = compare_scored(
                [run.scored for run in together], n_bootstrap=n_bootstrap
            ).to_json()
        except UsageError as error:
            result["apart"].append(str(error))
        else:
            names = {str(run.folder): run.name for run in together}
            result["differences"] = tables.differences(comparison, names)
    return result


def _tiles(run: ScoredRun) -> list[tuple[str, str, str]]:
    """The few figures that are looked at first: name, figure, what stands below it."""
    metrics = run.metrics
    tiles = []
    for key, name in (("auroc", "macro AUROC"), ("auprc", "macro AUPRC"), ("f1", "macro F1")):
        bounds = metrics["ci95"]["macro"][key]
        below = "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        tiles.append((name, tables.figure(metrics["macro"][key]), below))
    if (calibration := metrics.get("calibration")) is not None:
        after = tables.figure(calibration["macro"]["after"]["ece"])
        before = tables.figure(calibration["macro"]["before"]["ece"])
        tiles.append(("calibration error", before, f"{after} after Platt"))
    patients = f"of {metrics['n_patients']:,} patients"
    return [*tiles, (f"{metrics['split']} images", f"{metrics['n']:,}", patients)]
