"""Captions of images, compared with hand-computed cases."""

import numpy as np

from featurecache.alignment.captions import caption_targets
from tests.alignment.planted import NEGATIVE, POSITIVE, prompt_set

LABELS = np.int8([[1, 0], [0, -1], [-1, -1]])


def test_positive_labels_give_positive_prompts_and_negative_labels_negative_ones():
    captions = caption_targets(LABELS, prompt_set(range(2)))
    np.testing.assert_allclose(captions.texts, [*POSITIVE[:2], *NEGATIVE[:2]], atol=1e-6)
    assert captions.truth.tolist() == [[1, 0, 0, 1], [0, -1, 1, -1], [-1, -1, -1, -1]]
    assert captions.counts().tolist() == [2, 1, 0]
    expected = [(POSITIVE[0] + NEGATIVE[1]) / 2, NEGATIVE[0], np.zeros_like(NEGATIVE[0])]
    np.testing.assert_allclose(captions.means(), expected, atol=1e-6)


def test_negative_labels_give_no_caption_without_negative_prompts():
    captions = caption_targets(LABELS, prompt_set(range(2), negative=False))
    assert captions.truth.tolist() == LABELS.tolist()
    assert captions.counts().tolist() == [1, 0, 0]
    np.testing.assert_allclose(captions.means()[0], POSITIVE[0], atol=1e-6)
