"""Compare runs in pairs: differences on the same test images, tested over patients."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from featurecache.errors import RunError, UsageError
from featurecache.label_cells import BLANK, UNCERTAIN, UNKNOWN, LabelPolicy, require_same_policy
from featurecache.metrics.bootstrap import PatientResamples, bootstrap_metrics, none_if_nan
from featurecache.metrics.document import Change, ChangeInterval, Score
from featurecache.metrics.holm import holm
from featurecache.metrics.jackknife import (
    NO_ERROR,
    degrees_of_freedom,
    leave_one_out,
    standard_error,
    t_interval,
    t_test,
)
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.multilabel import MetricArrays
from featurecache.metrics.ranking import Floats, Labels, ratio
from featurecache.metrics.thresholds import OperatingPoint, choose_thresholds
from featurecache.runs.predictions import Predictions
from featurecache.runs.run import Run, as_run
from featurecache.store.grouped import group_images, join_scores, study_cells
from featurecache.units import IMAGE, STUDY, Units, require_same_level
from featurecache.wording import UNDEFINED, count_noun, count_scored, pluralize

if TYPE_CHECKING:
    import pandas as pd


class MetricComparison(BaseModel):
    """One metric of a run against the first run's.

    Attributes:
        first: The metric of the first run; None where undefined.
        run: The metric of this run.
        difference: ``run`` minus ``first``.
        ci95: 95 % interval of the difference, over patients.
        p: Two-sided p value of no difference, uncorrected: below 0.05 where ``ci95`` excludes 0.
            Only AUROC has one.
        p_holm: The same, corrected for all tests of the comparison.
        no_interval: Why there is no interval.
    """

    first: Score | None
    run: Score | None
    difference: Change | None
    ci95: ChangeInterval | None = None
    p: float | None = None
    p_holm: float | None = None
    no_interval: str | None = None


class RunComparison(BaseModel):
    """All metrics of a run against the first run's, by metric name.

    Attributes:
        run: Name of the run.
        seed: Which of its seeds is compared, such as "seed 0 (first of 5)"; None for only one.
        supported: Means over ``supported_labels``: the differences to rely on. None without any.
        macro: Means over ``macro_labels``. They have no intervals if some of these labels have too
            few patients; otherwise they are the same as ``supported``.
        micro: Metrics over the pooled images of all ``labels``.
        exact_match: Share of images with every label right.
        hamming_loss: Share of wrong entries.
        per_label: Metrics by label.
    """

    run: str
    seed: str | None
    supported: dict[str, MetricComparison] | None
    macro: dict[str, MetricComparison]
    micro: dict[str, MetricComparison]
    exact_match: MetricComparison
    hamming_loss: MetricComparison
    per_label: dict[str, dict[str, MetricComparison]]

    @property
    def title(self) -> str:
        """The name of the run, and its seed where it has several."""
        return _title(self.run, self.seed)

    @property
    def averages(self) -> dict[str, MetricComparison]:
        """Means over the labels with enough patients; over all labels where none has."""
        return self.supported or self.macro

    @property
    def headline(self) -> MetricComparison:
        """The AUROC of ``averages``."""
        return self.averages["auroc"]


class LabelPatients(BaseModel):
    """Numbers of patients behind a label.

    Attributes:
        n_positive_patients: Patients with a positive image.
        n_negative_patients: Patients with a negative image.
        no_interval: Why the label has no intervals; None where it has enough patients.
    """

    n_positive_patients: int
    n_negative_patients: int
    no_interval: str | None


class Comparison(BaseModel):
    """Paired differences of runs to the first one.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> linear = fc.train_head(cache, "linear", controls=False)
        >>> comparison = fc.compare([linear, fc.zero_shot(cache)])
        >>> comparison.labels["Hernia"].no_interval
        'only 1 patient has a positive image, and at least 5 are needed'
        >>> sorted(comparison.to_pandas()["metric"].unique())[:2]
        ['accuracy', 'auprc']

    Attributes:
        first: Name of the first run.
        first_seed: Which of its seeds is compared; None for only one.
        n: Number of images, or studies.
        level: What was scored: "image" or "study".
        n_patients: Number of their patients.
        split: The split that was scored.
        labels: The labels that every run could learn, with their numbers of patients.
        macro_labels: Those of them with a positive and a negative image.
        supported_labels: Those of them with enough patients of both kinds.
        n_tests: Number of AUROC tests in each family: ``"supported"``, one for each run, and
            ``"per_label"``, one for each run and supported label. Together they have an error rate
            of 0.05, see ``compare``.
        comparisons: One for each further run.
    """

    first: str
    first_seed: str | None
    n: int
    level: str
    n_patients: int
    split: str
    labels: dict[str, LabelPatients]
    macro_labels: list[str]
    supported_labels: list[str]
    n_tests: dict[str, int]
    comparisons: list[RunComparison]

    @property
    def first_title(self) -> str:
        """The name of the first run, and its seed where it has several."""
        return _title(self.first, self.first_seed)

    @property
    def correction(self) -> str:
        """What ``p_holm`` is corrected for, as a phrase; empty without any test."""
        n_macro, n_labels = self.n_tests["supported"], self.n_tests["per_label"]
        if not n_macro + n_labels:
            return ""
        if len(self.supported_labels) == 1:
            return f"Holm's correction, number of tests: {n_macro}"
        return (
            f"Holm's correction, number of tests: {n_macro} of macro AUROC and, separately, "
            f"{n_labels} of single labels; times 2, because these are two families of tests"
        )

    @property
    def averaged_over(self) -> str:
        """The labels behind the headline, as a phrase."""
        n_labels = len(self.supported_labels or self.macro_labels)
        return f"{n_labels} of {count_noun(len(self.labels), 'label')}"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON document."""
        return self.model_dump(mode="json")

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per run, average or label, and metric."""
        import pandas as pd

        rows = []
        for comparison in self.comparisons:
            scores = {
                "supported": comparison.supported or {},
                "macro": comparison.macro,
                "micro": comparison.micro,
                **comparison.per_label,
            }
            for group, metrics in scores.items():
                for name, metric in metrics.items():
                    low, high = metric.ci95 or (None, None)
                    values = metric.model_dump(include={"first", "run", "difference"})
                    values |= {"ci95_low": low, "ci95_high": high}
                    values |= metric.model_dump(include={"p", "p_holm", "no_interval"})
                    names = {"name": comparison.run, "seed": comparison.seed}
                    rows.append({**names, "of": group, "metric": name, **values})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Return the differences in macro AUROC with their intervals."""
        differences = "; ".join(
            f"{comparison.title} {_signed(comparison.headline)}" for comparison in self.comparisons
        )
        return (
            f"Comparison(macro AUROC over {self.averaged_over} minus that of "
            f"{self.first_title}: "
            f"{differences}; {count_scored(self.n, self.split, self.level, self.n_patients)})"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return the differences in AUROC as a table for notebooks."""
        table = self.to_pandas()
        table = table[table["metric"] == "auroc"].drop(columns="metric")
        corrected = f"; p_holm: {self.correction}" if self.correction else ""
        return (
            f"<p>AUROC minus that of {escape(self.first_title)}; supported: the mean over "
            f"{self.averaged_over}{corrected}.</p>"
            f"{table.to_html(index=False, float_format='{:.3g}'.format, na_rep='')}"
        )


def compare(
    runs: Sequence[Run | str | os.PathLike[str]],
    *,
    level: str | None = None,
    study_scores: str | None = None,
) -> Comparison:
    """Compare every metric of each run with the first run's.

    Differences are paired: both runs are scored on the same images. Intervals and p values are
    those of a t test whose standard error is from a jackknife over patients, see
    ``featurecache.metrics.jackknife``. Labels with fewer than five positive or negative patients
    have neither, nor have averages over them. p values are for AUROC alone. They are corrected
    with Holm's method (1979) in two families, macro AUROC of all runs, and AUROC of all runs and
    labels, and doubled because there are two: if nothing differs, the chance of any ``p_holm``
    below 0.05 is at most 0.05. Of a run with several seeds the first is compared, whose predictions
    it holds, and the result says which: what another seed would change is not part of the interval.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> runs = [fc.zero_shot(cache), fc.zero_shot(cache, scoring="sigmoid")]
        >>> fc.compare(runs).comparisons[0].macro["auroc"].difference < 0.1
        True

    Args:
        runs: Two or more runs or run folders with predictions of the same images or studies.
            Studies may be scored from other views and in other ways.
        level: "study" to join the scores of images by study, in runs that scored images, with new
            thresholds from the validation split; by default as the runs are.
        study_scores: How they are joined: "mean" (default) or "max".

    Returns:
        The comparison; undefined differences are None.

    Raises:
        RunError: A run folder is damaged.
        UsageError: There are fewer than two runs, they did not score the same images or labels,
            one scored images and another studies, uncertain or blank cells counted differently, or
            no label could be learned by all of them.
        UnknownNameError: There is no such level, or way to join scores.
    """
    if isinstance(runs, str | os.PathLike | Run) or len(runs) < 2:
        raise UsageError("give at least two runs: the others are compared with the first")
    units = Units().override(level=level, study_scores=study_scores)
    loaded = [as_run(run) for run in runs]
    if level == IMAGE and any(run.units.level == STUDY for run in loaded):
        raise UsageError("a run of studies has no scores of images: leave out `level`")
    if units.level == STUDY:
        loaded = [join_images(run, units) if run.units.level == IMAGE else run for run in loaded]
    return compare_scored([scored_images(run) for run in loaded])


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImages(Predictions):
    """The predictions that a run's metrics are of, sorted by id.

    Attributes:
        name: Name of the run, or its folder.
        seed: Which of its seeds the predictions are of; None for only one.
        split: The split that was scored.
        thresholds: Threshold of each label, shape (C,).
        label_policy: What uncertain and blank cells counted as, where there were any.
        units: What was scored: images, or studies.
    """

    name: str
    seed: str | None = None
    split: str
    thresholds: Floats
    label_policy: Mapping[str, str] = field(default_factory=dict)
    units: Units = field(default_factory=Units)


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
        seed=run.metrics.seed_note,
        split=split,
        ids=predictions.ids[rows],
        patients=predictions.patients[rows],
        studies=predictions.studies[rows],
        splits=predictions.splits[rows],
        sha256=predictions.sha256[rows],
        label_names=predictions.label_names,
        truth=predictions.truth[rows],
        probability=predictions.probability[rows],
        thresholds=np.array([label.threshold for label in labels], dtype=np.float64),
        label_policy=run.label_policy,
        units=run.units,
    )


def join_images(run: Run, units: Units) -> Run:
    """Return a run of images as one of studies, whose scores are joined.

    Thresholds are chosen anew on the studies of the validation split; those of an external
    validation, which has none, are kept.

    Args:
        run: A run that scored images.
        units: How scores are joined; the views are those of the run.

    Raises:
        UsageError: No study of its images is known.
    """
    images, name = run.scored, str(run.path or run.name)
    if not (images.studies != "").any():
        raise UsageError(f"no image of {name} has a study, so its scores cannot be joined")
    units = units.override(views=run.units.views)
    unknown = np.full(len(images.ids), "")
    grouping = group_images(
        images.ids, images.studies, unknown, replace(units, views="all"), source=name
    )
    group, how = grouping.group, str(units.study_scores)
    _, first = np.unique(group, return_index=True)
    # A run states uncertain among its policies only where a cell is; what is unknown otherwise is
    # blank, which is weaker than a negative label of the same study.
    unknown_cells = UNCERTAIN if run.label_policy.get("uncertain") == "ignore" else BLANK
    cells = np.where(images.truth < 0, np.int8(unknown_cells), images.truth)
    truth, _ = study_cells(cells, group, images.label_names, policy=LabelPolicy())
    truth = np.where(truth < 0, np.int8(UNKNOWN), truth)
    joined = replace(
        images,
        ids=grouping.ids,
        studies=grouping.ids,
        patients=images.patients[first],
        splits=images.splits[first],
        sha256=unknown[first],
        truth=truth,
        probability=join_scores(images.probability, group, images.label_names, how=how),
    )
    metrics, val = run.metrics, joined.splits == "val"
    if metrics.split == "test" and val.any():
        point = OperatingPoint.parse(run.config.get("operating_point", "f1"))
        chosen = choose_thresholds(truth[val], np.nan_to_num(joined.probability[val]), point)
        per_label = {
            label: metrics.per_label[label].model_copy(
                update={"threshold": 0.5 if np.isnan(threshold) else float(threshold)}
            )
            for label, threshold in zip(joined.label_names, chosen.values, strict=True)
        }
        metrics = metrics.model_copy(update={"per_label": per_label})
    config = {**run.config, "units": units.to_config()}
    return replace(run, config=config, metrics=metrics, scored=joined)


def compare_scored(scored: Sequence[ScoredImages]) -> Comparison:
    """Compare two or more runs by their predictions; see ``compare``."""
    first = scored[0]
    for other in scored[1:]:
        require_same_images(first, other)
    learned = np.logical_and.reduce([run.learned for run in scored])
    if not learned.any():
        raise UsageError("no label could be learned by all of these runs: nothing can be compared")
    truth = first.truth[:, learned]
    names = [name for name, both in zip(first.label_names, learned, strict=True) if both]
    samples = leave_one_out(first.patients)
    _, patient_index = np.unique(first.patients, return_inverse=True)
    support = patient_support(truth, patient_index)
    labels = {
        name: LabelPatients(
            n_positive_patients=int(support.positive[c]),
            n_negative_patients=int(support.negative[c]),
            no_interval=support.reason(c),
        )
        for c, name in enumerate(names)
    }
    pair = _Pair(
        labels=labels,
        in_macro=(support.positive > 0) & (support.negative > 0),
        supported=support.enough,
        truth=truth,
        patient_index=samples.patient_index,
    )
    metrics = [_measure(run, learned, samples) for run in scored]
    comparisons = [
        pair.compare(run, metrics[0], other)
        for run, other in zip(scored[1:], metrics[1:], strict=True)
    ]
    return Comparison(
        first=first.name,
        first_seed=first.seed,
        n=len(first.ids),
        level=first.units.level,
        n_patients=int(patient_index.max()) + 1,
        split=first.split,
        labels=labels,
        macro_labels=[name for name, counts in zip(names, pair.in_macro, strict=True) if counts],
        supported_labels=[name for name, label in labels.items() if label.no_interval is None],
        n_tests=_correct_p_values(comparisons, int(support.enough.sum())),
        comparisons=comparisons,
    )


def require_same_images(first: ScoredImages, other: ScoredImages) -> None:
    """Check that two runs have the same images, files, patients, labels, policy and truth.

    Or the same studies, which may be scored from other views.

    Raises:
        UsageError: Something differs; the message says what.
    """
    require_same_policy(first.label_policy, other.label_policy, names=(first.name, other.name))
    require_same_level(first.units, other.units, names=(first.name, other.name))
    pair = f"{other.name} and {first.name} cannot be compared"
    if other.label_names != first.label_names:
        raise UsageError(
            f"{pair}: their labels are {', '.join(other.label_names)} and "
            f"{', '.join(first.label_names)}"
        )
    if not np.array_equal(other.ids, first.ids):
        only_one = np.setxor1d(other.ids, first.ids)
        noun = pluralize(first.units.level)
        raise UsageError(
            f"{pair}: they scored {len(other.ids)} {other.split} and {len(first.ids)} "
            f"{first.split} {noun}, {str(only_one[0])!r} in one of them only"
        )
    known = (first.sha256 != "") & (other.sha256 != "")
    for what, mine, theirs in (
        ("files", first.sha256[known], other.sha256[known]),
        ("patients", first.patients, other.patients),
        ("labels", first.truth, other.truth),
    ):
        if not np.array_equal(mine, theirs):
            noun = pluralize(first.units.level)
            raise UsageError(f"{pair}: the same {noun} have other {what}")


def _measure(
    scored: ScoredImages, learned: NDArray[np.bool_], samples: PatientResamples
) -> MetricArrays:
    """Return the metrics of the data, followed by those without each patient."""
    truth, probability = scored.truth[:, learned], scored.probability[:, learned]
    predicted = probability >= scored.thresholds[learned]
    return bootstrap_metrics(truth, predicted, probability, samples)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Pair:
    """What comparisons on the same images share.

    Attributes:
        labels: The C labels.
        in_macro: (C,) whether a label is in macro averages.
        supported: (C,) whether a label has enough patients.
        truth: (N, C) labels 1, 0 or -1 (unknown).
        patient_index: (N,) patient, or group of patients, that is left out together.
    """

    labels: Mapping[str, LabelPatients]
    in_macro: NDArray[np.bool_]
    supported: NDArray[np.bool_]
    truth: Labels
    patient_index: NDArray[np.intp]

    def compare(self, run: ScoredImages, first: MetricArrays, other: MetricArrays) -> RunComparison:
        """Return the differences of one run to the first."""
        pooled = self.truth.reshape(-1, 1)
        pooled_index = np.repeat(self.patient_index, self.truth.shape[1])
        test = _Test(
            degrees_of_freedom(pooled, pooled_index),
            patient_support(pooled, pooled_index).reason(0),
        )
        supported = self._macro(self.supported, first, other) if self.supported.any() else None
        all_supported = (self.supported == self.in_macro).all()
        return RunComparison(
            run=run.name,
            seed=run.seed,
            supported=supported,
            # The same objects, so that they get the same corrected p values.
            macro=supported
            if all_supported and supported
            else self._macro(self.in_macro, first, other),
            micro=test.compare_all(first.micro, other.micro),
            exact_match=test.compare(first.exact_match, other.exact_match),
            hamming_loss=test.compare(first.hamming_loss, other.hamming_loss),
            per_label={
                label: _Test(
                    degrees_of_freedom(self.truth[:, [c]], self.patient_index), support.no_interval
                ).compare_all(first.of_label(c), other.of_label(c))
                for c, (label, support) in enumerate(self.labels.items())
            },
        )

    def _macro(
        self, averaged: NDArray[np.bool_], first: MetricArrays, other: MetricArrays
    ) -> dict[str, MetricComparison]:
        """Compare means over some labels: always the same ones, whichever patient is left out."""
        n_few = int((averaged & ~self.supported).sum())
        test = _Test(
            degrees_of_freedom(self.truth[:, averaged], self.patient_index),
            f"too few patients in {n_few} of its {count_noun(int(averaged.sum()), 'label')}"
            if n_few
            else None,
        )
        means: tuple[dict[str, Floats], dict[str, Floats]] = ({}, {})
        for metric, values in first.per_label.items():
            both = [values[:, averaged], other.per_label[metric][:, averaged]]
            # Precision is undefined where nothing is predicted: both means are over the labels
            # for which it is defined in both runs.
            defined = ~np.isnan(both[0][0] + both[1][0])
            for mean, of_run in zip(means, both, strict=True):
                mean[metric] = ratio(of_run[:, defined].sum(axis=1), defined.sum(dtype=np.float64))
        return test.compare_all(*means)


@dataclass(frozen=True)
class _Test:
    """How differences are tested: degrees of freedom, or why they are not."""

    dof: float
    no_interval: str | None

    def compare_all(
        self, first: Mapping[str, Floats], other: Mapping[str, Floats]
    ) -> dict[str, MetricComparison]:
        return {
            name: self.compare(first[name], other[name], with_p=name == "auroc") for name in first
        }

    def compare(self, first: Floats, other: Floats, *, with_p: bool = False) -> MetricComparison:
        differences = other - first
        difference, error = float(differences[0]), standard_error(differences)
        reason = self.no_interval
        if np.isnan(difference):
            reason = reason or "it is undefined in one of the runs"
        elif np.isnan(error):
            reason = reason or "it is undefined without one of the patients"
        elif error < NO_ERROR:
            reason = reason or "the difference does not vary between patients"
        result = MetricComparison(
            first=none_if_nan(first[0]),
            run=none_if_nan(other[0]),
            difference=none_if_nan(differences[0]),
            no_interval=reason,
        )
        if reason is None:
            result.ci95 = t_interval(difference, error, self.dof, limits=(-1, 1))
            result.p = t_test(difference, error, self.dof) if with_p else None
        return result


def _correct_p_values(comparisons: Sequence[RunComparison], n_labels: int) -> dict[str, int]:
    """Set ``p_holm`` of every test, and return the number of tests in each family.

    Args:
        comparisons: One for each further run.
        n_labels: Number of labels with enough patients.
    """
    families = {
        "supported": [run.supported for run in comparisons if run.supported],
        "per_label": [label for run in comparisons for label in run.per_label.values()],
    }
    # The mean over a single label is that label: the two families are one.
    n_families = min(len(families), n_labels)
    n_tests = {}
    for name, members in families.items():
        tests = [member["auroc"] for member in members if member["auroc"].p is not None]
        n_tests[name] = len(tests)
        corrected = holm([test.p for test in tests if test.p is not None])
        for test, p in zip(tests, corrected, strict=True):
            test.p_holm = min(1.0, n_families * p)
    return n_tests


def _title(name: str, seed: str | None) -> str:
    return name if seed is None else f"{name}, {seed}"


def format_p(p: float | None) -> str:
    """Return a p value as text; a dash where there is none."""
    if p is None:
        return UNDEFINED
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _signed(metric: MetricComparison) -> str:
    if metric.difference is None:
        return "undefined"
    if metric.ci95 is None:
        return f"{metric.difference:+.3f} (no interval: {metric.no_interval})"
    low, high = metric.ci95
    p = "" if metric.p is None else f", p {format_p(metric.p)}"
    return f"{metric.difference:+.3f} [{low:+.3f}, {high:+.3f}]{p}"
