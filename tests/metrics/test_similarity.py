"""Exact nearest neighbors, compared with a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.metrics.similarity import (
    cosine_similarity,
    highest,
    nearest_of_other_groups,
    normalize_rows,
)


@pytest.mark.parametrize("tile", [13, 512])
@pytest.mark.parametrize("dense", [1e9, 4, 1e-9], ids=["all tiles", "some tiles", "no tile"])
@pytest.mark.parametrize("decay", [0, 1.5], ids=["flat", "steep"])
def test_nearest_of_other_groups_are_those_of_a_plain_sort(monkeypatch, tile, dense, decay):
    monkeypatch.setattr("featurecache.metrics.similarity._TILE", tile)
    monkeypatch.setattr("featurecache.metrics.similarity._DENSE", dense)
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(90, 16)) / (1 + np.arange(16)) ** decay
    embedding[20:40] += 5  # a cluster
    embedding[60:70] = embedding[:10] + 1e-3  # near and equal ones, within and between groups
    embedding[70:75] = embedding[5]
    directions = normalize_rows(embedding)
    directions[33] = 0
    some_rows = np.where(rng.random(90) < 0.3, -np.inf, np.inf)
    splits = rng.choice(["test", "train", "val"], 90)
    for groups in (splits, np.arange(90) // 9, np.arange(90) > 85):
        for top, at_least in ((1, -np.inf), (7, -np.inf), (88, -np.inf), (3, 0.8), (7, some_rows)):
            done = []
            rows, cosines = nearest_of_other_groups(
                directions,
                groups,
                top=top,
                at_least=at_least,
                progress=lambda *counts, done=done: done.append(counts),
            )
            expected = (directions @ directions.T).astype(np.float64)
            expected[groups[:, None] == groups] = -np.inf
            expected[expected < np.broadcast_to(at_least, 90)[:, np.newaxis]] = -np.inf
            np.testing.assert_allclose(cosines, -np.sort(-expected)[:, :top], atol=1e-6)
            own = np.take_along_axis(expected, rows, axis=1)
            np.testing.assert_allclose(np.where(rows < 0, -np.inf, own), cosines, atol=1e-6)
            assert all(len({*row[row >= 0]}) == (row >= 0).sum() for row in rows)
            assert done[-1][0] == done[-1][1] == len(done)


def test_tiles_that_are_too_far_apart_are_not_compared(monkeypatch):
    monkeypatch.setattr("featurecache.metrics.similarity._TILE", 8)
    products = []
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda *args, **out: products.append(matmul(*args, **out)))
    angles = np.linspace(0, np.pi / 2, 256)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows, _ = nearest_of_other_groups(directions, np.arange(256) % 2, top=1, at_least=0.999)
    assert (np.abs(rows[:, 0] - np.arange(256)) == 1).all()
    assert len(products) < 16 * 16 / 3


def test_nothing_is_near_where_there_is_one_group():
    rows, cosines = nearest_of_other_groups(np.eye(3, dtype=np.float32), np.zeros(3), top=2)
    assert (rows == -1).all()
    assert np.isneginf(cosines).all()
    with pytest.raises(ValueError, match="`top` must be 1 or more, not 0"):
        nearest_of_other_groups(np.eye(3, dtype=np.float32), np.arange(3), top=0)


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
