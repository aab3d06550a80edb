"""Exact nearest neighbors, compared with a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.metrics.similarity import (
    batch_nearest,
    cosine_similarity,
    highest,
    normalize_rows,
)


@pytest.mark.parametrize("chunk_size", [1, 999, 2**24])
def test_batch_search_equals_single_searches(monkeypatch, chunk_size):
    monkeypatch.setattr("featurecache.metrics.similarity._COSINES_PER_CHUNK", chunk_size)
    rng = np.random.default_rng(0)
    gallery = normalize_rows(rng.normal(size=(300, 6)))
    queries = normalize_rows(rng.normal(size=(50, 6)))
    for top in (1, 7, 300, 400):
        rows, cosines = batch_nearest(queries, gallery, top=top)
        for query, batch_rows, batch_cosines in zip(queries, rows, cosines, strict=True):
            expected = np.argsort(-(gallery @ query), kind="stable")[:top]
            np.testing.assert_array_equal(batch_rows, expected)
            np.testing.assert_allclose(batch_cosines, (gallery @ query)[expected], atol=1e-6)


def test_batch_search_in_an_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="the 3 nearest of 0 rows"):
        batch_nearest(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32), top=3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_search_equals_a_plain_sort(dtype):
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(500, 16)) * rng.uniform(0.1, 300, size=(500, 1))).astype(dtype)
    exact = embedding.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for query in range(20):
        cosines = cosine_similarity(exact[query].astype(np.float32), embedding)
        assert cosines == pytest.approx(exact @ exact[query], abs=1e-6)
        rows = highest(cosines, top=7)
        assert rows.tolist() == np.argsort(-(exact @ exact[query]), kind="stable")[:7].tolist()
        assert rows[0] == query


def test_all_finite_float16_have_their_cosine_and_others_none():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    query = np.ones(1, dtype=np.float32)
    usable = np.isfinite(values) & (values != 0)
    cosines = cosine_similarity(query, values[usable, np.newaxis])
    np.testing.assert_array_equal(cosines, np.sign(values[usable]))
    for value in (0.0, -0.0, np.inf, -np.inf, np.nan):
        with pytest.raises(ValueError, match="image embedding 7 has norm"):
            cosine_similarity(query, np.array([[value]], dtype=np.float16), first=7)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(1, 35),
)
def test_equal_rows_are_ordered_by_index(levels, top):
    angles = np.array(levels) * 0.3
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows = highest(gallery[:, 0], top=top)
    expected = sorted(range(len(levels)), key=lambda row: (levels[row], row))
    assert rows.tolist() == expected[:top]


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="image embedding 1 has norm 0"):
        normalize_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="`top` must be 1 or more, not 0"):
        highest(np.ones(2, dtype=np.float32), top=0)
