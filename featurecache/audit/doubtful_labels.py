"""Doubtful labels: those that contradict what the embeddings of other patients' images predict.

For each label, logistic regression on the embeddings predicts every image from the images of other
patients. Confident learning (``metrics.confident_learning``) finds the labels that contradict these
probabilities, and estimates how many labels are wrong.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.audit.probe import FOLDS, MIN_PATIENTS, grouped_folds
from featurecache.io.table import check_table_file, write_table
from featurecache.metrics.bootstrap import resample_patients
from featurecache.metrics.confident_learning import confident_classes, wrong_share
from featurecache.metrics.intervals import effective_number, pooled_interval
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.similarity import Floats, normalize_rows
from featurecache.progress import DetailedProgress
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    import pandas as pd

STRENGTHS: Final = (0.001, 0.01, 0.1, 1.0)
"""Values of scikit-learn's ``C``, from which each label has the one with the lowest log loss."""

_MAX_ITERATIONS: Final = 1000


@dataclass(frozen=True)
class DoubtfulCell:
    """A label of an image that is probably wrong.

    Attributes:
        image: Id of the image.
        patient: Its patient.
        split: Its split.
        label: Name of the label.
        value: The label that it has, 1 or 0.
        probability: Probability that it is positive, predicted from images of other patients.
    """

    image: str
    patient: str
    split: str
    label: str
    value: int
    probability: float


@dataclass(frozen=True)
class LabelDoubt:
    """How many values of a label are probably wrong.

    Attributes:
        n: Number of images with a known label.
        auroc: AUROC of the predictions; None where undefined. Where it is low, ambiguous images are
            doubtful, too, and the share is too high.
        doubtful: Number of images whose label is doubtful; None where undefined.
        wrong_share: Expected share of wrong labels; None where undefined.
        ci95: Interval of the share over patients; that of the model's fit is not part of it.
        reason: Why they are undefined; None where they are defined.
    """

    n: int
    auroc: float | None
    doubtful: int | None
    wrong_share: float | None
    ci95: tuple[float, float] | None
    reason: str | None


@dataclass(frozen=True)
class DoubtfulLabels:
    """The labels of a cache that are probably wrong.

    Attributes:
        labels: How many there are, by label.
        cells: All of them, most doubtful first: those whose value is the least probable.
    """

    labels: Mapping[str, LabelDoubt]
    cells: tuple[DoubtfulCell, ...]

    def to_pandas(self) -> "pd.DataFrame":
        """Return the doubtful labels as a table that ``load_dataset`` takes as ``corrections``.

        Returns:
            One row per label, most doubtful first, with the columns ``rank`` (from 1), ``id``,
            ``patient``, ``split``, ``label``, ``value``, ``probability`` and ``corrected``, which
            is empty: write the right labels there, after a look at the images.
        """
        import pandas as pd

        columns = ("id", "patient", "split", "label", "value", "probability")
        frame = pd.DataFrame([tuple(vars(cell).values()) for cell in self.cells], columns=columns)
        frame.insert(0, "rank", np.arange(1, len(frame) + 1))
        return frame.assign(corrected="")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table of ``to_pandas`` to a file.

        Args:
            path: The file, .csv or .parquet.

        Raises:
            UsageError: The file exists, has another suffix, or needs a package that is missing.
        """
        check_table_file(Path(path))
        write_table(self.to_pandas(), Path(path))


def doubtful_labels(
    cache: Cache,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: DetailedProgress | None = None,
) -> DoubtfulLabels:
    """Find the labels of a cache that are probably wrong, and estimate how many are.

    Unknown labels are left out. Labels with too few patients are undefined.

    Args:
        cache: The cache; its rows are images.
        n_bootstrap: Number of bootstrap samples of patients for the intervals; 0 for none.
        seed: Seed of the folds and of the bootstrap.
        progress: Called before the first label and after each.

    Returns:
        The doubtful labels.

    Raises:
        UsageError: The cache has no labels, or holds tokens.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    cache.require_labels()
    # Labels have no part in this, so it may see all images.
    features = StandardScaler().fit_transform(normalize_rows(cache.embedding))
    doubts, cells = {}, []
    names = cache.labels.names
    for column, name in enumerate(names):
        if progress is not None:
            progress(column, len(names), "look for doubtful labels")
        rows = np.flatnonzero(cache.labels.values[:, column] >= 0)
        truth, patients = cache.labels.values[rows, column], cache.patients[rows]
        resamples = resample_patients(patients, n_bootstrap=n_bootstrap, seed=seed).with_data()
        support = patient_support(truth[:, np.newaxis], resamples.patient_index)
        if reason := support.reason(0, at_least=MIN_PATIENTS):
            doubts[name] = LabelDoubt(len(rows), None, None, None, None, reason)
            continue
        fold = grouped_folds(truth.astype(np.float64), patients, seed=seed)
        probability = _out_of_fold(features[rows], truth, fold)
        classes = confident_classes(truth, probability)
        doubtful = np.flatnonzero((classes >= 0) & (classes != truth))
        shares = wrong_share(truth, probability, resamples)
        ci95 = None
        if n_bootstrap:
            n_patients = effective_number(np.bincount(resamples.patient_index).astype(np.float64))
            ci95 = pooled_interval(float(shares[0]), shares[1:], float(n_patients))
        doubts[name] = LabelDoubt(
            n=len(rows),
            auroc=float(roc_auc_score(truth, probability)),
            doubtful=len(doubtful),
            wrong_share=float(shares[0]),
            ci95=ci95,
            reason=None,
        )
        cells += [
            DoubtfulCell(
                image=str(cache.ids[rows[row]]),
                patient=str(patients[row]) if cache.patients_known else "",
                split=str(cache.splits[rows[row]]),
                label=name,
                value=int(truth[row]),
                probability=float(probability[row]),
            )
            for row in doubtful
        ]
    if progress is not None:
        progress(len(names), len(names), "look for doubtful labels")
    cells.sort(key=lambda cell: cell.probability if cell.value == 1 else 1 - cell.probability)
    return DoubtfulLabels(doubts, tuple(cells))


def _out_of_fold(
    features: NDArray[np.floating], truth: NDArray[np.integer], fold: NDArray[np.intp]
) -> Floats:
    """Predict each image by logistic regression on the images of other folds.

    All are predicted with one strength of the penalty, that of the lowest log loss. As it is one
    number for all images, that it is chosen on their own labels hardly matters.

    Args:
        features: (N, D).
        truth: (N,) labels, 1 or 0.
        fold: (N,) fold of each image.

    Returns:
        (N,) probabilities of a positive.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    probability = np.empty((len(STRENGTHS), len(truth)))
    for number in range(FOLDS):
        left_out = fold == number
        others, labels = features[~left_out], truth[~left_out]
        for index, strength in enumerate(STRENGTHS):
            model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(others, labels)
            probability[index, left_out] = model.predict_proba(features[left_out])[:, 1]
    losses = [log_loss(truth, of_strength) for of_strength in probability]
    best: Floats = probability[np.argmin(losses)]
    return best
