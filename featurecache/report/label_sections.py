"""Section "Labels": curves, calibration, confusion matrices and example images of each label."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.metrics.curves import (
    Curve,
    precision_recall_curve,
    reliability_curve,
    roc_curve,
)
from featurecache.metrics.decision_curve import decision_curve
from featurecache.metrics.platt_scaling import log_odds, read_calibration
from featurecache.metrics.ranking import Floats, Labels, auroc
from featurecache.metrics.risk_coverage import aurc, decision_confidence, risk_coverage_curve
from featurecache.report import label_tables, plots
from featurecache.report.examples import ExampleImages
from featurecache.report.load_runs import ScoredRun
from featurecache.report.palette import N_SERIES
from featurecache.report.plot_registry import Plot, PlotRegistry
from featurecache.units import STUDY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THRESHOLDS: Final = np.arange(1, 100) / 100
"""Threshold probabilities of decision curves."""

_AUROC_TOLERANCE: Final = 1e-3
"""Two AUROCs that are closer than this look the same after rounding."""


def label_sections(
    scored: Sequence[ScoredRun],
    labels: Sequence[str],
    registry: PlotRegistry,
    files: Mapping[str, Path] | None,
    caches: Sequence[Path] = (),
) -> dict[str, Any] | None:
    """Return the contents of the section; None without runs that scored images.

    Args:
        scored: the runs.
        labels: labels of all runs, in the order of the page.
        registry: takes the plots.
        files: path of each image of the first run's data set, by id; None for no example images.
        caches: files in which the runs' caches are looked for first.
    """
    if not scored:
        return None
    anchors = [f"label-{number}" for number in range(1, len(labels) + 1)]
    if scored[0].metrics.level == STUDY:
        files = None  # a study has several
    examples = None if files is None else ExampleImages(files, caches)
    return {
        "overview": label_tables.overview_table(scored, labels, anchors),
        "plot": _forest_plot(scored, labels, registry),
        "calibration": [table for run in scored if (table := label_tables.calibration_table(run))],
        "delong": [table for run in scored if (table := label_tables.delong_table(run))],
        "sections": [
            {"anchor": anchor, **_label_section(label, scored, registry, examples)}
            for label, anchor in zip(labels, anchors, strict=True)
        ],
    }


def _forest_plot(
    scored: Sequence[ScoredRun], labels: Sequence[str], registry: PlotRegistry
) -> Plot:
    """Return the plot of the AUROC of every label, with intervals."""
    estimates = {
        run.name: [
            plots.Estimate(label, scores.auroc, scores.interval("auroc"))
            for label in labels
            if (scores := run.metrics.per_label.get(label)) is not None
        ]
        for run in scored[:N_SERIES]
    }
    indices = {run.name: index for index, run in enumerate(scored)}
    return registry.add(
        "labels",
        "AUROC of each label with its 95 % interval",
        plots.label_forest_plot(estimates, indices, x_label="AUROC"),
    )


def _label_section(
    label: str, scored: Sequence[ScoredRun], registry: PlotRegistry, examples: ExampleImages | None
) -> dict[str, Any]:
    runs = [run for run in scored if label in run.scored.label_names]
    scores = runs[0].metrics.per_label[label]
    # Thumbnails are those of the first run's data set.
    has_examples = runs[0].dataset == scored[0].dataset and scores.learned
    return {
        "name": label,
        "counts": label_tables.common_counts(runs, label),
        "plots": _label_plots(label, scored, registry),
        "table": label_tables.label_table(runs, label),
        "confusions": label_tables.confusion_matrices(runs, label),
        "examples": examples.of_label(runs[0], label) if examples and has_examples else None,
        "example_run": runs[0].name,
    }


def _label_plots(label: str, scored: Sequence[ScoredRun], registry: PlotRegistry) -> list[Plot]:
    indices = {run.name: index for index, run in enumerate(scored)}
    predictions = {}
    for run in scored[:N_SERIES]:
        column = _column(run, label)
        # A run that could not learn a label has no metrics of it, and no curves.
        if column is not None and run.scored.learned[column]:
            truth, probability = run.scored.truth[:, column], run.scored.probability[:, column]
            predictions[run.name] = (truth, probability)

    def add(
        name: str, title: str, caption: str, plot: "Callable[..., Figure]", *args: object
    ) -> Plot:
        figure = plot(*args)
        return registry.add(f"{name}-{label}", f"{title} of {label}", figure, caption=caption)

    label_plots = []
    scores = {
        run.name: run.metrics.per_label[label].auroc
        for run in scored
        if label in run.metrics.per_label
    }
    roc = {name: roc_curve(*pair) for name, pair in predictions.items()}
    if any(len(curve) for curve in roc.values()):
        label_plots.append(add("roc", "ROC curve", "ROC", plots.roc_plot, roc, indices, scores))
    recall = {name: precision_recall_curve(*pair) for name, pair in predictions.items()}
    defined = [curve for curve in recall.values() if len(curve)]
    if defined:
        # At the lowest threshold everything is predicted positive, so precision is prevalence.
        prevalence = float(defined[0].y[-1])
        title, plot = "Precision and recall", plots.precision_recall_plot
        label_plots.append(add("precision-recall", title, title, plot, recall, indices, prevalence))
    bins = {name: reliability_curve(*pair) for name, pair in predictions.items()}
    if any(len(curve.n_images) for curve in bins.values()):
        title = "Calibration"
        label_plots.append(add("calibration", title, title, plots.reliability_plot, bins, indices))
    shown = {run.name: run for run in scored if run.name in predictions}
    known = {name: pair for name, pair in predictions.items() if (pair[0] >= 0).any()}
    if known:
        benefits = {
            name: decision_curve(truth, _calibrated(shown[name], label), _THRESHOLDS)
            for name, (truth, _) in known.items()
        }
        title = "Net benefit"
        label_plots.append(add("net-benefit", title, title, plots.decision_plot, benefits, indices))
        risks = {
            name: _risk_coverage(*pair, shown[name].metrics.per_label[label].threshold)
            for name, pair in known.items()
        }
        areas = {name: aurc(curve) for name, curve in risks.items()}
        title, plot = "Risk and coverage", plots.risk_coverage_plot
        label_plots.append(add("risk-coverage", title, title, plot, risks, indices, areas))
    return label_plots


def _calibrated(run: ScoredRun, label: str) -> Floats:
    """Return the probabilities of a label after Platt scaling, where it has one, (N,)."""
    column = run.scored.label_names.index(label)
    probability: Floats = run.scored.probability[:, [column]]
    platt = read_calibration(run.metrics, [label])
    if platt is not None:
        scaled = platt(log_odds(probability))
        probability = np.where(np.isnan(scaled), probability, scaled)
    return probability[:, 0]


def _risk_coverage(truth: Labels, probability: Floats, threshold: float) -> Curve:
    """Return the risk-coverage curve of the decisions about known labels."""
    known = truth >= 0
    wrong = (probability[known] >= threshold) != (truth[known] == 1)
    return risk_coverage_curve(wrong, decision_confidence(probability[known], threshold))


def _column(run: ScoredRun, label: str) -> int | None:
    names = run.scored.label_names
    return names.index(label) if label in names else None


def has_tied_probabilities(run: ScoredRun) -> bool:
    """Return whether ties in the probabilities make the curves differ from the metrics.

    Zero-shot metrics rank by logits, whose probabilities tie near 0 and 1.
    """
    for column, label in enumerate(run.scored.label_names):
        score = run.metrics.per_label[label].auroc
        if score is None:
            continue
        # NaN, where a class is missing, compares as False.
        of_probabilities = auroc(run.scored.truth[:, column], run.scored.probability[:, column])
        if abs(of_probabilities - score) > _AUROC_TOLERANCE:
            return True
    return False
