"""Leave-one-patient-out jackknife: standard errors, and t intervals and tests from them.

Intervals and p values of paired differences come from here. A percentile bootstrap reports
differences that are not there when few patients are positive, and its p values cannot be smaller
than one over the number of samples. The jackknife needs no random numbers and applies to every
metric. Of an AUROC it is the variance of DeLong et al. (1988), larger by k / (k - 1) for k
positives, and that of Obuchowski (1997) with several images per patient.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import PatientResamples, resample_patients
from featurecache.metrics.label_support import MIN_PATIENTS
from featurecache.metrics.ranking import Floats, Labels

MAX_GROUPS: Final = 1000
"""With more patients than this, random groups of them are left out together, to save time."""
NO_ERROR: Final = 1e-9
"""Standard errors below this are rounding errors of zero."""


def leave_one_out(patients: Sequence[Any] | NDArray[Any]) -> PatientResamples:
    """Return the data, and the data without each patient (or group of patients) in turn.

    Args:
        patients: (N,) patient of each row, as strings or numbers.

    Returns:
        1 + G samples of G patients or groups: the first has all of them.

    Raises:
        ValueError: A row has no patient (None, NaN or empty).
    """
    index = resample_patients(patients, n_bootstrap=0, seed=0).patient_index
    n_patients = int(index.max()) + 1
    if n_patients > MAX_GROUPS:
        groups = np.random.default_rng(0).permutation(n_patients) % MAX_GROUPS
        index, n_patients = groups[index], MAX_GROUPS
    counts = 1 - np.eye(1 + n_patients, n_patients, k=-1, dtype=np.int32)
    return PatientResamples(patient_index=index, counts=counts)


def standard_error(values: Floats) -> float:
    """Return the jackknife's standard error (Efron and Stein 1981).

    Args:
        values: (1 + G,) statistic of the samples of `leave_one_out`.

    Returns:
        The standard error; NaN if the statistic is undefined on one of the samples.
    """
    n_groups = len(values) - 1
    return float(np.sqrt((n_groups - 1) / n_groups * ((values[1:] - values[0]) ** 2).sum()))


def degrees_of_freedom(truth: Labels, patient_index: NDArray[np.intp]) -> float:
    """Return the effective number of patients behind a mean over labels, minus one, at least 4.

    A patient's weight is the sum of the squared shares that it has in the positive and in the
    negative images of each label: were all patients equally variable, its part of the variance
    (Satterthwaite 1946; the effective sample size of Kish 1965). For one label that is about the
    number of positive patients where those are few and have equally many images, and less where
    some have most of them. It is at least ``MIN_PATIENTS - 1``, that of the fewest patients that an
    interval is given for: below, the quantile of Student's t grows much faster than the error of
    the standard error, and intervals say nothing (docs/engineering/statistics.md).

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        patient_index: (N,) index of each row's patient, or group of patients.
    """
    weights = np.zeros(int(patient_index.max()) + 1)
    for column in truth.T:
        for value in (0, 1):
            images = np.bincount(patient_index, column == value, minlength=len(weights))
            weights += (images / max(1, images.sum())) ** 2
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return max(effective, MIN_PATIENTS) - 1


def mean_interval(
    values: Floats, dof: float, *, limits: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over trainings, over patients and trainings.

    The variance is the jackknife's of the mean, plus that of the trainings' values: with both
    patients and trainings at random it is never too small (Owen 2007).

    Args:
        values: (S, 1 + G) statistic of each training on the samples of `leave_one_out`.
        dof: Degrees of freedom of the patients.
        limits: Smallest and largest possible value.

    Returns:
        The interval; None if the statistic is undefined on one of the samples, or does not vary.
    """
    mean, n_trainings = values.mean(axis=0), len(values)
    variances = [standard_error(mean) ** 2]
    dofs = [dof]
    if n_trainings > 1:
        variances.append(float(values[:, 0].var(ddof=1)) / n_trainings)
        dofs.append(n_trainings - 1)
    variance = sum(variances)
    if not variance > NO_ERROR**2:
        return None
    satterthwaite = variance**2 / sum(v**2 / n for v, n in zip(variances, dofs, strict=True))
    return t_interval(float(mean[0]), variance**0.5, satterthwaite, limits=limits)


def t_interval(
    estimate: float, error: float, dof: float, *, limits: tuple[float, float]
) -> tuple[float, float]:
    """Return the 95 % interval of Student's t distribution, cut at the limits of the statistic."""
    from scipy.special import stdtrit

    half = float(stdtrit(dof, 0.975)) * error
    low, high = np.clip([estimate - half, estimate + half], *limits).tolist()
    return low, high


def t_test(estimate: float, error: float, dof: float) -> float:
    """Return the two-sided p value of Student's t test that the statistic is zero."""
    from scipy.special import stdtr

    return 2 * float(stdtr(dof, -abs(estimate) / error))
