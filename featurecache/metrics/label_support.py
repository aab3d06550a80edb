"""Label support: how many patients carry a label, and whether they are enough to measure it.

One rule for every interval, p value and calibration: a label needs ``MIN_PATIENTS`` patients with a
positive image and as many with a negative one. With fewer, the value is undefined and the reason is
given. Patients count, not images, because several images of a patient resemble each other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.ranking import Labels

MIN_PATIENTS: Final = 5
"""Patients with a positive image, and with a negative one, that a label needs."""

IN_VALIDATION: Final = "in the validation split, "
"""Start of the reason why too few patients support what is fitted on validation images."""

NOT_LEARNED: Final = "it was not learned: no training image is positive, or none is negative"


@dataclass(frozen=True)
class PatientSupport:
    """Numbers of patients behind each of C labels.

    Attributes:
        positive: (C,) number of patients with a positive image.
        negative: (C,) number of patients with a negative image. A patient may be in both.
    """

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]

    @property
    def enough(self) -> NDArray[np.bool_]:
        """(C,) whether the label has enough patients of both kinds."""
        enough: NDArray[np.bool_] = np.minimum(self.positive, self.negative) >= MIN_PATIENTS
        return enough

    def reason(self, column: int, *, at_least: int = MIN_PATIENTS) -> str | None:
        """Return why fewer than ``at_least`` patients support a label; None where enough do."""
        for count, kind in (
            (int(self.positive[column]), "a positive"),
            (int(self.negative[column]), "a negative"),
        ):
            if count < at_least:
                few = {0: "no patient has", 1: "only 1 patient has"}
                patients = few.get(count, f"only {count} patients have")
                return f"{patients} {kind} image, and at least {at_least} are needed"
        return None


def patient_support(truth: Labels, patient_index: NDArray[np.intp]) -> PatientSupport:
    """Count the patients with a positive and with a negative image of each label.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        patient_index: (N,) index of each row's patient, 0 or more.

    Returns:
        The numbers of patients.
    """
    n_patients = patient_index.max(initial=-1) + 1

    def count(value: int) -> NDArray[np.intp]:
        rows, columns = np.nonzero(truth == value)
        # A patient counts once per label, however many images it has.
        has_image = np.zeros((n_patients, truth.shape[1]), dtype=np.bool_)
        has_image[patient_index[rows], columns] = True
        n_with_image: NDArray[np.intp] = has_image.sum(axis=0)
        return n_with_image

    return PatientSupport(count(1), count(0))
