"""Paired comparisons of runs: the same test images, the same draws of patients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import RunError, UsageError
from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.multilabel import MetricArrays, compute_metrics
from featurecache.metrics.ranking import Floats
from featurecache.runs.folder import read_metrics, read_predictions


@dataclass(frozen=True, eq=False)
class Scored:
    """What a run predicted for the images that its figures are of, M rows sorted by id.

    Attributes:
        run: its folder.
        split: what its figures are of.
        ids: (M,).
        patients: (M,).
        label_names: the C labels.
        truth: (M, C) of 1, 0, -1 unknown.
        probability: (M, C).
        thresholds: (C,).
        learned: (C,) whether it could learn the label; its figures are undefined where not.
    """

    run: Path
    split: str
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    label_names: tuple[str, ...]
    truth: NDArray[np.int8]
    probability: Floats
    thresholds: Floats
    learned: NDArray[np.bool_]


def read_scored(run: Path) -> Scored:
    """Read the predictions and thresholds of a run folder.

    Raises:
        RunError: a file is missing or damaged, or the files contradict each other.
    """
    metrics, predictions = read_metrics(run), read_predictions(run)
    if set(metrics["per_label"]) != set(predictions.label_names):
        raise RunError(f"{run}: its metrics and its predictions are of other labels: make it again")
    split = metrics["split"]
    figures = [metrics["per_label"][name] for name in predictions.label_names]
    thresholds = np.array([figure["threshold"] for figure in figures], dtype=np.float64)
    learned = np.array([figure["confusion"] is not None for figure in figures])
    rows = np.arange(len(predictions.ids))
    if split != "all":
        rows = np.flatnonzero(predictions.splits == split)
    if len(rows) == 0:
        raise RunError(f"{run} has figures of {split}, but no predictions of it")
    rows = rows[np.argsort(predictions.ids[rows])]
    return Scored(
        run=run,
        split=split,
        ids=predictions.ids[rows],
        patients=predictions.patients[rows],
        label_names=predictions.label_names,
        truth=predictions.truth[rows],
        probability=predictions.probability[rows],
        thresholds=thresholds,
        learned=learned,
    )


def compare(runs: Sequence[Path], *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every metric of each run against the first run's.

    Differences are the run's figure less the first run's. Intervals are of the differences, on the
    same draws of patients for both, and so are the p values: twice the smaller share of draws on
    one side of zero, each share with one draw added (Davison and Hinkley 1997, section 4.2). Holm's
    correction (1979) is over the runs for each averaged metric, over runs and labels for each
    metric of single labels. Averages are over the labels that every run could learn.

    Args:
        runs: two or more run folders with predictions of the same images.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.

    Returns:
        A document with ``first``, ``n``, ``n_patients``, ``split``, ``labels``, ``n_bootstrap`` and
        ``comparisons``, one for each further run; undefined is None.

    Raises:
        RunError: a run folder is damaged.
        UsageError: fewer than two runs, or they did not score the same images or labels.
    """
    if len(runs) < 2:
        raise UsageError("give at least two runs: the others are compared with the first")
    if n_bootstrap < 1:
        raise UsageError(f"--n-bootstrap {n_bootstrap}: a comparison needs at least 1")
    return compare_scored([read_scored(run) for run in runs], n_bootstrap=n_bootstrap, seed=seed)


def compare_scored(scored: Sequence[Scored], *, n_bootstrap: int, seed: int = 0) -> dict[str, Any]:
    """``compare`` of runs that are read already, two or more.

    Raises:
        UsageError: they did not score the same images or labels, or no label could be learned by
            all of them.
    """
    for other in scored[1:]:
        refuse_others(scored[0], other)
    learned = np.logical_and.reduce([one.learned for one in scored])
    if not learned.any():
        raise UsageError("no label could be learned by all of these runs: nothing can be compared")
    labels = [name for name, both in zip(scored[0].label_names, learned, strict=True) if both]
    samples = resample_patients(scored[0].patients, n_bootstrap=n_bootstrap, seed=seed)
    measured = [_measure(one, learned, samples) for one in scored]
    comparisons = [
        {"run": str(one.run), **_differences(measured[0], found, labels)}
        for one, found in zip(scored[1:], measured[1:], strict=True)
    ]
    _correct(comparisons)
    return {
        "first": str(scored[0].run),
        "n": len(scored[0].ids),
        "n_patients": samples.counts.shape[1],
        "split": scored[0].split,
        "labels": labels,
        "n_bootstrap": n_bootstrap,
        "comparisons": comparisons,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: (m,) p values to (m,) corrected ones, in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1)
    return [float(value) for value in corrected]


def refuse_others(first: Scored, other: Scored) -> None:
    """Runs are comparable where images, patients, labels and truth are the same.

    Raises:
        UsageError: something differs; the message says what.
    """
    which = f"{other.run} and {first.run} cannot be compared"
    if other.label_names != first.label_names:
        raise UsageError(
            f"{which}: their labels are {', '.join(other.label_names)} and "
            f"{', '.join(first.label_names)}"
        )
    if not np.array_equal(other.ids, first.ids):
        lone = np.setxor1d(other.ids, first.ids)
        raise UsageError(
            f"{which}: they scored {len(other.ids)} {other.split} and {len(first.ids)} "
            f"{first.split} images, {str(lone[0])!r} in one of them only"
        )
    for what, mine, theirs in (
        ("patients", first.patients, other.patients),
        ("labels", first.truth, other.truth),
    ):
        if not np.array_equal(mine, theirs):
            raise UsageError(f"{which}: the same images have other {what}")


def _measure(
    one: Scored, learned: NDArray[np.bool_], samples: PatientResamples
) -> tuple[MetricArrays, MetricArrays]:
    """A run's metrics, and those of every draw."""
    truth, probability = one.truth[:, learned], one.probability[:, learned]
    decided = probability >= one.thresholds[learned]
    return (
        compute_metrics(truth, decided, probability),
        bootstrap_metrics(truth, decided, probability, samples),
    )


def _differences(
    first: tuple[MetricArrays, MetricArrays],
    other: tuple[MetricArrays, MetricArrays],
    labels: Sequence[str],
) -> dict[str, Any]:
    def each(one: Mapping[str, Floats], two: Mapping[str, Floats], of: "_Pair") -> dict[str, Any]:
        return {name: _difference(one[name], two[name], *(d[name] for d in of)) for name in one}

    (a, a_drawn), (b, b_drawn) = first, other
    return {
        "macro": each(a.macro, b.macro, (a_drawn.macro, b_drawn.macro)),
        "micro": each(a.micro, b.micro, (a_drawn.micro, b_drawn.micro)),
        "exact_match": _difference(
            a.exact_match, b.exact_match, a_drawn.exact_match, b_drawn.exact_match
        ),
        "hamming_loss": _difference(
            a.hamming_loss, b.hamming_loss, a_drawn.hamming_loss, b_drawn.hamming_loss
        ),
        "per_label": {
            label: each(
                _column(a.per_label, c),
                _column(b.per_label, c),
                (_column(a_drawn.per_label, c), _column(b_drawn.per_label, c)),
            )
            for c, label in enumerate(labels)
        },
    }


_Pair = tuple[Mapping[str, Floats], Mapping[str, Floats]]


def _column(figures: Mapping[str, Floats], column: int) -> dict[str, Floats]:
    return {name: values[..., column] for name, values in figures.items()}


def _difference(first: Floats, other: Floats, drawn: Floats, drawn_other: Floats) -> dict[str, Any]:
    """Two figures, their difference, its interval and its p value."""
    differences = drawn_other - drawn
    bounds = ci_or_none(differences)
    defined = differences[~np.isnan(differences)]
    below, above = (int((defined <= 0).sum()), int((defined >= 0).sum()))
    p = min(1.0, 2 * (min(below, above) + 1) / (len(defined) + 1))
    return {
        "first": none_if_nan(first),
        "run": none_if_nan(other),
        "difference": none_if_nan(other - first),
        "ci95": bounds,
        "p": None if bounds is None else p,
    }


def _correct(comparisons: Sequence[dict[str, Any]]) -> None:
    """Put Holm's correction beside every p value, over its family."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for comparison in comparisons:
        for family, figure in _figures(comparison):
            if figure["p"] is not None:
                families.setdefault(family, []).append(figure)
            figure["p_holm"] = None
    for figures in families.values():
        for figure, corrected in zip(figures, holm([f["p"] for f in figures]), strict=True):
            figure["p_holm"] = corrected


def _figures(comparison: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Each figure of a comparison with the family it belongs to."""
    for group in ("macro", "micro"):
        for name, figure in comparison[group].items():
            yield (group, name), figure
    for name in ("exact_match", "hamming_loss"):
        yield ("", name), comparison[name]
    for figures in comparison["per_label"].values():
        for name, figure in figures.items():
            yield ("per_label", name), figure
