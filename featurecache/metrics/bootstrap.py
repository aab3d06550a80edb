"""Bootstrap over patients: what the metrics would be on other patients of the same kind.

Images of one patient resemble each other, so a draw resamples patients with replacement and takes
all their images along (the cluster bootstrap; Field and Welsh 2007). A draw is a vector of counts,
how often each patient is in it. Rows are never copied: along each ranking, a sparse matrix holds
how many of each patient's images lie in each bin, and one product with the counts gives the
histograms of many draws.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.metrics.multilabel import MetricArrays, metrics_from_counts
from featurecache.metrics.ranking import (
    AnyFloats,
    Floats,
    Labels,
    auroc_auprc_from_histogram,
    rank_histogram,
    ratio,
    valid_mask,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_DRAWS_AT_ONCE: Final = 512
_BLOCK: Final = 3 * 2**16
"""Entries of a block of histograms, float32: 0.75 MiB stay in the processor's cache."""


@dataclass(frozen=True)
class PatientResamples:
    """Bootstrap samples of patients; the same ones serve both sides of a paired comparison.

    Attributes:
        patient_of_row: (N,) the patient's number for each row, 0 to P - 1.
        counts: (draws, P) int32, how often each patient is in each draw.
    """

    patient_of_row: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int32]

    def row_counts(self) -> npt.NDArray[np.int32]:
        """(draws, N), how often each row is in each draw: the weights for any other metric."""
        return self.counts[:, self.patient_of_row]


def resample_patients(
    patients: Sequence[Any] | npt.NDArray[Any], *, n_bootstrap: int, seed: int
) -> PatientResamples:
    """Resample patients with replacement, as many as there are.

    The draws depend on the set of patients and the seed, not on the order of the rows.

    Args:
        patients: (N,) the patient of each row, as text or numbers.
        n_bootstrap: number of bootstrap samples; 0 gives none.
        seed: of numpy's default generator.

    Raises:
        ValueError: a row has no patient (None, NaN or empty), or draws is negative.
    """
    if n_bootstrap < 0:
        raise ValueError(f"the number of bootstrap samples must be 0 or more, not {n_bootstrap}")
    nameless = [i for i, name in enumerate(patients) if name is None or name != name or name == ""]
    if nameless:
        raise ValueError(
            f"{len(nameless)} rows have no patient, row {nameless[0]} the first: a bootstrap over"
            " patients needs one for each row (the image's own id, if patients are unknown)"
        )
    # As text, whole numbers and their spellings are the same patient in every caller's frame.
    names, patient_of_row = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.empty((n_bootstrap, len(names)), dtype=np.int32)
    for draw in counts:
        draw[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    return PatientResamples(patient_of_row=patient_of_row, counts=counts)


def bootstrap_metrics(
    truth: Labels, predicted: npt.NDArray[np.bool_], ranking: AnyFloats, resamples: PatientResamples
) -> MetricArrays:
    """Every metric in every draw, with leading axis (draws,).

    On both sides of a paired comparison, give the same draws and take the `interval` of the
    difference of two metrics.

    Args:
        truth: (N, C) labels 1, 0 or -1.
        predicted: (N, C) decisions.
        ranking: (N, C) scores for AUROC and AUPRC.
        n_bootstrap: of the patients of the N rows.

    Raises:
        ValueError: shapes differ, a score is NaN, or a label is none of 1, 0 and -1.
    """
    if len(resamples.patient_of_row) != len(truth):
        raise ValueError(
            f"the resamples are of {len(resamples.patient_of_row)} rows, the labels of {len(truth)}"
        )
    n_labels = truth.shape[1]
    # The longest, that of all labels together, begins.
    columns = [list(range(n_labels)), *([c] for c in range(n_labels))]
    tallies = _patients_by_cell(truth, predicted, resamples)
    areas = np.empty((2, n_labels + 1, len(resamples.counts)))
    totals = np.empty((len(tallies), len(resamples.counts)))
    # numpy and scipy let go of the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bins = list(
            pool.map(lambda of: _patients_by_bin(truth[:, of], ranking[:, of], resamples), columns)
        )
        for start in range(0, len(resamples.counts), _DRAWS_AT_ONCE):
            chunk = slice(start, start + _DRAWS_AT_ONCE)
            counts = np.ascontiguousarray(resamples.counts[chunk].T, dtype=np.float64)
            totals[:, chunk] = tallies @ counts
            drawn = partial(_areas_of_draws, counts=counts.astype(np.float32))
            areas[:, :, chunk] = np.stack(list(pool.map(drawn, bins)), axis=1)
    *confusions, right, complete = totals
    auroc, auprc = areas
    return metrics_from_counts(
        confusions=np.stack(confusions, axis=1).reshape(-1, n_labels, 2, 2),
        auroc=auroc[1:].T,
        auprc=auprc[1:].T,
        micro_auroc=auroc[0],
        micro_auprc=auprc[0],
        exact_match=ratio(right, complete),
    )


def interval(values: Floats) -> tuple[float, float] | None:
    """The 95 % percentile interval of a metric's bootstrap values.

    Draws in which the metric is undefined are left out.

    Args:
        values: (draws,), NaN where undefined.

    Returns:
        The 2.5th and 97.5th percentiles; None if fewer than half of the draws are defined, or
        there are no draws.
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def ci_or_none(values: Floats) -> list[float] | None:
    """The 95 % interval of a figure's draws, as JSON has it."""
    bounds = interval(values)
    return None if bounds is None else list(bounds)


def none_if_nan(value: Floats) -> float | None:
    """A figure as JSON has it; undefined is None."""
    return None if np.isnan(value) else float(value)


def _patients_by_bin(
    truth: Labels, ranking: AnyFloats, resamples: PatientResamples
) -> "list[csr_array]":
    """(bins, P), how many entries each patient has in each bin of the ranking of all entries.

    In blocks of bins, from the ranking's top.
    """
    from scipy.sparse import csr_array

    bins, n_bins = rank_histogram(truth, ranking)
    known = bins >= 0
    patients = np.broadcast_to(resamples.patient_of_row[:, np.newaxis], bins.shape)[known]
    shape = (n_bins, resamples.counts.shape[1])
    # float32 counts to 2^24, and no draw has sixteen times the entries that there are.
    ones = np.ones(len(patients), dtype=np.float32 if len(patients) < 2**20 else np.float64)
    matrix = csr_array((ones, (bins[known], patients)), shape=shape)
    at_once = 3 * (_BLOCK // 3 // max(1, min(len(resamples.counts), _DRAWS_AT_ONCE)))
    return [matrix[start : start + at_once] for start in range(0, n_bins, at_once)]


def _areas_of_draws(blocks: "Sequence[csr_array]", counts: npt.NDArray[np.float32]) -> Floats:
    """(2, draws), AUROC and AUPRC of draws, from counts (P, draws)."""
    # The histograms of a block at a time: all of them at once would be large.
    return np.stack(auroc_auprc_from_histogram(bins @ counts for bins in blocks))


def _patients_by_cell(
    truth: Labels, predicted: npt.NDArray[np.bool_], resamples: PatientResamples
) -> Floats:
    """(4 C + 2, P) rows of each patient: tn, fp, fn, tp by label; all right; all known."""
    known = valid_mask(truth, predicted)
    cells = [
        known[:, c] & (truth[:, c] == t) & (predicted[:, c] == p)
        for c in range(truth.shape[1])
        for t in (0, 1)
        for p in (0, 1)
    ]
    all_right = (truth == predicted).all(axis=1)  # an unknown -1 equals no prediction
    masks = [*cells, all_right, known.all(axis=1)]
    n_patients = resamples.counts.shape[1]
    return np.stack([np.bincount(resamples.patient_of_row, mask, n_patients) for mask in masks])
