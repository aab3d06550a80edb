"""Patient bootstrap: confidence intervals that account for several images per patient.

Images of one patient resemble each other, so each bootstrap sample draws patients with replacement
and takes all images of each (the cluster bootstrap; Field and Welsh 2007). A sample is stored as
the number of times that each patient occurs in it. Rows are never copied: for each ranking, a
sparse matrix holds how many images of each patient fall into each histogram bin, and one product
with the counts yields the histograms of many bootstrap samples.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

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
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_SAMPLES_PER_CHUNK: Final = 512
_BLOCK_SIZE: Final = 3 * 2**16
"""Float32 values in a block of histograms: 0.75 MiB, which fits into the processor's cache."""


@dataclass(frozen=True)
class PatientResamples:
    """B bootstrap samples of P patients, shared by both sides of a paired comparison.

    Attributes:
        patient_index: (N,) index of each row's patient, 0 to P - 1.
        counts: (B, P) int32, how often each patient occurs in each bootstrap sample.
    """

    patient_index: NDArray[np.intp]
    counts: NDArray[np.int32]

    def row_counts(self) -> NDArray[np.int32]:
        """Return how often each row occurs in each sample, (B, N): weights for any metric."""
        return self.counts[:, self.patient_index]

    def with_data(self) -> "PatientResamples":
        """Return the samples with the data themselves in front: each patient once."""
        data = np.ones((1, self.counts.shape[1]), dtype=np.int32)
        return replace(self, counts=np.concatenate([data, self.counts]))


def resample_patients(
    patients: Sequence[Any] | NDArray[Any], *, n_bootstrap: int, seed: int
) -> PatientResamples:
    """Resample P patients with replacement, P at a time.

    The samples depend on the set of patients and the seed, not on the order of the rows.

    Args:
        patients: (N,) patient of each row, as strings or numbers.
        n_bootstrap: Number of bootstrap samples; 0 gives none.
        seed: Seed of NumPy's default generator.

    Returns:
        The bootstrap samples.

    Raises:
        ValueError: A row has no patient (None, NaN or empty), or ``n_bootstrap`` is negative.
    """
    if n_bootstrap < 0:
        raise ValueError(f"`n_bootstrap` must be 0 or more, not {n_bootstrap}")
    missing = [
        row for row, name in enumerate(patients) if name is None or name != name or name == ""
    ]
    if missing:
        raise ValueError(
            f"{count_noun(len(missing), 'row has', 'rows have')} no patient (first: row "
            f"{missing[0]}): give one for every row, or the image's own id where patients are "
            "unknown"
        )
    # As text, so that 7 and "7" are one patient, whichever way a caller's table was read.
    names, patient_index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.empty((n_bootstrap, len(names)), dtype=np.int32)
    for row in counts:
        row[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    return PatientResamples(patient_index=patient_index, counts=counts)


def bootstrap_metrics(
    truth: Labels, predicted: NDArray[np.bool_], ranking: AnyFloats, resamples: PatientResamples
) -> MetricArrays:
    """Compute every metric on every bootstrap sample.

    For a paired comparison, use the same ``resamples`` for both models and take the ``interval``
    of the difference of their metrics.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions.
        ranking: (N, C) scores for AUROC and AUPRC.
        resamples: Bootstrap samples of the patients of the N rows.

    Returns:
        The metrics, with a leading axis of length B.

    Raises:
        ValueError: Shapes differ, a score is NaN, or a label is not 1, 0 or -1.
    """
    if len(resamples.patient_index) != len(truth):
        raise ValueError(
            f"the bootstrap samples are of {len(resamples.patient_index)} rows, but there are "
            f"labels for {len(truth)}"
        )
    n_labels = truth.shape[1]
    # The pooled ranking takes longest, so it starts first.
    columns = [list(range(n_labels)), *([c] for c in range(n_labels))]
    tallies = _tally_decisions(truth, predicted, resamples)
    areas = np.empty((2, n_labels + 1, len(resamples.counts)))
    totals = np.empty((len(tallies), len(resamples.counts)))
    # NumPy and SciPy release the GIL here.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        histograms = list(
            pool.map(lambda c: _patient_histograms(truth[:, c], ranking[:, c], resamples), columns)
        )
        for start in range(0, len(resamples.counts), _SAMPLES_PER_CHUNK):
            chunk = slice(start, start + _SAMPLES_PER_CHUNK)
            counts = np.ascontiguousarray(resamples.counts[chunk].T, dtype=np.float64)
            totals[:, chunk] = tallies @ counts
            resampled_areas = partial(_areas, counts=counts.astype(np.float32))
            areas[:, :, chunk] = np.stack(list(pool.map(resampled_areas, histograms)), axis=1)
    *confusions, n_exact, n_complete = totals
    auroc, auprc = areas
    return metrics_from_counts(
        confusions=np.stack(confusions, axis=1).reshape(-1, n_labels, 2, 2),
        auroc=auroc[1:].T,
        auprc=auprc[1:].T,
        micro_auroc=auroc[0],
        micro_auprc=auprc[0],
        exact_match=ratio(n_exact, n_complete),
    )


def patient_confusions(
    truth: Labels, predicted: NDArray[np.bool_], resamples: PatientResamples
) -> Floats:
    """Return the confusion matrix of each label over the rows of each patient.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions.
        resamples: Bootstrap samples of the patients of the N rows.

    Returns:
        (P, C, 2, 2), [[tn, fp], [fn, tp]].
    """
    valid = valid_mask(truth, predicted)
    n_patients = resamples.counts.shape[1]
    cells = [
        np.bincount(
            resamples.patient_index,
            valid[:, c] & (truth[:, c] == t) & (predicted[:, c] == p),
            n_patients,
        )
        for c in range(truth.shape[1])
        for t in (0, 1)
        for p in (0, 1)
    ]
    counts = np.stack(cells, axis=1).astype(np.float64)
    return counts.reshape(n_patients, truth.shape[1], 2, 2)


def interval(values: Floats) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of a metric's bootstrap values.

    Samples in which the metric is undefined are left out.

    Args:
        values: (B,), NaN where undefined.

    Returns:
        The 2.5th and 97.5th percentiles; None if fewer than half of the values are defined, or
        there are none.
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def none_if_nan(value: Floats) -> float | None:
    """Return a metric as a JSON value: None where it is undefined."""
    return None if np.isnan(value) else float(value)


def _patient_histograms(
    truth: Labels, ranking: AnyFloats, resamples: PatientResamples
) -> "list[csr_array]":
    """Count the entries of each patient in each bin of the ranking, (bins, P).

    Returns:
        The matrix in blocks of consecutive bins, from the top of the ranking.
    """
    from scipy.sparse import csr_array

    bins, n_bins = rank_histogram(truth, ranking)
    valid = bins >= 0
    patients = np.broadcast_to(resamples.patient_index[:, np.newaxis], bins.shape)[valid]
    shape = (n_bins, resamples.counts.shape[1])
    # float32 counts exactly up to 2^24; no sample holds 16 times as many entries as the data.
    ones = np.ones(len(patients), dtype=np.float32 if len(patients) < 2**20 else np.float64)
    matrix = csr_array((ones, (bins[valid], patients)), shape=shape)
    step = 3 * (_BLOCK_SIZE // 3 // max(1, min(len(resamples.counts), _SAMPLES_PER_CHUNK)))
    return [matrix[start : start + step] for start in range(0, n_bins, step)]


def _areas(blocks: "Sequence[csr_array]", counts: NDArray[np.float32]) -> Floats:
    """Compute AUROC and AUPRC, (2, B), from histograms by patient and counts (P, B)."""
    # One block of histograms at a time: all of them would need a lot of memory.
    return np.stack(auroc_auprc_from_histogram(bins @ counts for bins in blocks))


def _tally_decisions(
    truth: Labels, predicted: NDArray[np.bool_], resamples: PatientResamples
) -> Floats:
    """Count rows by patient, (4 C + 2, P).

    Returns:
        tn, fp, fn, tp of each label; rows with every label right; rows with every label known.
    """
    confusions = patient_confusions(truth, predicted, resamples)
    cells = confusions.reshape(len(confusions), 4 * truth.shape[1]).T
    exact = (truth == predicted).all(axis=1)  # an unknown label (-1) equals no prediction
    masks = (exact, (truth >= 0).all(axis=1))
    counts = [np.bincount(resamples.patient_index, mask, len(confusions)) for mask in masks]
    return np.stack([*cells, *counts])
