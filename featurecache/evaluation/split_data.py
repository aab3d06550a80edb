"""The labels, patients and splits that predictions are evaluated on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.runs.predictions import Predictions
from featurecache.units import IMAGE


def choose_scored(rows: Mapping[str, NDArray[np.intp]]) -> tuple[str, NDArray[np.intp]]:
    """Return the split that is scored by default, and its rows.

    Args:
        rows: The rows of "test", and those of "val", which are scored where there is no test split.
    """
    split = "test" if len(rows["test"]) else "val"
    return split, rows[split]


@dataclass(frozen=True)
class SplitData:
    """Labels and patients of a data set, and the rows of each split.

    Attributes:
        truth: Labels of shape (N, C), int8: 1, 0, or -1 for unknown.
        label_names: The C label names.
        patient: Patient of each row, shape (N,).
        view: View position of each row, such as "AP" or "PA", shape (N,); empty where unknown.
        train: Rows that were learned from; empty for zero-shot.
        val: Rows that thresholds may be chosen on.
        test: Rows to score.
        learned: Shape (C,); whether training had positives and negatives of the label. Metrics of
            the others are undefined, and averages leave them out.
        patients_known: Whether patients are known; if not, each image counts as its own patient.
        level: What a row is: "image" or "study".
    """

    truth: NDArray[np.int8]
    label_names: tuple[str, ...]
    patient: NDArray[np.str_]
    view: NDArray[np.str_]
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    test: NDArray[np.intp]
    learned: NDArray[np.bool_]
    patients_known: bool = True
    level: str = IMAGE

    @property
    def scored(self) -> tuple[str, NDArray[np.intp]]:
        """The split that is scored and its rows: test, or validation where there is no test."""
        return choose_scored({"val": self.val, "test": self.test})

    def predictions(
        self,
        probability: NDArray[np.float64],
        *,
        ids: NDArray[np.str_],
        studies: NDArray[np.str_],
        splits: NDArray[np.str_],
        sha256: NDArray[np.str_],
    ) -> Predictions:
        """Return the predictions of the validation rows, then the test rows.

        Args:
            probability: Probabilities of shape (N, C); those of labels that were not learned are
                left out.
            ids: Id of each row, (N,).
            studies: Study of each row, (N,); empty where unknown.
            splits: Split of each row, (N,).
            sha256: SHA-256 of the image file of each row, in hex, (N,); empty where unknown.
        """
        rows = np.concatenate([self.val, self.test])
        return Predictions(
            ids=ids[rows],
            patients=self.patient[rows],
            studies=studies[rows],
            splits=splits[rows],
            sha256=sha256[rows],
            label_names=self.label_names,
            truth=self.truth[rows],
            probability=np.where(self.learned, probability[rows], np.nan),
        )

    def require_scorable(self) -> None:
        """Check that there is something to score.

        Raises:
            UsageError: No label was learned, or there are neither test nor validation rows.
        """
        if len(self.scored[1]) == 0:
            raise UsageError(
                "there are neither test nor validation images to score: assign some to the test "
                "split"
            )
        if not self.learned.any():
            raise UsageError(
                "no label has both positives and negatives among the training images, so nothing "
                "can be learned or scored"
            )
