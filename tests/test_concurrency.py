"""Lanes: results in order, as many at once as there are threads, and torch's threads given back."""

import threading
import time

import pytest
import torch

from featurecache.concurrency import worker_threads


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (2, 2), (9, 4)], indirect=["threads"])
def test_threads_are_shared_out_among_lanes_and_given_back(threads, lanes):
    with worker_threads("cpu", most=4) as opened:
        assert opened.number == lanes
        opened.submit(torch.get_num_threads)
        assert list(opened.rest()) == [threads // lanes]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_a_gpu_has_one_lane(threads):
    with worker_threads("cuda", most=4) as opened:
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
    with worker_threads("cpu", most=4) as opened:
        for number in range(6):
            opened.submit(lambda number=number: call(number))
            found += opened.ready()
        found += opened.rest()
    assert found == list(range(6))


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_of_a_call_is_raised(threads):
    def fail():
        raise ValueError("no such luck")

    with worker_threads("cpu", most=4) as opened:
        opened.submit(fail)
        with pytest.raises(ValueError, match="no such luck"):
            list(opened.rest())


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_after_an_error_waiting_calls_never_begin(threads):
    began = []
    release = threading.Event()

    def call(number: int) -> None:
        began.append(number)
        release.wait(10)

    def interrupted() -> None:
        with worker_threads("cpu", most=1) as opened:
            for number in range(5):
                opened.submit(lambda number=number: call(number))
            while not began:
                time.sleep(0.001)
            threading.Timer(0.05, release.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert began == [0]
