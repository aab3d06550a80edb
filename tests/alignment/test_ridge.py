"""Compare ridge maps with scikit-learn's Ridge on one row per image-caption pair."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from featurecache.alignment import ridge
from featurecache.alignment.captions import caption_targets
from featurecache.alignment.ridge import ridge_maps, squared_error
from featurecache.metrics.similarity import row_chunks
from tests.alignment.planted import prompt_set


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(90, 12)) + 0.3
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    labels = rng.choice([-1, 0, 1], size=(90, 5)).astype(np.int8)
    labels[3] = -1  # no known label
    return images, caption_targets(labels, prompt_set(range(5)))


def pairs(images, captions):
    image, text = np.nonzero(captions.truth == 1)
    return images[image].astype(np.float64), captions.texts[text]


@pytest.mark.parametrize("strength", [1e-4, 0.3, 20.0])
def test_maps_equal_scikit_learn_on_pairs(case, strength, monkeypatch):
    monkeypatch.setattr(ridge, "row_chunks", partial(row_chunks, size=32))
    (affine_map,) = ridge_maps(*case, [strength])
    x, t = pairs(*case)
    centered = x - x.mean(axis=0)
    reference = Ridge(alpha=strength * np.square(centered).sum() / x.shape[1]).fit(x, t)
    np.testing.assert_allclose(affine_map.weight, reference.coef_.T, atol=1e-8)
    np.testing.assert_allclose(affine_map.offset, reference.intercept_, atol=1e-8)
    expected = np.square(reference.predict(x) - t).sum(axis=1).mean()
    assert squared_error(affine_map, *case) == pytest.approx(expected, rel=1e-9)


def test_data_without_information_is_refused(case):
    images, captions = case
    with pytest.raises(ValueError, match="all images are identical"):
        ridge_maps(np.repeat(images[:1], len(images), axis=0) * 0 + 0.5, captions)
    no_captions = caption_targets(np.full((90, 5), -1, dtype=np.int8), prompt_set(range(5)))
    with pytest.raises(ValueError, match="no image has a caption"):
        ridge_maps(images, no_captions)
