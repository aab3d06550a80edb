"""Which negatives a label is scored against: all, only healthy, or only otherwise diseased ones."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UnknownNameError
from featurecache.evaluation.simple_predictors import abnormality

Negatives = Literal["all", "healthy", "diseased"]


def check_negatives(negatives: str) -> None:
    """Check the name of a kind of negatives.

    Raises:
        UnknownNameError: There is no such kind.
    """
    if negatives not in get_args(Negatives):
        raise UnknownNameError("kind of negatives", negatives, get_args(Negatives))


def keep_negatives(
    truth: NDArray[np.int8],
    negatives: str,
    *,
    of_data_set: NDArray[np.int8],
    label_names: Sequence[str],
) -> NDArray[np.int8]:
    """Return labels in which other negatives are unknown, so that they are not scored.

    Args:
        truth: Labels of shape (N, C) to score.
        negatives: "all"; "healthy" for images without any finding, all of whose labels are known to
            be negative, or which have a label such as "No Finding"; "diseased" for images with
            another finding. Images that may have one, as a label is unknown, are neither.
        of_data_set: All labels of the data set, (N, L).
        label_names: Their L names.
    """
    if negatives == "all":
        return truth
    kept = abnormality(of_data_set, label_names) == (0 if negatives == "healthy" else 1)
    return np.where((truth == 0) & ~kept[:, np.newaxis], -1, truth).astype(np.int8)
