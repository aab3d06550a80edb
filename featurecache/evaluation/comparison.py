"""Compare runs in pairs: the same test images and the same bootstrap samples of patients."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from featurecache.errors import RunError, UsageError
from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    interval,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.metrics import Change, ChangeInterval, Score
from featurecache.metrics.multilabel import MetricArrays
from featurecache.metrics.ranking import Floats
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run, as_run

if TYPE_CHECKING:
    import pandas as pd


class MetricComparison(BaseModel):
    """One metric of a run against the first run's.

    Attributes:
        first: The metric of the first run; None where undefined.
        run: The metric of this run.
        difference: ``run`` minus ``first``.
        ci95: 95 % interval of the difference, from the same bootstrap samples for both.
        p: Two-sided p value of no difference.
        p_holm: The same with Holm's correction.
    """

    first: Score | None
    run: Score | None
    difference: Change | None
    ci95: ChangeInterval | None
    p: float | None
    p_holm: float | None = None


class RunComparison(BaseModel):
    """All metrics of a run against the first run's, by metric name."""

    run: str
    macro: dict[str, MetricComparison]
    micro: dict[str, MetricComparison]
    exact_match: MetricComparison
    hamming_loss: MetricComparison
    per_label: dict[str, dict[str, MetricComparison]]

    def families(self) -> Iterator[tuple[tuple[str, str], MetricComparison]]:
        """Yield each metric with the family that Holm's correction is over."""
        for group, metrics in (("macro", self.macro), ("micro", self.micro)):
            for name, metric in metrics.items():
                yield (group, name), metric
        for name in ("exact_match", "hamming_loss"):
            yield ("", name), getattr(self, name)
        for metrics in self.per_label.values():
            for name, metric in metrics.items():
                yield ("per_label", name), metric


class Comparison(BaseModel):
    """Paired differences of runs to the first one.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> linear = fc.train_head(cache, "linear", controls=False)
        >>> comparison = fc.compare([linear, fc.zero_shot(cache)])
        >>> low, high = comparison.comparisons[0].macro["auroc"].ci95
        >>> sorted(comparison.to_pandas()["metric"].unique())[:2]
        ['accuracy', 'auprc']

    Attributes:
        first: Name of the first run.
        n: Number of images.
        n_patients: Number of their patients.
        split: The split that was scored.
        labels: Labels that every run could learn; averages are over these.
        n_bootstrap: Number of bootstrap samples.
        comparisons: One for each further run.
    """

    first: str
    n: int
    n_patients: int
    split: str
    labels: list[str]
    n_bootstrap: int
    comparisons: list[RunComparison]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON document."""
        return self.model_dump(mode="json")

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per run, average or label, and metric."""
        import pandas as pd

        rows = []
        for comparison in self.comparisons:
            scores = {"macro": comparison.macro, "micro": comparison.micro, **comparison.per_label}
            for group, metrics in scores.items():
                for name, metric in metrics.items():
                    low, high = metric.ci95 or (None, None)
                    values = {"ci95_low": low, "ci95_high": high, **metric.model_dump()}
                    del values["ci95"]
                    rows.append({"name": comparison.run, "of": group, "metric": name, **values})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Return the differences in macro AUROC with their intervals."""
        differences = "; ".join(
            f"{comparison.run} {_signed(comparison.macro['auroc'])}"
            for comparison in self.comparisons
        )
        return (
            f"Comparison(macro AUROC minus that of {self.first}: {differences}; {self.n:,} "
            f"{self.split} images of {self.n_patients:,} patients)"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return the differences of the averages as a table for notebooks."""
        table = self.to_pandas()
        averages = table[table["of"].isin(["macro", "micro"])]
        return str(averages.to_html(index=False, float_format="{:.3f}".format))


def compare(
    runs: Sequence[Run | str | os.PathLike[str]], *, n_bootstrap: int = 1000, seed: int = 0
) -> Comparison:
    """Compare every metric of each run with the first run's.

    Intervals and p values are of the paired differences: both runs are scored on the same bootstrap
    samples of patients. The p value is twice the smaller share of samples on one side of zero, each
    share with one sample added (Davison and Hinkley 1997, section 4.2). Holm's correction (1979) is
    over the runs for each average, and over runs and labels for each metric of single labels.
    Averages are over the labels that every run could learn.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> runs = [fc.zero_shot(cache), fc.zero_shot(cache, scoring="sigmoid")]
        >>> fc.compare(runs).comparisons[0].macro["auroc"].difference < 0.1
        True

    Args:
        runs: Two or more runs or run folders with predictions of the same images.
        n_bootstrap: Number of bootstrap samples over patients.
        seed: Seed of the bootstrap.

    Returns:
        The comparison; undefined differences are None.

    Raises:
        RunError: A run folder is damaged.
        UsageError: There are fewer than two runs, they did not score the same images or labels, or
            no label could be learned by all of them.
    """
    if isinstance(runs, str | os.PathLike | Run) or len(runs) < 2:
        raise UsageError("give at least two runs: the others are compared with the first")
    if n_bootstrap < 1:
        raise UsageError(f"`n_bootstrap` {n_bootstrap}: a comparison needs at least 1")
    loaded = [as_run(run) for run in runs]
    return compare_scored(
        [scored_images(run) for run in loaded], n_bootstrap=n_bootstrap, seed=seed
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImages(Predictions):
    """The predictions that a run's metrics are of, sorted by id.

    Attributes:
        name: Name of the run, or its folder.
        split: The split that was scored.
        thresholds: Threshold of each label, shape (C,).
        learned: Whether each label could be learned, shape (C,).
    """

    name: str
    split: str
    thresholds: Floats
    learned: NDArray[np.bool_]


def scored_images(run: Run) -> ScoredImages:
    """Return the predictions that a run's metrics are of.

    Raises:
        RunError: The run has no predictions of the split that its metrics are of.
    """
    name = str(run.path or run.name)
    predictions, split = run.scored, run.metrics.split
    labels = [run.metrics.per_label[label] for label in predictions.label_names]
    rows = np.flatnonzero((predictions.splits == split) | (split == "all"))
    if len(rows) == 0:
        raise RunError(f"{name} has metrics of {split}, but no predictions of it")
    rows = rows[np.argsort(predictions.ids[rows])]
    return ScoredImages(
        name=name,
        split=split,
        ids=predictions.ids[rows],
        patients=predictions.patients[rows],
        splits=predictions.splits[rows],
        label_names=predictions.label_names,
        truth=predictions.truth[rows],
        probability=predictions.probability[rows],
        thresholds=np.array([label.threshold for label in labels], dtype=np.float64),
        learned=np.array([label.learned for label in labels]),
    )


def compare_scored(
    scored: Sequence[ScoredImages], *, n_bootstrap: int, seed: int = 0
) -> Comparison:
    """Compare two or more runs by their predictions; see ``compare``."""
    first = scored[0]
    for other in scored[1:]:
        require_same_images(first, other)
    learned = np.logical_and.reduce([run.learned for run in scored])
    if not learned.any():
        raise UsageError("no label could be learned by all of these runs: nothing can be compared")
    labels = [name for name, both in zip(first.label_names, learned, strict=True) if both]
    resamples = resample_patients(first.patients, n_bootstrap=n_bootstrap, seed=seed)
    metrics = [_measure(run, learned, resamples) for run in scored]
    comparisons = [
        _compare_pair(run.name, metrics[0], other, labels)
        for run, other in zip(scored[1:], metrics[1:], strict=True)
    ]
    _correct_p_values(comparisons)
    return Comparison(
        first=first.name,
        n=len(first.ids),
        n_patients=resamples.counts.shape[1],
        split=first.split,
        labels=labels,
        n_bootstrap=n_bootstrap,
        comparisons=comparisons,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values with Holm's step-down correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1)
    return list(corrected.tolist())


def require_same_images(first: ScoredImages, other: ScoredImages) -> None:
    """Check that two runs have the same images, patients, labels and truth.

    Raises:
        UsageError: Something differs; the message says what.
    """
    pair = f"{other.name} and {first.name} cannot be compared"
    if other.label_names != first.label_names:
        raise UsageError(
            f"{pair}: their labels are {', '.join(other.label_names)} and "
            f"{', '.join(first.label_names)}"
        )
    if not np.array_equal(other.ids, first.ids):
        only_one = np.setxor1d(other.ids, first.ids)
        raise UsageError(
            f"{pair}: they scored {len(other.ids)} {other.split} and {len(first.ids)} "
            f"{first.split} images, {str(only_one[0])!r} in one of them only"
        )
    for what, mine, theirs in (
        ("patients", first.patients, other.patients),
        ("labels", first.truth, other.truth),
    ):
        if not np.array_equal(mine, theirs):
            raise UsageError(f"{pair}: the same images have other {what}")


def _measure(
    scored: ScoredImages, learned: NDArray[np.bool_], resamples: PatientResamples
) -> MetricArrays:
    """Return the metrics of the data, followed by those of every bootstrap sample."""
    truth, probability = scored.truth[:, learned], scored.probability[:, learned]
    predicted = probability >= scored.thresholds[learned]
    return bootstrap_metrics(truth, predicted, probability, resamples.with_data())


def _compare_pair(
    name: str, first: MetricArrays, other: MetricArrays, labels: Sequence[str]
) -> RunComparison:
    def compare_all(
        a: Mapping[str, Floats], b: Mapping[str, Floats]
    ) -> dict[str, MetricComparison]:
        return {metric: _compare_metric(a[metric], b[metric]) for metric in a}

    return RunComparison(
        run=name,
        macro=compare_all(first.macro, other.macro),
        micro=compare_all(first.micro, other.micro),
        exact_match=_compare_metric(first.exact_match, other.exact_match),
        hamming_loss=_compare_metric(first.hamming_loss, other.hamming_loss),
        per_label={
            label: compare_all(first.of_label(c), other.of_label(c))
            for c, label in enumerate(labels)
        },
    )


def _compare_metric(first: Floats, other: Floats) -> MetricComparison:
    differences = (other - first)[1:]
    ci95 = interval(differences)
    defined = differences[~np.isnan(differences)]
    below, above = int((defined <= 0).sum()), int((defined >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (len(defined) + 1))
    return MetricComparison(
        first=none_if_nan(first[0]),
        run=none_if_nan(other[0]),
        difference=none_if_nan(other[0] - first[0]),
        ci95=ci95,
        p=None if ci95 is None else p,
    )


def _correct_p_values(comparisons: Sequence[RunComparison]) -> None:
    """Set ``p_holm`` of every metric, over its family."""
    families: dict[tuple[str, str], list[MetricComparison]] = {}
    for comparison in comparisons:
        for family, metric in comparison.families():
            if metric.p is not None:
                families.setdefault(family, []).append(metric)
    for metrics in families.values():
        corrected = holm([metric.p for metric in metrics if metric.p is not None])
        for metric, p in zip(metrics, corrected, strict=True):
            metric.p_holm = p


def _signed(metric: MetricComparison) -> str:
    if metric.difference is None:
        return "undefined"
    if metric.ci95 is None:
        return f"{metric.difference:+.3f}"
    return f"{metric.difference:+.3f} [{metric.ci95[0]:+.3f}, {metric.ci95[1]:+.3f}]"
