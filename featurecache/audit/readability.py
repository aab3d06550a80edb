"""How well view, sex and age can be read from an embedding: what can be read can be a shortcut."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.audit.probe import deal_folds, held_out_predictions
from featurecache.scoring.bootstrap import PatientDraws, draw_patients, measure_draws
from featurecache.scoring.metrics import auroc, ratio
from featurecache.scoring.search import Directions, gallery_of
from featurecache.scoring.summary import bounds_or_none, number_or_none
from featurecache.store.contents import from_utf8
from featurecache.store.reader import Cache

FEWEST_PATIENTS: Final = 20
"""Of each value, or with a known age: with fewer, a fold would hold a handful of them."""


def readability(cache: Cache, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure a linear probe for each attribute, on all images whose attribute is known.

    Predictions are of patients that the probe has not seen (``probe.held_out_predictions``);
    intervals are over patients and hold nothing of the chance in fitting and folds.

    Returns:
        ``view`` and ``sex``: of each value with ``FEWEST_PATIENTS`` patients, the ``auroc``
        against all other such values with its ``ci95``; of two values, only of the first in the
        alphabet, for the other's is the same. ``age``: ``r2`` and ``mae`` in years, with their
        ``ci95``, and ``mae_of_median``, what guessing the median age for everybody gives. Each
        with ``n`` and ``n_patients``; None where too little is known, or it is all the same.
    """
    gallery = gallery_of(cache.embedding)
    return {
        "view": _category(gallery, cache.views, cache.patients, draws=draws, seed=seed),
        "sex": _category(
            gallery, from_utf8(cache.images.sex), cache.patients, draws=draws, seed=seed
        ),
        "age": _age(gallery, from_utf8(cache.images.age), cache.patients, draws=draws, seed=seed),
    }


def _category(
    gallery: Directions,
    values: npt.NDArray[np.str_],
    patients: npt.NDArray[np.str_],
    *,
    draws: int,
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
    samples = draw_patients(patients[rows], draws=draws, seed=seed)
    figures = {}
    for name in names[:1] if len(names) == 2 else names:
        truth = (values[rows] == name).astype(np.int8)
        fold = deal_folds(truth.astype(np.float64), patients[rows], seed=seed)
        score = held_out_predictions(gallery[rows], truth.astype(np.float64), fold)
        nothing = np.zeros((len(rows), 1), dtype=np.bool_)
        drawn = measure_draws(truth[:, np.newaxis], nothing, score[:, np.newaxis], samples)
        figures[name] = {
            "n": int(truth.sum()),
            "auroc": auroc(truth, score),
            "ci95": bounds_or_none(drawn.per_label["auroc"][:, 0]),
        }
    return {"n": len(rows), "n_patients": samples.counts.shape[1], "values": figures}


def _age(
    gallery: Directions,
    values: npt.NDArray[np.str_],
    patients: npt.NDArray[np.str_],
    *,
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    rows = np.flatnonzero(values != "")
    if len(np.unique(patients[rows])) < FEWEST_PATIENTS:
        return None
    age = values[rows].astype(np.float64)
    if (age == age[0]).all():
        return None
    fold = deal_folds(age, patients[rows], seed=seed)
    missed = held_out_predictions(gallery[rows], age, fold) - age
    samples = draw_patients(patients[rows], draws=draws, seed=seed)
    once = PatientDraws(samples.patient_of_row, np.ones((1, samples.counts.shape[1]), np.int32))
    (r2,), (mae,) = _fit(age, missed, once)
    r2_drawn, mae_drawn = _fit(age, missed, samples)
    return {
        "n": len(rows),
        "n_patients": samples.counts.shape[1],
        "r2": number_or_none(r2),
        "mae": number_or_none(mae),
        "mae_of_median": float(np.abs(age - np.median(age)).mean()),
        "ci95": {"r2": bounds_or_none(r2_drawn), "mae": bounds_or_none(mae_drawn)},
    }


def _fit(
    target: npt.NDArray[np.float64], missed: npt.NDArray[np.float64], draws: PatientDraws
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """R2 and mean absolute error in every draw, from sums by patient."""
    n, total, squares, errors, absolute = (
        draws.counts.astype(np.float64) @ np.bincount(draws.patient_of_row, values)
        for values in (
            np.ones(len(target)),
            target - target.mean(),
            (target - target.mean()) ** 2,
            missed**2,
            np.abs(missed),
        )
    )
    return 1 - ratio(errors, squares - total**2 / n), ratio(absolute, n)
