"""Exact nearest neighbors, compared with a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.metrics.similarity import batch_nearest, nearest, normalize_rows


@pytest.mark.parametrize("chunk_size", [1, 999, 2**24])
def test_batch_search_equals_single_searches(monkeypatch, chunk_size):
    monkeypatch.setattr("featurecache.metrics.similarity._COSINES_PER_CHUNK", chunk_size)
    rng = np.random.default_rng(0)
    gallery = normalize_rows(rng.normal(size=(300, 6)))
    queries = normalize_rows(rng.normal(size=(50, 6)))
    for top in (1, 7, 300, 400):
        rows, cosines = batch_nearest(queries, gallery, top=top)
        for query, batch_rows, batch_cosines in zip(queries, rows, cosines, strict=True):
            expected_rows, expected_cosines = nearest(query, gallery, top=top)
            np.testing.assert_array_equal(batch_rows, expected_rows)
            np.testing.assert_allclose(batch_cosines, expected_cosines, atol=1e-6)


def test_batch_search_in_an_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="the 3 nearest of 0 rows"):
        batch_nearest(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32), top=3)


def test_search_equals_a_plain_sort():
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(500, 16)) * rng.uniform(0.1, 300, size=(500, 1))).astype("f2")
    gallery = normalize_rows(embedding)
    exact = embedding.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for query in range(20):
        rows, cosines = nearest(gallery[query], gallery, top=7)
        expected = np.argsort(-(exact @ exact[query]), kind="stable")[:7]
        assert rows.tolist() == expected.tolist()
        assert cosines == pytest.approx(exact[expected] @ exact[query], abs=1e-6)
        assert rows[0] == query


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(1, 35),
)
def test_equal_rows_are_ordered_by_index(levels, top):
    angles = np.array(levels) * 0.3
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows, _ = nearest(np.array([1.0, 0.0], dtype=np.float32), gallery, top=top)
    expected = sorted(range(len(levels)), key=lambda row: (levels[row], row))
    assert rows.tolist() == expected[:top]


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="image embedding 1 has norm 0"):
        normalize_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="`top` must be 1 or more, not 0"):
        nearest(np.ones(2, dtype=np.float32), np.eye(2, dtype=np.float32), top=0)
