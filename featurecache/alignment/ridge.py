"""Fit affine maps from images to captions by ridge regression, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.captions import CaptionTargets
from featurecache.metrics.similarity import Directions, Floats, row_chunks

STRENGTHS: Final = tuple(10 ** (step / 2) for step in range(-10, 7))
"""Regularization strengths to choose from, 1e-5 to 1e3, as multiples of the mean eigenvalue of the
images' scatter matrix."""


@dataclass(frozen=True)
class AffineMap:
    """The map ``x @ weight + offset``.

    Attributes:
        weight: (D, T) float64.
        offset: (T,) float64.
    """

    weight: Floats
    offset: Floats

    def __call__(self, images: NDArray[np.floating]) -> Floats:
        """Map images (N, D) to (N, T) float64."""
        mapped: Floats = images.astype(np.float64) @ self.weight + self.offset
        return mapped


def ridge_maps(
    images: Directions, captions: CaptionTargets, strengths: Sequence[float] = STRENGTHS
) -> list[AffineMap]:
    """Regress captions on images, with several regularization strengths.

    The objective, over all pairs of an image x and a caption t that is true of it, is::

        sum of |x @ weight + offset - t|^2  +  lambda |weight|^2

    An image with m captions contributes like one with their mean, weighted by m. One
    eigendecomposition of the scatter matrix serves all strengths, and images are converted to
    float64 chunk by chunk; scikit-learn's Ridge would solve anew for each strength and copy all
    images.

    Args:
        images: (N, D) at unit length.
        captions: Captions of these images.
        strengths: Values of lambda, as multiples of the mean eigenvalue of the scatter matrix.

    Returns:
        One map per strength.

    Raises:
        ValueError: No image has a caption, or all images are identical.
    """
    from scipy.linalg import eigh

    counts, targets = captions.counts(), captions.means()
    total = counts.sum()
    if total == 0:
        raise ValueError("no image has a caption")
    image_mean = np.zeros(images.shape[1])
    text_mean = counts @ targets / total
    for rows in row_chunks(len(images)):
        image_mean += counts[rows] @ images[rows].astype(np.float64) / total
    scatter = np.zeros((images.shape[1], images.shape[1]))
    moment = np.zeros((images.shape[1], targets.shape[1]))
    for rows in row_chunks(len(images)):
        centered = images[rows].astype(np.float64) - image_mean
        weighted = centered.T * counts[rows]
        scatter += weighted @ centered
        moment += weighted @ (targets[rows] - text_mean)
    mean_eigenvalue = scatter.trace() / len(scatter)
    if mean_eigenvalue == 0:
        raise ValueError("all images are identical")
    values, vectors = eigh(scatter)
    rotated = vectors.T @ moment
    maps = []
    for strength in strengths:
        penalized = np.maximum(values, 0) + strength * mean_eigenvalue
        weight = vectors @ (rotated / penalized[:, np.newaxis])
        maps.append(AffineMap(weight, text_mean - image_mean @ weight))
    return maps


def squared_error(affine_map: AffineMap, images: Directions, captions: CaptionTargets) -> float:
    """Return the mean of ``|x @ weight + offset - t|^2`` over pairs of an image and its caption."""
    counts, targets = captions.counts(), captions.means()
    # Captions have unit length, so their spread around the mean follows from the mean's length.
    spread = 1 - np.square(targets).sum(axis=1)
    total = 0.0
    for rows in row_chunks(len(images)):
        distance = np.square(affine_map(images[rows]) - targets[rows]).sum(axis=1)
        total += float(counts[rows] @ (distance + spread[rows]))
    return total / float(counts.sum())
