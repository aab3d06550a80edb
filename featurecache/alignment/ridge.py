"""Affine maps of images onto their captions by ridge regression, in closed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from featurecache.alignment.captions import Captions
from featurecache.metrics.similarity import Directions, Floats

STRENGTHS: Final = tuple(10 ** (step / 2) for step in range(-10, 7))
"""Those that are tried: lambda over the mean eigenvalue of the images' scatter, 1e-5 to 1e3."""

_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class AffineMap:
    """``x @ weight + offset`` of images (N, D): weight (D, T), offset (T,), both float64."""

    weight: Floats
    offset: Floats

    def __call__(self, images: npt.NDArray[np.floating]) -> Floats:
        """(N, D) to (N, T) float64."""
        mapped: Floats = images.astype(np.float64) @ self.weight + self.offset
        return mapped


def ridge_maps(
    images: Directions, captions: Captions, strengths: Sequence[float] = STRENGTHS
) -> list[AffineMap]:
    """Affine maps of images onto their captions, by ridge regression of several strengths.

    Minimised over pairs of an image x and a caption t of it, with an offset that is not held, is::

        sum of |x @ weight + offset - t|^2  +  lambda |weight|^2

    An image with m captions is as good as one with their mean that counts m times. One
    eigendecomposition of the images' scatter serves all strengths.

    Args:
        images: (N, D) at unit length.
        captions: of these images.
        strengths: lambda over the mean eigenvalue of the scatter of the images.

    Returns:
        A map for each strength.

    Raises:
        ValueError: no image has a caption, or all images are the same.
    """
    from scipy.linalg import eigh

    counts, targets = captions.counts(), captions.means()
    total = counts.sum()
    if total == 0:
        raise ValueError("no image has a caption")
    image_mean = np.zeros(images.shape[1])
    text_mean = counts @ targets / total
    for rows in _chunks(len(images)):
        image_mean += counts[rows] @ images[rows].astype(np.float64) / total
    scatter = np.zeros((images.shape[1], images.shape[1]))
    moment = np.zeros((images.shape[1], targets.shape[1]))
    for rows in _chunks(len(images)):
        centred = images[rows].astype(np.float64) - image_mean
        weighted = centred.T * counts[rows]
        scatter += weighted @ centred
        moment += weighted @ (targets[rows] - text_mean)
    unit = scatter.trace() / len(scatter)
    if unit == 0:
        raise ValueError("all images are the same")
    values, vectors = eigh(scatter)
    rotated = vectors.T @ moment
    maps = []
    for strength in strengths:
        weight = vectors @ (rotated / (np.maximum(values, 0) + strength * unit)[:, np.newaxis])
        maps.append(AffineMap(weight, text_mean - image_mean @ weight))
    return maps


def squared_error(fitted: AffineMap, images: Directions, captions: Captions) -> float:
    """The mean of ``|x @ weight + offset - t|^2`` over pairs of an image and a caption of it."""
    counts, targets = captions.counts(), captions.means()
    # Texts are of unit length, so a caption's distance from the mean is known from the mean.
    spread = 1 - np.square(targets).sum(axis=1)
    total = 0.0
    for rows in _chunks(len(images)):
        distance = np.square(fitted(images[rows]) - targets[rows]).sum(axis=1)
        total += float(counts[rows] @ (distance + spread[rows]))
    return total / float(counts.sum())


def _chunks(rows: int) -> Iterator[slice]:
    """Of rows in float64, so that the images need not be in memory twice."""
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE))
