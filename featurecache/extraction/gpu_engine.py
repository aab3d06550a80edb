"""The engine that runs on all GPUs of this machine: a process for each encodes segments."""

import logging
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Final

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.decode import ImageTask, JournalEntry
from featurecache.extraction.encode import EventHandler
from featurecache.extraction.worker import (
    SEGMENTS_PER_WORKER,
    Segment,
    Worker,
    WorkerSettings,
    split_into_segments,
)

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

MAX_LOST: Final = 3
"""Number of processes in a row that may be lost without a result."""
CLOSING_SECONDS: Final = 5.0
"""Maximum time that processes are given to end."""

_log = logging.getLogger(__name__)


def visible_gpus() -> list[str]:
    """Return the names of the CUDA devices of this machine, as CUDA_VISIBLE_DEVICES takes them.

    Raises:
        UsageError: There is none.
    """
    import torch

    number = torch.cuda.device_count()
    if not number:
        raise UsageError("this machine has no cuda device: set `device` to auto or cpu")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name.strip() for name in chosen if name.strip()] or list(map(str, range(number)))
    return names[:number]  # CUDA ignores a name that is not there, and all after it


def encode_on_gpus(
    tasks: Iterable[ImageTask],
    encoders: Sequence["Encoder"],
    handle: EventHandler,
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    journal_entry: JournalEntry,
    loads: Sequence[Callable[[], "Encoder"]],
    gpus: Sequence[str],
) -> None:
    """Encode in one process for each GPU; see ``Engine``.

    A process decodes and encodes whole segments, and returns each batch as soon as it is encoded.
    One that is lost is replaced, and the rest of its segments is encoded again.

    Args:
        tasks: See ``Engine``.
        encoders: See ``Engine``. They do not encode anything in this process.
        handle: See ``Engine``.
        batch_size: See ``Engine``.
        workers: See ``Engine``.
        image_timeout: See ``Engine``.
        journal_entry: Not used: no image is decoded in this process.
        loads: See ``WorkerSettings``.
        gpus: The GPUs; see ``visible_gpus``.

    Raises:
        FeaturecacheError: A process loaded another encoder, or processes were lost repeatedly.
    """
    segments = split_into_segments(tasks, batch_size=batch_size)
    settings = WorkerSettings(loads, batch_size, workers, image_timeout)
    with (
        TemporaryDirectory(prefix="featurecache-") as journals,
        closing(_ProcessPool(settings, Path(journals), segments)) as pool,
    ):
        for gpu in gpus[: len(segments)]:
            pool.start(gpu)
        pool.run(handle)


@dataclass
class _Process:
    """A process on a GPU, and the segments that it is encoding, by number."""

    gpu: str
    process: SpawnProcess
    segments: dict[int, Segment] = field(default_factory=dict)


class _ProcessPool:
    """Processes that encode segments. One that is lost is replaced."""

    def __init__(self, settings: WorkerSettings, journals: Path, segments: deque[Segment]) -> None:
        self._settings = settings
        self._journals = journals
        self._segments = segments
        self._processes: dict[Connection, _Process] = {}
        self._numbers = count()

    def start(self, gpu: str) -> None:
        """Start a process, and give it its first segments."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # A process that is replaced leaves its journal to the next one.
        journal = self._journals / f"{gpu}.journal"
        process = context.Process(target=_serve, args=(theirs, self._settings, journal, gpu))
        process.start()
        theirs.close()
        self._processes[ours] = _Process(gpu, process)
        for _ in range(SEGMENTS_PER_WORKER):
            self._supply(ours)

    def _supply(self, connection: Connection) -> None:
        if self._segments:
            segment = self._segments.popleft()
            number = next(self._numbers)
            self._processes[connection].segments[number] = segment
            connection.send((number, segment.remaining()))

    def run(self, handle: EventHandler) -> None:
        """Encode all segments, and handle the events in this thread.

        Raises:
            FeaturecacheError: A process returned it, or too many were lost.
        """
        lost = 0
        while any(process.segments for process in self._processes.values()):
            for ready in wait(list(self._processes)):
                assert isinstance(ready, Connection)
                try:
                    number, events = ready.recv()
                except (EOFError, OSError):
                    lost += 1
                    self._replace(ready, is_last=lost == MAX_LOST)
                    continue
                lost = 0
                segments = self._processes[ready].segments
                if events is None:
                    del segments[number]
                    self._supply(ready)
                    continue
                for event, seconds in events:
                    if isinstance(event, FeaturecacheError):
                        raise event
                    segments[number].receive(event, seconds, handle)

    def _replace(self, connection: Connection, *, is_last: bool) -> None:
        lost = self._processes.pop(connection)
        connection.close()
        lost.process.join()
        reason = f"the process on GPU {lost.gpu} ended with exit code {lost.process.exitcode}"
        if is_last:
            raise FeaturecacheError(
                f"{reason}: finished images are kept, and the same call continues from there"
            )
        _log.warning(f"{reason}: its images are encoded again")
        self._segments.extendleft(
            segment for segment in reversed(lost.segments.values()) if segment.remaining()
        )
        self.start(lost.gpu)

    def close(self) -> None:
        """End the processes, also those that are still encoding."""
        for connection, process in self._processes.items():
            connection.close()
            process.process.terminate()
        for process in self._processes.values():
            process.process.join(CLOSING_SECONDS)
            process.process.kill()


def _serve(connection: Connection, settings: WorkerSettings, journal: Path, gpu: str) -> None:
    """Encode the segments that come through a connection, until it is closed."""
    # The process that started this one decides what an interrupt means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    worker = Worker(settings, journal)
    sending = Lock()

    def encode(number: int, tasks: Sequence[ImageTask]) -> None:
        for events in worker.encode(tasks):
            with sending:
                connection.send((number, events))
        with sending:
            connection.send((number, None))

    with ThreadPoolExecutor(SEGMENTS_PER_WORKER) as threads:
        while True:
            try:
                number, tasks = connection.recv()
            except EOFError:
                return
            threads.submit(encode, number, tasks).add_done_callback(_exit_on_error)


def _exit_on_error(call: "Future[None]") -> None:
    """End this process if a call failed, which tells the one that started it."""
    if (error := call.exception()) is not None:
        if not isinstance(error, BrokenPipeError):
            traceback.print_exception(error)
        os._exit(1)
