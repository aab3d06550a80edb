"""What happens to an embedding before a head sees it."""

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


def test_embeddings_are_brought_to_unit_length_then_standardised(embedding):
    new = np.float32([[3, 0, 4, 0, 0, 0], [1, -1, 1, -1, 1, -1]])
    unit = embedding.astype(np.float64) / np.linalg.norm(embedding, axis=1, keepdims=True)
    by_hand = (new / np.linalg.norm(new, axis=1, keepdims=True) - unit.mean(0)) / unit.std(0)
    found = fitted(embedding)(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-5)


def test_the_rows_it_was_fitted_on_come_out_with_mean_0_and_deviation_1(embedding):
    found = fitted(embedding)(torch.from_numpy(embedding)).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-5)


def test_the_length_of_an_embedding_says_nothing(embedding):
    scaling = fitted(embedding)
    x = torch.from_numpy(embedding)
    torch.testing.assert_close(scaling(7 * x), scaling(x), rtol=1e-4, atol=1e-5)


def test_a_dimension_that_never_varies_is_not_blown_up():
    # At unit length every row is (0.6, +-0.8): the first dimension is constant.
    rows = np.float32([[0.6, 0.8], [0.6, -0.8], [1.2, 1.6], [0.3, 0.4]])
    scaling = fitted(rows)
    assert scaling.deviation[0] == 1
    off = scaling(torch.tensor([[0.8, 0.6]]))
    assert off[0, 0].item() == pytest.approx(0.2, abs=1e-6)
    # A training set of one and the same image is as safe.
    assert torch.isfinite(fitted(np.repeat(rows[:1], 3, axis=0))(torch.from_numpy(rows))).all()


def test_it_is_fitted_on_the_rows_given_alone_however_many_they_are():
    rng = np.random.default_rng(1)
    # Means far from 0 beside small deviations, as in a CLIP model's embeddings.
    embedding = (rng.normal(size=(9000, 5)) * 0.01 + [5, -3, 0, 1, 0.2]).astype(np.float16)
    rows = rng.choice(9000, size=8500, replace=False)
    scaling = Standardize(5)
    scaling.fit(embedding, rows)
    exact = embedding[rows].astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(scaling.mean.numpy(), exact.mean(axis=0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaling.deviation.numpy(), exact.std(axis=0), rtol=1e-4)


def test_scaled_gives_the_rows_asked_for_in_their_order(embedding):
    scaling, rows = fitted(embedding), np.array([7, 3, 40])
    found = scaling.scaled(embedding, rows, torch.float32)
    torch.testing.assert_close(found, scaling(torch.from_numpy(embedding[rows])))
    half = scaling.scaled(embedding, rows, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), found, rtol=1 / 256, atol=1e-6)


def test_mean_and_deviation_travel_with_the_state(embedding):
    other = Standardize(6)
    other.load_state_dict(fitted(embedding).state_dict())
    x = torch.from_numpy(embedding)
    assert torch.equal(other(x), fitted(embedding)(x))
