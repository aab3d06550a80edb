"""Run calls in parallel, each thread on its share of the processor's cores."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass
class OrderedThreadPool(Generic[Result]):
    """Runs calls in threads and yields their results in the order of submission.

    A network that spreads each operation over all cores waits after every one for the core that
    something else is using. Threads with cores of their own do not wait for each other.

    Attributes:
        pool: The threads.
        workers: The number of threads.
        pending: Calls whose results have not been taken yet, oldest first.
    """

    pool: ThreadPoolExecutor
    workers: int
    pending: deque[Future[Result]] = field(default_factory=deque)

    def submit(self, call: Callable[[], Result]) -> None:
        """Queue a call."""
        self.pending.append(self.pool.submit(call))

    def completed(self) -> Iterator[Result]:
        """Yield the oldest results until no more calls are pending than there are threads."""
        while len(self.pending) > self.workers:
            yield self.pending.popleft().result()

    def drain(self) -> Iterator[Result]:
        """Yield all remaining results."""
        while self.pending:
            yield self.pending.popleft().result()


def worker_count(device: str, *, max_workers: int) -> int:
    """Return the number of threads that ``worker_threads`` opens."""
    import torch

    if device == "cpu":
        return min(torch.get_num_threads(), max_workers)
    return 2 if device == "cuda" else 1


@contextmanager
def worker_threads(device: str, *, max_workers: int) -> "Iterator[OrderedThreadPool[Any]]":
    """Open a thread pool for work on a device.

    On a CPU there is one thread for each of torch's threads, which are divided among them until
    the pool is closed. For CUDA there are two: one stacks a batch and copies it to the GPU while
    the other one computes. For MPS there is one. Calls that have not started when an error or an
    interrupt closes the pool never start.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        max_workers: Largest number of threads.
    """
    import torch

    torch_threads = torch.get_num_threads()
    workers = worker_count(device, max_workers=max_workers)
    if device == "cpu":
        # A thread adopts the number when it first computes, and the threads of the pool are new.
        torch.set_num_threads(torch_threads // workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")
    try:
        yield OrderedThreadPool(pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
        if device == "cpu":
            torch.set_num_threads(torch_threads)
