"""Work side by side: calls in lanes, each on its share of the processor's cores."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass
class OrderedThreadPool(Generic[Result]):
    """Runs calls in as many threads as there are lanes and gives their results in order.

    A network that spreads each of its operations over all cores waits, at the end of every one, for
    the core that something else has borrowed. Lanes wait for nobody: each computes its own.
    """

    pool: ThreadPoolExecutor
    number: int
    waiting: deque[Future[Result]] = field(default_factory=deque)

    def submit(self, call: Callable[[], Result]) -> None:
        """Take a call."""
        self.waiting.append(self.pool.submit(call))

    def ready(self) -> Iterator[Result]:
        """The results that are due: no more calls stay behind than there are lanes."""
        while len(self.waiting) > self.number:
            yield self.waiting.popleft().result()

    def rest(self) -> Iterator[Result]:
        """The results that are still to come."""
        while self.waiting:
            yield self.waiting.popleft().result()


@contextmanager
def worker_threads(device: str, *, most: int) -> "Iterator[OrderedThreadPool[Any]]":
    """Lanes for work on a device: one for a GPU, on a processor one for each of torch's threads.

    There are no more than ``most``. On a processor, torch's threads are shared out among them until
    the lanes are closed. Calls that have not begun when an error or an interrupt closes them never
    will.
    """
    import torch

    threads = torch.get_num_threads()
    number = min(threads, most) if device == "cpu" else 1
    if number > 1:
        # A thread takes the number over when it first computes: the lanes' threads are new.
        torch.set_num_threads(threads // number)
    pool = ThreadPoolExecutor(number, thread_name_prefix="lane")
    try:
        yield OrderedThreadPool(pool, number)
    finally:
        pool.shutdown(cancel_futures=True)
        if number > 1:
            torch.set_num_threads(threads)
