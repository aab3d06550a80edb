"""One query against a cache: a pass over the file in blocks, equal to a plain search."""

import tracemalloc

import h5py
import numpy as np
import pytest

import featurecache as fc
from featurecache.errors import CacheError
from tests.audit.audit_caches import make_cache


def plain_search(embedding: np.ndarray, rows: np.ndarray, query: int, top: int):
    """Sort all rows but the query's by cosine and, where equal, by row."""
    unit = embedding.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows = rows[rows != query]
    cosines = unit[rows] @ unit[query]
    order = np.lexsort((rows, -cosines.round(9)))[:top]
    return [f"{row:04d}" for row in rows[order]], cosines[order]


@pytest.mark.parametrize("block", [1, 7, 64, 512])
@pytest.mark.parametrize("split", [None, "test"])
def test_search_in_blocks_equals_a_plain_search(monkeypatch, tmp_path, block, split):
    monkeypatch.setattr("featurecache.store.cache.CHUNK_ROWS", block)
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(150, 24)) * rng.uniform(0.01, 500, size=(150, 1))).astype("f2")
    embedding[rng.integers(150, size=40)] = embedding[3]  # ties, also between blocks
    embedding[77] = 2 * embedding[3]
    splits = ["train", "val", "test"] * 50
    cache = make_cache(tmp_path, splits, embedding=embedding)
    rows = np.flatnonzero(np.array(splits) == split) if split else np.arange(150)
    for query in (3, 20, 149):
        for top in (1, 10, 200):
            images = fc.retrieve(cache, image=f"{query:04d}", top=top, split=split)
            ids, cosines = plain_search(embedding, rows, query, top)
            assert images["id"].tolist() == ids
            np.testing.assert_allclose(images["cosine"], cosines, atol=1e-6)
    assert images["labels"].tolist() == [("Mass",) if int(id) % 2 else () for id in images["id"]]
    assert images["patient"].tolist() == [f"p{int(id)}" for id in images["id"]]


def test_search_names_an_unusable_row_that_it_meets(tmp_path):
    cache = make_cache(tmp_path, ["train"] * 700 + ["test"] * 3)
    with h5py.File(cache.path, "r+") as file:
        file["images/embedding"][600] = np.nan
    cache = fc.open_cache(cache.path)
    with pytest.raises(CacheError, match=r"embedding in row 600 \('0600'\) is not finite"):
        fc.retrieve(cache, image="0001")
    assert len(fc.retrieve(cache, image="0001", split="test")) == 3


def test_search_does_not_copy_the_embeddings(tmp_path):
    dim, n = 768, 9000
    cache = make_cache(tmp_path, ["test"] * n, embedding=np.ones((n, dim), dtype=np.float16))
    fc.retrieve(cache, image="0001")  # imports
    tracemalloc.start()
    fc.retrieve(fc.open_cache(cache.path), image="0001")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # the file has 14 MB, in float32 it would be 28 MB; a block takes 6 MB
