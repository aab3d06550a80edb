"""What a process does that encodes segments of the data set for another one."""

import platform
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from featurecache.concurrency import OrderedThreadPool, worker_threads
from featurecache.errors import FeaturecacheError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import ImageTask
from featurecache.extraction.encode import (
    MAX_ENCODER_THREADS,
    EncodedBatch,
    Event,
    EventHandler,
    ImageResult,
    common_device,
    encode_ahead,
    segment_of,
    with_wait_times,
)
from featurecache.io.fingerprint import first_difference

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

SEGMENTS_PER_WORKER: Final = 2
"""Segments in a worker at once: the next is decoded while one is encoded."""


class Segment:
    """The images of a segment that are not finished yet.

    A worker that is lost may have returned some of its batches. They are the first ones, so the
    remaining images form the same batches as if the whole segment had been encoded at once.
    """

    def __init__(self, tasks: Iterable[ImageTask] = ()) -> None:
        self._tasks = {task.row: task for task in tasks}
        self._read_seconds = 0.0

    def remaining(self) -> list[ImageTask]:
        """Return the tasks that a worker has to do, in order of their rows."""
        return list(self._tasks.values())

    def receive(self, event: Event, seconds: float, handle: EventHandler) -> None:
        """Pass on a batch, and the result of each image that is finished with it."""
        if isinstance(event, EncodedBatch):
            handle(event, seconds)
            for row in event.row.tolist():
                task = self._tasks[row]
                others = [index for index in task.encoders if index not in event.embeddings]
                self._tasks[row] = replace(task, encoders=others)
                self._finish(ImageResult(row, None), handle)
        else:
            self._read_seconds += seconds
            self._finish(event, handle)

    def _finish(self, result: ImageResult, handle: EventHandler) -> None:
        if result.reason is None and self._tasks[result.row].encoders:
            return
        del self._tasks[result.row]
        handle(result, self._read_seconds)
        self._read_seconds = 0.0


def split_into_segments(tasks: Iterable[ImageTask], *, batch_size: int) -> deque[Segment]:
    """Return the segments of some tasks, with absolute paths, which any process can read."""
    absolute = (replace(task, path=task.path.absolute()) for task in tasks)
    return deque(
        Segment(group)
        for _, group in groupby(absolute, key=lambda t: segment_of(t.row, batch_size))
    )


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know.

    Attributes:
        loads: A function for each encoder that loads it there, because an encoder cannot be
            pickled; see ``load_same``.
        batch_size: See ``Engine``.
        workers: See ``Engine``.
        image_timeout: See ``Engine``.
    """

    loads: Sequence[Callable[[], "Encoder"]]
    batch_size: int
    workers: int
    image_timeout: float


def load_same(load: Callable[[], "Encoder"], image_spec: Mapping[str, Any]) -> "Encoder":
    """Load an encoder where another process said what it embeds by.

    Raises:
        FeaturecacheError: It is another encoder here.
    """
    encoder = load()
    if difference := first_difference(image_spec, encoder.image_spec):
        raise FeaturecacheError(
            f"{encoder.name} is another encoder here ({difference}): every machine needs the same "
            "weights and library versions"
        )
    return encoder


class Worker:
    """Encode segments with encoders of its own, which are loaded once.

    Args:
        settings: What it needs to know.
        journal: Its journal of crashes, relative to the temporary folder of its machine.
    """

    def __init__(self, settings: WorkerSettings, journal: str | Path) -> None:
        self._settings = settings
        self._journal_file = Path(tempfile.gettempdir()) / journal
        self._encoders: list[Encoder] = []
        self._threads: OrderedThreadPool[Any] | None = None
        self._resources = ExitStack()
        self._opening = Lock()

    def encode(
        self, segment: Sequence[ImageTask]
    ) -> Iterator[list[tuple[Event | FeaturecacheError, float]]]:
        """Yield the events of a segment up to each batch; an error is the last event."""
        events: list[tuple[Event | FeaturecacheError, float]] = []
        try:
            for event, seconds in with_wait_times(self._encode(segment)):
                events.append((event, seconds))
                if isinstance(event, EncodedBatch):
                    yield events
                    events = []
        except FeaturecacheError as error:
            # Raised here, it would be wrapped in Ray's tracebacks; and not every class of error can
            # be unpickled.
            events.append((FeaturecacheError(f"on {platform.node()}: {error}"), 0.0))
        yield events

    def close(self) -> None:
        """Remove the journal: this worker ends on purpose."""
        self._journal_file.unlink(missing_ok=True)

    def _encode(self, segment: Sequence[ImageTask]) -> Iterator[Event]:
        with self._opening:
            threads = self._threads or self._open()
        journal = self._journal
        return encode_ahead(
            [replace(t, isolated=t.isolated or journal.is_suspect(t.id)) for t in segment],
            self._encoders,
            OrderedThreadPool(threads.pool, threads.workers),
            batch_size=self._settings.batch_size,
            workers=self._settings.workers,
            image_timeout=self._settings.image_timeout,
            journal_entry=journal.entry,
        )

    def _open(self) -> OrderedThreadPool[Any]:
        self._encoders = [load() for load in self._settings.loads]
        self._journal = CrashJournal([self._journal_file])
        self._threads = self._resources.enter_context(
            worker_threads(common_device(self._encoders), max_workers=MAX_ENCODER_THREADS)
        )
        return self._threads
