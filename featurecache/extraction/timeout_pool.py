"""Threads for calls that may never return."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final, Generic, TypeVar

Result = TypeVar("Result")

GRACE: Final = 0.5
"""Seconds that a call gets when its time is up. The clock runs on while the process is stopped
(Ctrl-Z, a laptop that sleeps); what was only stopped ends now."""


class TimedOut(Exception):  # noqa: N818
    """A call took longer than it may."""


@dataclass(eq=False)
class Call(Generic[Result]):
    """A call that was handed to a pool."""

    function: Callable[[], Result]
    future: Future[Result] = field(default_factory=Future)
    has_begun: Event = field(default_factory=Event)
    begun: float = 0.0
    given_up: bool = False

    def ends_within(self, seconds: float) -> bool:
        """Wait for it so long, and tell whether it has ended."""
        try:
            self.future.exception(max(0.0, seconds))
        except TimeoutError:
            return self.future.done()
        return True


class TimeoutPool:
    """Runs calls in threads, in order; one that takes too long is given up, its thread replaced.

    ``concurrent.futures`` waits at the end of the process for whatever its threads do. Here a
    thread whose call never returns is left behind, and ends with the process.
    """

    def __init__(self, workers: int, *, seconds: float, name: str) -> None:
        """Start the threads.

        Args:
            workers: how many.
            seconds: that a call may take.
            name: of the threads.
        """
        self._seconds = seconds
        self._name = name
        self._calls: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._given_up: list[Call[Any]] = []
        for _ in range(workers):
            self._start()

    @property
    def stuck(self) -> int:
        """How many calls were given up and have not returned yet."""
        self._given_up = [call for call in self._given_up if not call.future.done()]
        return len(self._given_up)

    def submit(self, function: Callable[[], Result]) -> Call[Result]:
        """Take a call."""
        call = Call(function)
        self._calls.put(call)
        return call

    def result(self, call: Call[Result]) -> Result:
        """Wait for a call; calls are asked for in the order in which they were handed in.

        Raises:
            TimedOut: it took too long; what it gives later is thrown away.
        """
        # All calls before it have ended or were given up, so that a thread is free for it.
        call.has_begun.wait()
        left = call.begun + self._seconds - time.monotonic()
        if call.ends_within(left) or call.ends_within(GRACE):
            return call.future.result()
        call.given_up = True
        self._given_up.append(call)
        self._start()
        raise TimedOut

    def close(self) -> None:
        """Forget the calls that have not begun, and wait a moment for the others."""
        try:
            while True:
                self._calls.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._calls.put(None)
        end = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _start(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.begun = time.monotonic()
            call.has_begun.set()
            try:
                call.future.set_result(call.function())
            except BaseException as error:  # noqa: BLE001
                call.future.set_exception(error)  # raised where the result is asked for
            if call.given_up:
                return
