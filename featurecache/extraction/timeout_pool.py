"""A thread pool with a timeout, for calls that may never return."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final, Generic, TypeVar

Result = TypeVar("Result")

GRACE: Final = 0.5
"""Extra seconds for a call whose time is up. The clock keeps running while the process is suspended
(Ctrl-Z, a sleeping laptop); a call that was merely suspended finishes within this time."""


class TimedOut(Exception):  # noqa: N818
    """A call exceeded the timeout."""


@dataclass(eq=False)
class Call(Generic[Result]):
    """A call that was submitted to a pool."""

    function: Callable[[], Result]
    future: Future[Result] = field(default_factory=Future)
    started: Event = field(default_factory=Event)
    start_time: float = 0.0
    abandoned: bool = False

    def wait(self, timeout: float) -> bool:
        """Wait for at most ``timeout`` seconds; return whether the call has finished."""
        try:
            self.future.exception(max(0.0, timeout))
        except TimeoutError:
            return self.future.done()
        return True


class TimeoutPool:
    """Run calls in threads, in order; abandon a call that exceeds the timeout.

    ``concurrent.futures`` waits at interpreter exit for whatever its threads are doing. Here, the
    thread of a call that never returns is replaced and left behind; it ends with the process.
    """

    def __init__(self, workers: int, *, timeout: float, name: str) -> None:
        """Start the threads.

        Args:
            workers: Number of threads.
            timeout: Maximum duration of a call, in seconds.
            name: Prefix of the threads' names.
        """
        self._timeout = timeout
        self._name = name
        self._queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._abandoned: list[Call[Any]] = []
        for _ in range(workers):
            self._start_thread()

    @property
    def stuck(self) -> int:
        """Number of abandoned calls that have not returned yet."""
        self._abandoned = [call for call in self._abandoned if not call.future.done()]
        return len(self._abandoned)

    def submit(self, function: Callable[[], Result]) -> Call[Result]:
        """Queue a call."""
        call = Call(function)
        self._queue.put(call)
        return call

    def result(self, call: Call[Result]) -> Result:
        """Wait for the result of a call; results must be asked for in the order of submission.

        Raises:
            TimedOut: The call exceeded the timeout; its result, if any, is discarded.
        """
        # All earlier calls have finished or were abandoned, so a thread is free for this one.
        call.started.wait()
        remaining = call.start_time + self._timeout - time.monotonic()
        if call.wait(remaining) or call.wait(GRACE):
            return call.future.result()
        call.abandoned = True
        self._abandoned.append(call)
        self._start_thread()
        raise TimedOut

    def close(self) -> None:
        """Cancel the calls that have not started, and wait briefly for the others."""
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start_thread(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call.start_time = time.monotonic()
            call.started.set()
            try:
                call.future.set_result(call.function())
            except BaseException as error:  # noqa: BLE001
                call.future.set_exception(error)  # raised where the result is asked for
            if call.abandoned:
                return
