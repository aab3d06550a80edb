"""Familiarity against scikit-learn's neighbors and covariance, and an explicit leave-one-out."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.neighbors import NearestNeighbors

from featurecache.metrics.familiarity import (
    MIN_FOREIGN,
    MIN_IMAGES,
    NEIGHBORS,
    Familiarity,
    fit_familiarity,
    sample_patients,
)


def embeddings(n: int, *, shift: float = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spectrum = np.linspace(2, 0.2, 12)
    return ((rng.normal(size=(n, 12)) + shift * np.tile([1, -1], 6)) * spectrum + 3).astype(
        np.float16
    )


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)


def test_percentiles_are_those_of_scikit_learn_with_each_image_left_out():
    reference, images = embeddings(60), embeddings(10, shift=0.3, seed=1)
    x, y = unit(reference), unit(images)
    search = NearestNeighbors(n_neighbors=NEIGHBORS).fit(x)
    knn = search.kneighbors(y)[0][:, -1]
    own_knn = search.kneighbors()[0][:, -1]  # without the point itself
    covariance, shrinkage = ledoit_wolf(x)
    offset = y - x.mean(axis=0)
    mahalanobis = np.einsum("nd,de,ne->n", offset, np.linalg.inv(covariance), offset)
    # Fixed shrinkage target and weight of an image, as if these were known beforehand.
    target = shrinkage * np.trace(np.cov(x.T, bias=True)) / 12 * np.eye(12)
    own = np.empty(60)
    for row in range(60):
        rest = np.delete(x, row, axis=0)
        scatter = np.cov(rest.T, bias=True) * 59
        inverse = np.linalg.inv((1 - shrinkage) / 60 * scatter + target)
        from_rest = x[row] - rest.mean(axis=0)
        own[row] = from_rest @ inverse @ from_rest
    percentiles = Familiarity(reference).percentiles(images)
    for column, (distance, among) in enumerate(((knn, own_knn), (mahalanobis, own))):
        expected = 100 * (1 + (among >= distance[:, np.newaxis]).sum(axis=1)) / 61
        np.testing.assert_allclose(percentiles[:, column], expected)


def test_new_images_are_at_the_median_and_foreign_ones_near_0():
    familiarity = Familiarity(embeddings(400))
    same, foreign = embeddings(400, seed=1), embeddings(400, shift=2, seed=2)
    scores = familiarity.measure(same)
    assert (scores.n, scores.n_reference) == (400, 400)
    assert [scores.knn, scores.mahalanobis] == pytest.approx([50, 50], abs=7)
    scores = familiarity.measure(foreign)
    assert max(scores.knn, scores.mahalanobis) < 5
    assert scores.foreign == (familiarity.percentiles(foreign).min(axis=1) < 1).mean() > 0.5
    assert "unlike those of the training" in scores.warning
    assert familiarity.measure(same).foreign < 0.05
    assert familiarity.measure(same).warning is None
    assert familiarity.measure(foreign[:5]).warning is None  # too few to say so
    assert familiarity.measure(same[:0]) is None


def test_few_training_patients_call_no_image_foreign():
    """Was 0.0 % foreign: of 99 images, the lowest percentile is 1, and 1 is not below 1."""
    anything = embeddings(40, shift=50, seed=1)
    few = Familiarity(embeddings(MIN_FOREIGN - 1))
    assert few.percentiles(anything).min() == 1
    scores = few.measure(anything)
    assert scores.foreign is None
    assert "% are less familiar" not in scores.warning
    assert "median percentiles are 1 (nearest neighbors)" in scores.warning
    assert Familiarity(embeddings(MIN_FOREIGN)).measure(anything).foreign == 1


def test_the_sample_has_one_image_of_each_patient():
    patients = np.repeat(np.arange(300), np.arange(300) % 4 + 1)
    rows = sample_patients(patients, size=200)
    assert len(np.unique(patients[rows])) == len(rows) == 200
    np.testing.assert_array_equal(rows, sample_patients(patients, size=200))
    assert not np.array_equal(rows, sample_patients(patients, size=200, seed=1))
    assert len(sample_patients(patients)) == 300
    x = embeddings(len(patients))
    train = np.flatnonzero(patients < MIN_IMAGES)
    assert len(fit_familiarity(x, train, patients).reference) == MIN_IMAGES
    assert fit_familiarity(x, train, patients // 2) is None
