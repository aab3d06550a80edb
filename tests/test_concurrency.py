"""The thread pool: results in order, and torch's threads divided and restored."""

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


@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (2, 2), (9, 4)], indirect=["threads"])
def test_torch_threads_are_divided_among_workers_and_restored(threads, workers):
    with worker_threads("cpu", max_workers=4) as pool:
        assert pool.workers == workers
        pool.submit(torch.get_num_threads)
        assert list(pool.drain()) == [threads // workers]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
@pytest.mark.parametrize(("device", "workers"), [("cuda", 2), ("mps", 1)])
def test_gpu_has_workers_of_its_own_number(threads, device, workers):
    with worker_threads(device, max_workers=4) as pool:
        assert pool.workers == workers
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_calls_run_in_parallel_and_results_keep_their_order(threads):
    barrier = threading.Barrier(2, timeout=10)

    def call(number: int) -> int:
        barrier.wait()  # only two calls together pass
        time.sleep(0.05 if number % 2 == 0 else 0)
        return number

    results = []
    with worker_threads("cpu", max_workers=4) as pool:
        for number in range(6):
            pool.submit(lambda number=number: call(number))
            results += pool.completed()
        results += pool.drain()
    assert results == list(range(6))


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_error_of_a_call_is_raised(threads):
    def fail():
        raise ValueError("no such luck")

    with worker_threads("cpu", max_workers=4) as pool:
        pool.submit(fail)
        with pytest.raises(ValueError, match="no such luck"):
            list(pool.drain())


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_pending_calls_never_start_after_an_error(threads):
    started = []
    release = threading.Event()

    def call(number: int) -> None:
        started.append(number)
        release.wait(10)

    def interrupted() -> None:
        with worker_threads("cpu", max_workers=1) as pool:
            for number in range(5):
                pool.submit(lambda number=number: call(number))
            while not started:
                time.sleep(0.001)
            threading.Timer(0.05, release.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started == [0]
