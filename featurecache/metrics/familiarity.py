"""Familiarity: how an image's distance from the training images ranks among their own distances.

Two distances of embeddings at unit length: to the fifth nearest training image (Sun et al. 2022,
"Out-of-distribution detection with deep nearest neighbors"), and Mahalanobis' from their mean, with
the covariance shrunk as by Ledoit and Wolf 2004 (Lee et al. 2018; at unit length, Müller and Hein
2025). Both are compared with the distances of the training images themselves, each left out in
turn. So a percentile is 50 for a typical image and near 0 for one that is unlike any of them, in
whatever units the encoder has. It is 100 times a conformal p-value (Bates et al. 2023, "Testing for
outliers with conformal p-values"), up to the exchangeability of distances of images left out and
left in. Of M images, the lowest percentile is 100 / (M + 1), however foreign the image is.

A percentile says how unusual an image is for the encoder. One that maps noise to where it maps
X-rays, as a small encoder may, finds noise as familiar as these.

Images of one patient resemble each other more than those of a new one do. So the training images
are represented by at most 1,000 random ones of as many patients, and leaving out an image leaves
out its patient. They are what a model keeps: of 768 numbers in float16, 1.5 MB.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.document import Count, Document, Score
from featurecache.metrics.similarity import Floats, content_order, l2_normalize, row_chunks

SAMPLE_SIZE: Final = 1000
"""Maximum number of training images that represent all."""
NEIGHBORS: Final = 5
MIN_IMAGES: Final = 20
"""Minimum number of training patients to compare with: fewer tell no percentile from another."""

COLUMNS: Final = ("familiarity knn", "familiarity mahalanobis")


FOREIGN: Final = 1.0
"""Percentile below which an image is foreign: less familiar than 99 % of the training images."""
MIN_FOREIGN: Final = 100
"""Minimum number of training patients for a percentile to be below that."""
_FEW: Final = 20
"""Scored images below which no warning can be justified."""
_MANY_FOREIGN: Final = 0.05
_LOW_MEDIAN: Final = 10.0


class FamiliarityScores(Document):
    """How familiar the scored images are: median percentiles, about 50 if as those of training.

    Attributes:
        n: Number of scored images.
        n_reference: Number of training images that they are compared with, one each of as many
            patients; 0 without any.
        knn: Median percentile by the distance to the fifth nearest of them.
        mahalanobis: Median percentile by the Mahalanobis distance from them.
        foreign: Share of images with a percentile below 1 by either distance: about 0.01 to 0.02 of
            images like those of the training. None if the training images are too few for that.
        reason: Why there are none of these; None where there are.
    """

    n: Count
    n_reference: Count = 0
    knn: float | None = None
    mahalanobis: float | None = None
    foreign: Score | None = None
    reason: str | None = None

    @property
    def warning(self) -> str | None:
        """What a reader has to know of images that are unlike those of the training; else None."""
        if self.knn is None or self.mahalanobis is None or self.n < _FEW:
            return None
        many_foreign = self.foreign is not None and self.foreign > _MANY_FOREIGN
        if not many_foreign and min(self.knn, self.mahalanobis) >= _LOW_MEDIAN:
            return None
        share = (
            ""
            if self.foreign is None
            else f"{100 * self.foreign:.1f} % are less familiar than 99 % of the training images, "
            "where 1 to 2 % are expected, and "
        )
        return (
            f"these images are unlike those of the training: {share}the median percentiles are "
            f"{self.knn:.0f} (nearest neighbors) and {self.mahalanobis:.0f} (Mahalanobis), where "
            "50 is expected. Check thresholds and answers before they are used"
        )


class _Gaussian(NamedTuple):
    mean: Floats
    precision: Floats
    scale: float
    """Weight of an image in the covariance."""


def sample_patients(
    patients: NDArray[Any], *, size: int = SAMPLE_SIZE, seed: int = 0
) -> NDArray[np.intp]:
    """Return one random row of each of at most ``size`` random patients, ascending.

    Args:
        patients: (N,) patient of each row.
        size: Maximum number of patients.
        seed: Seed of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(patients))
    _, first = np.unique(patients[order], return_index=True)
    return np.sort(order[np.sort(first)[:size]])


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Compares images with a sample of training images.

    Attributes:
        reference: (M, D) embeddings of one image each of M patients, at least ``MIN_IMAGES``.
    """

    reference: NDArray[np.float16]

    def percentiles(self, embedding: NDArray[np.floating[Any]]) -> Floats:
        """Return the percentiles of N images by both distances, in the order of ``COLUMNS``.

        Args:
            embedding: (N, D), not normalized.

        Returns:
            (N, 2), above 0 up to 100: the share of training images that are at least as far from
            the others as the image is from them.

        Raises:
            UsageError: An embedding has norm 0, NaN or infinity.
        """
        return self.percentiles_of(self.distances(embedding))

    def distances(self, embedding: NDArray[np.floating[Any]]) -> Floats:
        """Return both distances of N images from the training images, larger if more foreign.

        Args:
            embedding: (N, D), not normalized.

        Returns:
            (N, 2), in the order of ``COLUMNS``: the cosine to the fifth nearest, negative, and the
            squared Mahalanobis distance.

        Raises:
            UsageError: An embedding has norm 0, NaN or infinity.
        """
        result = np.empty((len(embedding), 2))
        for rows in row_chunks(len(embedding), 1024):
            images = l2_normalize(embedding[rows], "image", first=rows.start)
            result[rows, 0] = self._neighbor_distances(images)
            result[rows, 1] = self._mahalanobis_distances(images)
        return result

    def percentiles_of(self, distances: Floats) -> Floats:
        """Return the percentiles of distances, (N, 2); see ``percentiles``."""
        result = np.empty(distances.shape)
        for column, own in enumerate(self._own):
            as_far = len(own) - np.searchsorted(own, distances[:, column], side="left")
            result[:, column] = 100 * (1 + as_far) / (1 + len(own))
        return result

    def measure(self, embedding: NDArray[np.floating[Any]]) -> FamiliarityScores | None:
        """Return the median percentiles of N images; None if there are none."""
        if len(embedding) == 0:
            return None
        percentiles = self.percentiles(embedding)
        knn, mahalanobis = np.median(percentiles, axis=0)
        return FamiliarityScores(
            n=len(embedding),
            n_reference=len(self.reference),
            knn=float(knn),
            mahalanobis=float(mahalanobis),
            foreign=None
            if len(self.reference) < MIN_FOREIGN
            else float((percentiles.min(axis=1) < FOREIGN).mean()),
        )

    @cached_property
    def _directions(self) -> Floats:
        return l2_normalize(self.reference, "training")

    @cached_property
    def _gaussian(self) -> _Gaussian:
        """The mean, the inverse of the shrunk covariance, and what an image adds to it."""
        from sklearn.covariance import ledoit_wolf

        centered = self._directions - self._directions.mean(axis=0)
        covariance, shrinkage = ledoit_wolf(centered, assume_centered=True)
        return _Gaussian(
            self._directions.mean(axis=0),
            np.linalg.inv(covariance),
            (1 - shrinkage) / len(centered),
        )

    @cached_property
    def _own(self) -> tuple[Floats, Floats]:
        """The distances of each training image from the others, (M,) each, sorted."""
        cosines = self._directions @ self._directions.T
        np.fill_diagonal(cosines, -np.inf)
        neighbor = np.sort(-np.partition(cosines, -NEIGHBORS, axis=1)[:, -NEIGHBORS])
        # Without an image u from the mean of n, the mean moves by u / (n - 1), and the scatter
        # matrix loses n / (n - 1) u u^T (Sherman and Morrison 1950). Weight and shrinkage stay.
        n, squares = len(cosines), self._mahalanobis_distances(self._directions)
        factor = n / (n - 1)
        left_out = factor**2 * squares / (1 - self._gaussian.scale * factor * squares)
        return neighbor, np.sort(left_out)

    def _neighbor_distances(self, images: Floats) -> Floats:
        cosines = images @ self._directions.T
        distances: Floats = -np.partition(cosines, -NEIGHBORS, axis=1)[:, -NEIGHBORS]
        return distances

    def _mahalanobis_distances(self, images: Floats) -> Floats:
        """Return squared distances, (N,)."""
        offset = images - self._gaussian.mean
        squares: Floats = np.vecdot(offset @ self._gaussian.precision, offset)
        return squares


def fit_familiarity(
    embedding: NDArray[np.floating[Any]],
    rows: NDArray[np.intp],
    patients: NDArray[Any],
    *,
    seed: int = 0,
) -> Familiarity | None:
    """Choose the training images that represent all; None if they are of too few patients.

    Args:
        embedding: (N, D).
        rows: Rows of the training images.
        patients: (N,) patient of each row.
        seed: Seed of the choice.
    """
    chosen = rows[sample_patients(patients[rows], seed=seed)]
    if len(chosen) < MIN_IMAGES:
        return None
    reference = np.asarray(embedding[chosen]).astype(np.float16)
    return Familiarity(reference[content_order(reference)])
