"""What an evaluation takes from a cache."""

import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.evaluation.from_cache import (
    cache_reference,
    find_cache,
    predictions_from,
    split_data_from,
)
from tests.evaluation.toy_caches import write_toy_cache


def test_predictions_are_of_validation_then_test(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.5).astype(np.int8)
    cache = write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(200, 8)), labels, names=("Mass", "Edema", "Nodule")
    )
    probability = rng.random((200, 3))
    data = split_data_from(cache, train=cache.rows("train"))
    predictions = predictions_from(cache, data, probability)
    assert predictions.splits.tolist() == ["val"] * 50 + ["test"] * 50
    assert predictions.ids.tolist() == [f"{row:04d}.png" for row in range(100, 200)]
    assert np.array_equal(predictions.probability, probability[100:])
    assert np.array_equal(predictions.truth, labels[100:])


@pytest.fixture
def cache(tmp_path):
    return write_toy_cache(tmp_path / "toy.h5", np.eye(8), np.zeros((8, 1)), names=("Mass",))


def test_cache_is_found_at_its_path_or_among_given_caches(cache, tmp_path):
    reference = cache_reference(cache)
    assert find_cache(reference).path == cache.path
    moved = cache.path.rename(tmp_path / "moved.h5")
    with pytest.raises(CacheError, match="give its current path as `caches`"):
        find_cache(reference)
    with pytest.raises(CacheError, match="give its current path as `cache`"):
        find_cache(reference, argument="cache")
    assert find_cache(reference, [moved]).path == moved


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 64}, {"dataset": "others"}])
def test_cache_with_other_fingerprint_is_refused(cache, change):
    with pytest.raises(CacheError, match="is not the cache that the run was made from"):
        find_cache(cache_reference(cache) | change)


def test_caches_side_by_side_are_found(cache, tmp_path):
    other = write_toy_cache(tmp_path / "other.h5", np.eye(8), np.zeros((8, 1)), names=("Mass",))
    references = [cache_reference(cache), cache_reference(other)]
    assert find_cache({"joined": references}).dim == 16
