"""Training captions: which of a prompt set's texts are true of which image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.similarity import Floats, l2_normalize
from featurecache.store.records import TextSet


@dataclass(frozen=True)
class Captions:
    """U texts, and of which of N images each is true.

    An image has as many captions as there are labels that are known of it: the label's positive
    prompts where it has the finding, its negative prompts where it has not. Each caption is the
    prompt ensemble. A label that is unknown gives an image no caption. Where a set has no negative
    prompts, an absent finding gives none either, and an image without findings takes no part.

    Attributes:
        texts: (U, T) of unit length: the C labels' positives, then their negatives.
        truth: (N, U) int8: 1 where a text is true of an image, 0 where it is false, -1 unknown.
    """

    texts: Floats
    truth: NDArray[np.int8]

    def counts(self) -> Floats:
        """How many captions each image has, (N,)."""
        counts: Floats = (self.truth == 1).sum(axis=1).astype(np.float64)
        return counts

    def means(self) -> Floats:
        """The mean of each image's captions, (N, T); zeros for an image without any."""
        means: Floats = (self.truth == 1).astype(np.float64) @ self.texts
        means /= np.maximum(self.counts(), 1)[:, np.newaxis]
        return means


def caption_images(labels: NDArray[np.int8], text: TextSet) -> Captions:
    """The captions of images with these labels.

    Args:
        labels: (N, C) of 1, 0, -1 unknown.
        text: the prompt set, its labels being these.
    """
    texts, truth = [text.positive.ensemble], [labels]
    if text.negative is not None:
        texts.append(text.negative.ensemble)
        truth.append(np.where(labels < 0, labels, 1 - labels).astype(np.int8))
    return Captions(l2_normalize(np.concatenate(texts), "text"), np.concatenate(truth, axis=1))
