"""Shortcut probes: how well view, sex and age can be predicted from the embeddings.

An attribute that can be predicted can serve as a shortcut for a label that is correlated with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.audit.probe import MIN_PATIENTS, cross_val_predict, grouped_folds
from featurecache.metrics.bootstrap import PatientResamples, none_if_nan, resample_patients
from featurecache.metrics.jackknife import degrees_of_freedom, leave_one_out, mean_interval
from featurecache.metrics.ranking import ratio
from featurecache.metrics.sampled_metrics import MeanMetrics, sample_metrics
from featurecache.metrics.similarity import Directions, normalize_rows
from featurecache.progress import DetailedProgress
from featurecache.store.cache import Cache
from featurecache.store.records import from_utf8

_Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class ValueScore:
    """How well one value of an attribute is separated from all others.

    Attributes:
        n: Number of images with this value.
        auroc: AUROC against all other values.
        ci95: Interval of the AUROC over patients.
    """

    n: int
    auroc: float
    ci95: _Bounds


@dataclass(frozen=True)
class CategoryProbe:
    """A probe for a categorical attribute.

    Attributes:
        n: Number of images whose value is known and common enough.
        n_patients: Number of their patients.
        values: Scores by value. Of two values only the alphabetically first is listed, since the
            score of the other is the same.
    """

    n: int
    n_patients: int
    values: Mapping[str, ValueScore]

    @property
    def highest_auroc(self) -> float:
        """The AUROC of the value that is easiest to predict."""
        return max(score.auroc for score in self.values.values())


@dataclass(frozen=True)
class AgeIntervals:
    """Intervals over patients."""

    r2: _Bounds
    mae: _Bounds


@dataclass(frozen=True)
class AgeProbe:
    """A probe for age.

    Attributes:
        n: Number of images of known age.
        n_patients: Number of their patients.
        r2: Coefficient of determination.
        mae: Mean absolute error in years.
        mae_of_median: Mean absolute error of predicting the median age for all images.
        ci95: Intervals over patients.
    """

    n: int
    n_patients: int
    r2: float | None
    mae: float | None
    mae_of_median: float
    ci95: AgeIntervals


@dataclass(frozen=True)
class Shortcuts:
    """Probes by attribute; None where too few values are known, or all are equal."""

    view: CategoryProbe | None
    sex: CategoryProbe | None
    age: AgeProbe | None

    def categories(self) -> list[tuple[str, CategoryProbe]]:
        """Return the probes for categorical attributes that could be fitted, by name."""
        probes = {"view": self.view, "sex": self.sex}
        return [(name, probe) for name, probe in probes.items() if probe is not None]


def shortcut_probes(
    cache: Cache,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: DetailedProgress | None = None,
) -> Shortcuts:
    """Fit a linear probe for view, sex and age to all images for which it is known.

    Predictions are for patients that the probe was not fitted to (``probe.cross_val_predict``).
    Intervals are over patients: score intervals of the AUROC, as for all metrics of labels, and a
    jackknife for age. They do not include the randomness of fitting and folds.

    Args:
        cache: The cache.
        n_bootstrap: Number of bootstrap samples of patients for the intervals of AUROC; 0 for none.
        seed: Seed of the folds and of the bootstrap.
        progress: Called before the first probe and after each.

    Returns:
        The probes.
    """

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 3, "predict view, sex and age")

    report(0)
    embeddings = normalize_rows(cache.embedding)
    sexes, ages = from_utf8(cache.images.sex), from_utf8(cache.images.age)

    def probe(values: NDArray[np.str_]) -> CategoryProbe | None:
        return _probe_category(
            embeddings, values, cache.patients, n_bootstrap=n_bootstrap, seed=seed
        )

    view = probe(cache.views)
    report(1)
    sex = probe(sexes)
    report(2)
    age = _probe_age(embeddings, ages, cache.patients, seed=seed)
    report(3)
    return Shortcuts(view, sex, age)


def _probe_category(
    embeddings: Directions,
    values: NDArray[np.str_],
    patients: NDArray[np.str_],
    *,
    n_bootstrap: int,
    seed: int,
) -> CategoryProbe | None:
    names = [
        str(name)
        for name in np.unique(values[values != ""])
        if len(np.unique(patients[values == name])) >= MIN_PATIENTS
    ]
    if len(names) < 2:
        return None
    rows = np.flatnonzero(np.isin(values, names))
    resamples = resample_patients(patients[rows], n_bootstrap=n_bootstrap, seed=seed)
    scores = {}
    for name in names[:1] if len(names) == 2 else names:
        truth = (values[rows] == name).astype(np.int8)
        scores[name] = score_value(embeddings[rows], truth, patients[rows], resamples, seed=seed)
    return CategoryProbe(n=len(rows), n_patients=resamples.counts.shape[1], values=scores)


def score_value(
    embeddings: Directions,
    truth: NDArray[np.int8],
    patients: NDArray[np.str_],
    resamples: PatientResamples,
    *,
    seed: int,
) -> ValueScore:
    """Return how well a linear probe separates images of unseen patients that have a value.

    Args:
        embeddings: (N, D).
        truth: (N,) 1 for images with the value, 0 for others; both occur.
        patients: (N,) patient of each image.
        resamples: Bootstrap samples of the patients of these rows.
        seed: Seed of the folds.
    """
    fold = grouped_folds(truth.astype(np.float64), patients, seed=seed)
    score = cross_val_predict(embeddings, truth.astype(np.float64), fold)
    decisions = np.zeros((len(truth), 1), dtype=np.bool_)  # only the ranking matters
    sampled = sample_metrics(
        truth[:, np.newaxis], decisions, score[:, np.newaxis], resamples, np.array([True])
    )
    estimate = MeanMetrics([sampled]).label("auroc", 0)
    auroc = float(sampled.arrays.per_label["auroc"][0, 0])
    return ValueScore(n=int(truth.sum()), auroc=auroc, ci95=estimate.ci95)


def _probe_age(
    embeddings: Directions, values: NDArray[np.str_], patients: NDArray[np.str_], *, seed: int
) -> AgeProbe | None:
    rows = np.flatnonzero(values != "")
    if len(np.unique(patients[rows])) < MIN_PATIENTS:
        return None
    age = values[rows].astype(np.float64)
    if (age == age[0]).all():
        return None
    fold = grouped_folds(age, patients[rows], seed=seed)
    errors = cross_val_predict(embeddings[rows], age, fold) - age
    samples = leave_one_out(patients[rows])
    r2, mae = _regression_metrics(age, errors, samples)
    dof = degrees_of_freedom(np.ones((len(rows), 1), dtype=np.int8), samples.patient_index)
    return AgeProbe(
        n=len(rows),
        n_patients=len(np.unique(patients[rows])),
        r2=none_if_nan(r2[0]),
        mae=none_if_nan(mae[0]),
        mae_of_median=float(np.abs(age - np.median(age)).mean()),
        ci95=AgeIntervals(
            r2=mean_interval(r2[np.newaxis], dof, limits=(-np.inf, 1)),
            mae=mean_interval(mae[np.newaxis], dof, limits=(0, np.inf)),
        ),
    )


def _regression_metrics(
    target: NDArray[np.float64], errors: NDArray[np.float64], resamples: PatientResamples
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute R2 and the mean absolute error of B samples of the patients, (B,) each."""
    centered = target - target.mean()
    n, total, squares, squared_errors, absolute_errors = (
        resamples.counts.astype(np.float64) @ np.bincount(resamples.patient_index, values)
        for values in (np.ones(len(target)), centered, centered**2, errors**2, np.abs(errors))
    )
    return 1 - ratio(squared_errors, squares - total**2 / n), ratio(absolute_errors, n)
