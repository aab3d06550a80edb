"""How well view, sex and age can be read from an embedding: what can be read can be a shortcut."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.audit.probe import cross_val_predict, grouped_folds
from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.ranking import auroc, ratio
from featurecache.metrics.similarity import Directions, normalize_rows
from featurecache.store.cache import Cache
from featurecache.store.records import from_utf8

FEWEST_PATIENTS: Final = 20
"""Of each value, or with a known age: with fewer, a fold would hold a handful of them."""


def shortcut_probes(cache: Cache, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure a linear probe for each attribute, on all images whose attribute is known.

    Predictions are of patients that the probe has not seen (``probe.cross_val_predict``);
    intervals are over patients and hold nothing of the chance in fitting and folds.

    Returns:
        ``view`` and ``sex``: of each value with ``FEWEST_PATIENTS`` patients, the ``auroc``
        against all other such values with its ``ci95``; of two values, only of the first in the
        alphabet, for the other's is the same. ``age``: ``r2`` and ``mae`` in years, with their
        ``ci95``, and ``mae_of_median``, what guessing the median age for everybody gives. Each
        with ``n`` and ``n_patients``; None where too little is known, or it is all the same.
    """
    gallery = normalize_rows(cache.embedding)
    return {
        "view": _category(gallery, cache.views, cache.patients, n_bootstrap=n_bootstrap, seed=seed),
        "sex": _category(
            gallery, from_utf8(cache.images.sex), cache.patients, n_bootstrap=n_bootstrap, seed=seed
        ),
        "age": _age(
            gallery, from_utf8(cache.images.age), cache.patients, n_bootstrap=n_bootstrap, seed=seed
        ),
    }


def _category(
    gallery: Directions,
    values: npt.NDArray[np.str_],
    patients: npt.NDArray[np.str_],
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any] | None:
    names = [
        str(name)
        for name in np.unique(values[values != ""])
        if len(np.unique(patients[values == name])) >= FEWEST_PATIENTS
    ]
    if len(names) < 2:
        return None
    rows = np.flatnonzero(np.isin(values, names))
    samples = resample_patients(patients[rows], n_bootstrap=n_bootstrap, seed=seed)
    figures = {}
    for name in names[:1] if len(names) == 2 else names:
        truth = (values[rows] == name).astype(np.int8)
        fold = grouped_folds(truth.astype(np.float64), patients[rows], seed=seed)
        score = cross_val_predict(gallery[rows], truth.astype(np.float64), fold)
        nothing = np.zeros((len(rows), 1), dtype=np.bool_)
        drawn = bootstrap_metrics(truth[:, np.newaxis], nothing, score[:, np.newaxis], samples)
        figures[name] = {
            "n": int(truth.sum()),
            "auroc": auroc(truth, score),
            "ci95": ci_or_none(drawn.per_label["auroc"][:, 0]),
        }
    return {"n": len(rows), "n_patients": samples.counts.shape[1], "values": figures}


def _age(
    gallery: Directions,
    values: npt.NDArray[np.str_],
    patients: npt.NDArray[np.str_],
    *,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any] | None:
    rows = np.flatnonzero(values != "")
    if len(np.unique(patients[rows])) < FEWEST_PATIENTS:
        return None
    age = values[rows].astype(np.float64)
    if (age == age[0]).all():
        return None
    fold = grouped_folds(age, patients[rows], seed=seed)
    missed = cross_val_predict(gallery[rows], age, fold) - age
    samples = resample_patients(patients[rows], n_bootstrap=n_bootstrap, seed=seed)
    once = PatientResamples(samples.patient_index, np.ones((1, samples.counts.shape[1]), np.int32))
    (r2,), (mae,) = _fit(age, missed, once)
    r2_drawn, mae_drawn = _fit(age, missed, samples)
    return {
        "n": len(rows),
        "n_patients": samples.counts.shape[1],
        "r2": none_if_nan(r2),
        "mae": none_if_nan(mae),
        "mae_of_median": float(np.abs(age - np.median(age)).mean()),
        "ci95": {"r2": ci_or_none(r2_drawn), "mae": ci_or_none(mae_drawn)},
    }


def _fit(
    target: npt.NDArray[np.float64], missed: npt.NDArray[np.float64], resamples: PatientResamples
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """R2 and mean absolute error in every draw, from sums by patient."""
    n, total, squares, errors, absolute = (
        resamples.counts.astype(np.float64) @ np.bincount(resamples.patient_index, values)
        for values in (
            np.ones(len(target)),
            target - target.mean(),
            (target - target.mean()) ** 2,
            missed**2,
            np.abs(missed),
        )
    )
    return 1 - ratio(errors, squares - total**2 / n), ratio(absolute, n)
