"""Shards, extracted separately and merged, equal the cache of one extraction."""

import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.extraction.update import update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store.merge import Shard, merge_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset

SIGNS = PROMPT_SETS["signs"]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_merged_shards_equal_cache_of_one_extraction(dataset, cache, tmp_path, count):
    (whole,) = update_caches(dataset, [StubEncoder()], cache_dir=tmp_path / "whole", prompts=SIGNS)
    summaries = [
        update_caches(
            dataset, [StubEncoder()], cache_dir=cache, prompts=SIGNS, shard=Shard(number, count)
        )[0]
        for number in range(1, count + 1)
    ]
    assert sum(summary.done for summary in summaries) == 10
    assert max(summary.done for summary in summaries) == -(-10 // count)
    if count == 1:
        assert content(read_cache(summaries[0].path)) == content(read_cache(whole.path))
        return
    target, images = merge_caches([summary.path for summary in summaries])
    assert (target, images) == (cache / "set/stub.h5", 10)
    assert content(read_cache(target)) == content(read_cache(whole.path))
    # The merged cache is like any other: nothing is left to do.
    (again,) = update_caches(dataset, [StubEncoder()], cache_dir=cache, prompts=SIGNS)
    assert (again.done, again.reused, again.written) == (0, 10, False)


def test_repeated_shard_does_nothing(dataset, cache):
    encoder = StubEncoder()
    update_caches(dataset, [encoder], cache_dir=cache, shard=Shard(2, 3))
    (again,) = update_caches(dataset, [encoder], cache_dir=cache, shard=Shard(2, 3))
    assert (again.done, again.reused) == (0, 3)
    np.testing.assert_array_equal(read_cache(again.path).ids, ["i001", "i004", "i007"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "whose splits differ"),
        ({"patient": "p9"}, "whose patients differ"),
        ({"path": ["i005.png", "i004.png"]}, "whose paths differ"),
        ({"label": 1}, "whose labels differ"),
    ],
)
def test_shards_of_a_table_that_changed_in_between_are_refused(
    dataset, root, cache, change, message
):
    (one,) = update_caches(dataset, [StubEncoder()], cache_dir=cache, shard=Shard(1, 2))
    images, labels = dataset.images.copy(), dataset.label_values.copy()
    if "label" in change:
        labels[4, 0] = change["label"]
    else:
        for column, value in change.items():
            images.loc[images["patient"] == "p2", column] = value
    changed = make_dataset(root, images["id"], images=images, labels=labels)
    (two,) = update_caches(changed, [StubEncoder()], cache_dir=cache, shard=Shard(2, 2))
    with pytest.raises(CacheError, match=message):
        merge_caches([one.path, two.path])
    update_caches(changed, [StubEncoder()], cache_dir=cache, shard=Shard(1, 2))
    assert merge_caches([one.path, two.path])[1] == 10
