"""A thread pool whose calls may never return."""

import threading
import time
from types import SimpleNamespace

import pytest

from featurecache.extraction import timeout_pool
from featurecache.extraction.timeout_pool import TimedOut, TimeoutPool


def test_stuck_call_is_abandoned_and_thread_replaced():
    release = threading.Event()
    pool = TimeoutPool(1, timeout=0.05, name="test")
    calls = [pool.submit(call) for call in (lambda: 1, release.wait, lambda: 3)]
    assert pool.result(calls[0]) == 1
    with pytest.raises(TimedOut):
        pool.result(calls[1])
    assert pool.stuck == 1
    assert pool.result(calls[2]) == 3
    release.set()
    assert calls[1].wait(5)
    assert pool.stuck == 0
    pool.close()
    wait = time.monotonic() + 5
    while [t for t in threading.enumerate() if t.name.startswith("test-")]:
        assert time.monotonic() < wait
        time.sleep(0.01)


def test_time_in_queue_does_not_count():
    pool = TimeoutPool(1, timeout=0.05, name="test")
    calls = [pool.submit(lambda: time.sleep(0.04)) for _ in range(10)]
    time.sleep(0.5)
    for call in calls:
        pool.result(call)
    pool.close()


def test_suspended_process_abandons_no_call(monkeypatch):
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr(timeout_pool, "time", clock)
    pool = TimeoutPool(1, timeout=60, name="test")
    begun = threading.Event()
    call = pool.submit(lambda: (begun.set(), time.sleep(0.1), "done")[-1])
    begun.wait()
    clock.monotonic = lambda: time.monotonic() + 3600
    assert pool.result(call) == "done"
    pool.close()


def test_error_of_call_is_raised_by_result():
    def fail():
        raise TimeoutError("no answer")

    pool = TimeoutPool(1, timeout=5, name="test")
    with pytest.raises(TimeoutError, match="no answer"):
        pool.result(pool.submit(fail))
    pool.close()
