"""The cache does not depend on the number of encoder threads."""

import numpy as np
import pytest
import torch

from featurecache.extraction.update import update_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder


@pytest.fixture
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_as_before")
def test_several_threads_give_the_cache_of_one(dataset, tmp_path):
    torch.set_num_threads(1)
    (one,) = update_caches(dataset, [StubEncoder()], cache_dir=tmp_path / "one", batch_size=3)
    torch.set_num_threads(3)
    slow = StubEncoder(seconds=0.01)
    (several,) = update_caches(dataset, [slow], cache_dir=tmp_path / "several", batch_size=3)
    assert sorted(slow.encoded) == list(range(10))
    first, second = read_cache(one.path), read_cache(several.path)
    assert first.ids.tolist() == second.ids.tolist()
    np.testing.assert_array_equal(first.embedding, second.embedding)
