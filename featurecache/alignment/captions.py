"""Caption targets: which texts of a prompt set describe which image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.similarity import Floats, l2_normalize
from featurecache.store.records import TextSet


@dataclass(frozen=True)
class CaptionTargets:
    """U captions, and which of them are true of each of N images.

    A caption is a prompt ensemble. An image has one caption for each known label: the ensemble of
    the label's positive prompts if the label is positive, of its negative prompts if it is
    negative. An unknown label gives no caption. In a prompt set without negative prompts a
    negative label gives no caption either, and an image without any caption is not used.

    Attributes:
        texts: (U, T) float64 of unit length: the positive prompt ensembles of the C labels, then
            the negative ones.
        truth: (N, U) int8: 1 where a caption is true of an image, 0 where false, -1 unknown.
    """

    texts: Floats
    truth: NDArray[np.int8]

    def counts(self) -> Floats:
        """Return the number of captions of each image, (N,)."""
        counts: Floats = (self.truth == 1).sum(axis=1).astype(np.float64)
        return counts

    def means(self) -> Floats:
        """Return the mean caption embedding of each image, (N, T); 0 for an image without any."""
        means: Floats = (self.truth == 1).astype(np.float64) @ self.texts
        means /= np.maximum(self.counts(), 1)[:, np.newaxis]
        return means


def caption_targets(labels: NDArray[np.int8], text: TextSet) -> CaptionTargets:
    """Derive the captions of images from their labels.

    Args:
        labels: (N, C) labels 1, 0 or -1 (unknown).
        text: Encoded prompt set with the same C labels.

    Returns:
        The captions.
    """
    texts, truth = [text.positive.ensemble], [labels]
    if text.negative is not None:
        texts.append(text.negative.ensemble)
        truth.append(np.where(labels < 0, labels, 1 - labels).astype(np.int8))
    return CaptionTargets(
        l2_normalize(np.concatenate(texts), "text"), np.concatenate(truth, axis=1)
    )
