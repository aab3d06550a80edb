"""The sections of single labels: curves, calibration, confusion and the most certain images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from featurecache.report import plots, tables
from featurecache.report.curves import (
    Points,
    douglas_peucker,
    precision_recall_points,
    reliability,
    roc_points,
)
from featurecache.report.examples import Films, most_certain
from featurecache.report.load_runs import ScoredRun
from featurecache.report.palette import SERIES
from featurecache.report.plot_registry import Plots

_TIES: Final = 1e-3
"""Two areas that are nearer than this are told as the same number, or nearly."""


def labels_of(
    scored: Sequence[ScoredRun],
    labels: Sequence[str],
    drawn: Plots,
    files: Mapping[str, Path] | None,
) -> dict[str, Any] | None:
    """What the sections of all labels show; None without runs that have figures of images.

    Args:
        scored: the runs.
        labels: of any of them, in the order of the page.
        drawn: takes the plots.
        files: films by the ids of their images; None for none.
    """
    if not scored:
        return None
    anchors = [f"label-{number}" for number in range(1, len(labels) + 1)]
    films = None if files is None else Films(files)
    return {
        "overview": tables.overview(scored, labels, anchors),
        "sections": [
            _label(label, anchor, scored, drawn, films)
            for label, anchor in zip(labels, anchors, strict=True)
        ],
    }


def _label(
    label: str, anchor: str, scored: Sequence[ScoredRun], drawn: Plots, films: Films | None
) -> dict[str, Any]:
    having = [run for run in scored if label in run.scored.label_names]
    columns = {run.name: run.scored.label_names.index(label) for run in having}
    # A run that could not learn a label has no figures of it, and no curves.
    able = {
        run.name: (run.scored.truth[:, c], run.scored.probability[:, c])
        for run in having
        if run in scored[:SERIES] and run.scored.learned[c := columns[run.name]]
    }
    # Films are those of the first run's data set.
    of_films = having[0].dataset == scored[0].dataset
    places = {run.name: number for number, run in enumerate(scored)}
    figures = having[0].metrics["per_label"][label]
    known, positive = figures["n_known"], figures["n_positive"]
    rocs = {name: douglas_peucker(roc_points(*pair)) for name, pair in able.items()}
    recalls = {name: douglas_peucker(precision_recall_points(*pair)) for name, pair in able.items()}
    bins = {name: reliability(*pair) for name, pair in able.items()}
    shown = []
    if any(len(points) for points in rocs.values()):
        plot = plots.roc_figure(rocs, places)
        shown.append(drawn.add(f"roc-{label}", f"ROC of {label}", plot, caption="ROC"))
    if any(len(points) for points in recalls.values()):
        # At the lowest threshold everything is called positive: there precision is prevalence.
        prevalence = next(float(points.y[-1]) for points in recalls.values() if len(points))
        plot = plots.precision_recall_figure(recalls, places, prevalence)
        title = f"Precision and recall of {label}"
        shown.append(
            drawn.add(f"precision-recall-{label}", title, plot, caption="Precision and recall")
        )
    if any(len(one.images) for one in bins.values()):
        plot = plots.reliability_figure(bins, places)
        title = f"Calibration of {label}"
        shown.append(drawn.add(f"calibration-{label}", title, plot, caption="Calibration"))
    return {
        "name": label,
        "anchor": anchor,
        "positive": positive,
        "known": known,
        "plots": shown,
        "table": tables.of_label(having, label),
        "confusions": tables.confusions(having, label),
        "examples": _examples(having[0], columns, films) if films and of_films else None,
        "example_run": having[0].name,
    }


def _examples(
    run: ScoredRun, columns: Mapping[str, int], films: Films
) -> list[tuple[str, list[dict[str, Any]]]]:
    groups = most_certain(run.scored, columns[run.name])
    return [
        (
            group,
            [
                {"id": one.id, "p": f"{one.probability:.3f}", "picture": films.picture(one.id)}
                for one in found
            ],
        )
        for group, found in groups.items()
    ]


def has_ties(run: ScoredRun) -> bool:
    """Whether a curve of its probabilities is not the one whose area metrics.json holds."""
    for c, label in enumerate(run.scored.label_names):
        auroc = run.metrics["per_label"][label]["auroc"]
        if auroc is None:
            continue
        points = roc_points(run.scored.truth[:, c], run.scored.probability[:, c])
        if len(points) and abs(_area(points) - auroc) > _TIES:
            return True
    return False


def _area(points: Points) -> float:
    return float((np.diff(points.x) * (points.y[1:] + points.y[:-1]) / 2).sum())
