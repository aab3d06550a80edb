"""Input standardization."""

import numpy as np
import pytest
import torch

from featurecache.heads.standardize import Standardize


@pytest.fixture
def embedding():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, 6)) * rng.uniform(0.1, 30, size=(50, 1))).astype(np.float32)


def fitted(embedding):
    scaling = Standardize(embedding.shape[1])
    scaling.fit(embedding, np.arange(len(embedding)))
    return scaling


def test_embeddings_are_normalized_then_standardized(embedding):
    new = np.float32([[3, 0, 4, 0, 0, 0], [1, -1, 1, -1, 1, -1]])
    unit = embedding.astype(np.float64) / np.linalg.norm(embedding, axis=1, keepdims=True)
    expected = (new / np.linalg.norm(new, axis=1, keepdims=True) - unit.mean(0)) / unit.std(0)
    standardized = fitted(embedding)(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(standardized, expected, rtol=1e-4, atol=1e-5)


def test_fitted_rows_have_mean_0_and_deviation_1(embedding):
    standardized = fitted(embedding)(torch.from_numpy(embedding)).numpy()
    np.testing.assert_allclose(standardized.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standardized.std(axis=0), 1, atol=1e-5)


def test_length_of_an_embedding_is_ignored(embedding):
    scaling = fitted(embedding)
    x = torch.from_numpy(embedding)
    torch.testing.assert_close(scaling(7 * x), scaling(x), rtol=1e-4, atol=1e-5)


def test_constant_dimension_is_not_amplified():
    # At unit length every row is (0.6, +-0.8): the first dimension is constant.
    rows = np.float32([[0.6, 0.8], [0.6, -0.8], [1.2, 1.6], [0.3, 0.4]])
    scaling = fitted(rows)
    assert scaling.deviation[0] == 1
    shifted = scaling(torch.tensor([[0.8, 0.6]]))
    assert shifted[0, 0].item() == pytest.approx(0.2, abs=1e-6)
    # So is a training set of copies of one image.
    assert torch.isfinite(fitted(np.repeat(rows[:1], 3, axis=0))(torch.from_numpy(rows))).all()


def test_statistics_are_exact_for_many_rows_with_large_means():
    rng = np.random.default_rng(1)
    # Large means with small deviations, as in the embeddings of CLIP models.
    embedding = (rng.normal(size=(9000, 5)) * 0.01 + [5, -3, 0, 1, 0.2]).astype(np.float16)
    rows = rng.choice(9000, size=8500, replace=False)
    scaling = Standardize(5)
    scaling.fit(embedding, rows)
    exact = embedding[rows].astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(scaling.mean.numpy(), exact.mean(axis=0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaling.deviation.numpy(), exact.std(axis=0), rtol=1e-4)


def test_transform_returns_the_given_rows_in_order(embedding):
    scaling, rows = fitted(embedding), np.array([7, 3, 40])
    standardized = scaling.transform(embedding, rows, torch.float32)
    torch.testing.assert_close(standardized, scaling(torch.from_numpy(embedding[rows])))
    half = scaling.transform(embedding, rows, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), standardized, rtol=1 / 256, atol=1e-6)


def test_mean_and_deviation_are_in_the_state_dict(embedding):
    other = Standardize(6)
    other.load_state_dict(fitted(embedding).state_dict())
    x = torch.from_numpy(embedding)
    assert torch.equal(other(x), fitted(embedding)(x))
