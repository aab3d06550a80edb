"""Lanes: results in order, as many at once as there are threads, and torch's threads given back."""

import threading
import time

import numpy as np
import pytest
import torch
from stub_encoder import StubEncoder

from featurecache.extraction.extract import extract
from featurecache.extraction.lanes import MOST_LANES, open_lanes
from featurecache.store.reader import read_cache


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "lanes"), [(1, 1), (2, 2), (9, MOST_LANES)], indirect=["threads"]
)
def test_threads_are_shared_out_among_lanes_and_given_back(threads, lanes):
    with open_lanes("cpu") as opened:
        assert opened.number == lanes
        opened.submit(torch.get_num_threads)
        assert list(opened.rest()) == [threads // lanes]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_a_gpu_has_one_lane(threads):
    with open_lanes("cuda") as opened:
        assert opened.number == 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_calls_run_at_once_and_their_results_come_in_order(threads):
    meeting = threading.Barrier(2, timeout=10)

    def call(number: int) -> int:
        meeting.wait()  # nobody passes alone
        time.sleep(0.05 if number % 2 == 0 else 0)
        return number

    found = []
    with open_lanes("cpu") as opened:
        for number in range(6):
            opened.submit(lambda number=number: call(number))
            found += opened.ready()
        found += opened.rest()
    assert found == list(range(6))


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_of_a_call_is_raised(threads):
    def fail():
        raise ValueError("no such luck")

    with open_lanes("cpu") as opened:
        opened.submit(fail)
        with pytest.raises(ValueError, match="no such luck"):
            list(opened.rest())


@pytest.mark.parametrize("threads", [3], indirect=True)
def test_an_extraction_in_several_lanes_gives_the_cache_of_one(threads, manifest, tmp_path):
    torch.set_num_threads(1)
    (one,) = extract(manifest, [StubEncoder()], cache=tmp_path / "one", batch_size=3)
    torch.set_num_threads(threads)
    slow = StubEncoder(seconds=0.01)
    (several,) = extract(manifest, [slow], cache=tmp_path / "several", batch_size=3)
    assert sorted(slow.encoded) == list(range(10))
    first, second = read_cache(one.path), read_cache(several.path)
    assert first.ids.tolist() == second.ids.tolist()
    np.testing.assert_array_equal(first.embedding, second.embedding)
