"""What is scored: rows of a data set, and which of them are for learning, choosing and scoring."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SplitData:
    """Rows of a data set with what is needed to score predictions of them.

    Attributes:
        truth: (N, C) int8 of 1, 0, -1 unknown.
        label_names: the C labels.
        patient: (N,) whom each image is of.
        view: (N,) "AP", "PA" or the like; empty where not known.
        train: rows that a head learned from; empty for zero-shot.
        val: rows that thresholds may be chosen on.
        test: rows that the figures are of.
        learned: (C,) labels that could be learned; figures of the others are undefined, and no
            average counts them.
    """

    truth: NDArray[np.int8]
    label_names: tuple[str, ...]
    patient: NDArray[np.str_]
    view: NDArray[np.str_]
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    test: NDArray[np.intp]
    learned: NDArray[np.bool_]

    @property
    def scored(self) -> tuple[str, NDArray[np.intp]]:
        """The split that the figures are of, and its rows: test, or validation without test."""
        return ("test", self.test) if len(self.test) else ("val", self.val)
