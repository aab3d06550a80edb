"""The engine that runs on Ray: a pool of workers encodes segments of the data set."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from featurecache.errors import FeaturecacheError
from featurecache.extraction.decode import ImageTask, JournalEntry
from featurecache.extraction.encode import EventHandler, common_device
from featurecache.extraction.ray_cluster import WorkerPool, plan_workers, ray_cluster, require_ray
from featurecache.extraction.worker import (
    SEGMENTS_PER_WORKER,
    Segment,
    Worker,
    WorkerSettings,
    split_into_segments,
)

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

_log = logging.getLogger(__name__)

MAX_FAILED_STARTS: Final = 3
"""Number of workers in a row that may be lost while they load their encoders."""

CLOSING_SECONDS: Final = 5.0
"""Maximum time that workers are given to remove their files at the end."""


def encode_on_ray(
    tasks: Iterable[ImageTask],
    encoders: Sequence["Encoder"],
    handle: EventHandler,
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    journal_entry: JournalEntry,
    loads: Sequence[Callable[[], "Encoder"]],
) -> None:
    """Encode in a pool of Ray actors that fills the cluster; see ``Engine``.

    An actor decodes and encodes whole segments, so pixels never leave its process, and returns each
    batch as soon as it is encoded. If an actor is lost, it is replaced, and the rest of its
    segments is encoded by others. The actors use the same kind of device as the encoders here.

    Args:
        tasks: See ``Engine``. The actors read the files at the same absolute paths.
        encoders: See ``Engine``. They do not encode anything in this process.
        handle: See ``Engine``.
        batch_size: See ``Engine``.
        workers: See ``Engine``.
        image_timeout: See ``Engine``.
        journal_entry: Not used: no image is decoded in this process.
        loads: See ``WorkerSettings``.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be joined or does not have the
            device.
        FeaturecacheError: An actor loaded another encoder, or Ray gave up.
    """
    require_ray()
    segments = split_into_segments(tasks, batch_size=batch_size)
    if not segments:
        return
    with ray_cluster():
        import ray

        pool = plan_workers(
            [node["Resources"] for node in ray.nodes() if node["Alive"]],
            device=common_device(encoders),
            decoding_threads=workers,
        )
        settings = WorkerSettings(loads, batch_size, workers, image_timeout)
        with closing(_ActorPool(settings, pool, segments)) as actors:
            try:
                actors.run(handle)
            except ray.exceptions.RayError as error:
                raise FeaturecacheError(
                    f"Ray gave up ({_last_line(error)}): finished images are kept, and the same "
                    "call continues from there"
                ) from error


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


@dataclass(frozen=True)
class _Call:
    """What one of the actors is doing."""

    index: int
    segment: Segment | None
    """What it encodes; None while it loads its encoders."""


class _ActorPool:
    """Actors that encode segments. One that is lost is replaced."""

    def __init__(
        self, settings: "WorkerSettings", pool: WorkerPool, segments: deque[Segment]
    ) -> None:
        import ray

        self._settings = settings
        self._segments = segments
        # A thread is left for the call that closes the actor.
        self._class = ray.remote(
            num_cpus=pool.cpus, num_gpus=pool.gpus, max_concurrency=SEGMENTS_PER_WORKER + 1
        )(Worker)
        # An actor that is replaced on the same machine leaves its journal to the next one.
        self._journal_name = f"featurecache-{uuid4().hex}"
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, _Call] = {}
        for index in range(min(pool.workers, len(segments))):
            self._start(index)

    def _start(self, index: int) -> None:
        """Start an actor, which takes no segments before the cluster has room for it."""
        self._actors[index] = self._class.remote(
            self._settings, f"{self._journal_name}-{index}.journal"
        )
        self._call(index, None)

    def _call(self, index: int, segment: Segment | None) -> None:
        results = self._actors[index].encode.remote(segment.remaining() if segment else [])
        self._calls[results] = _Call(index, segment)

    def run(self, handle: EventHandler) -> None:
        """Encode all segments, and handle the events in this thread.

        Raises:
            FeaturecacheError: An actor returned it.
            RayError: Actors cannot be started, or an actor failed.
        """
        import ray

        failed_starts = 0
        while self._segments or any(call.segment for call in self._calls.values()):
            (results, *_), _ = ray.wait(list(self._calls), num_returns=1)
            call = self._calls[results]
            try:
                events = ray.get(next(results))
            except StopIteration:
                del self._calls[results]
                self._supply()
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                failed_starts += call.segment is None
                if failed_starts == MAX_FAILED_STARTS:
                    raise
                _log.warning(
                    f"a worker was lost, its images are encoded again: {_last_line(error)}"
                )
                self._replace(call.index)
                self._supply()
            else:
                failed_starts = 0
                for event, seconds in events:
                    if isinstance(event, FeaturecacheError):
                        raise event
                    if call.segment:
                        call.segment.receive(event, seconds, handle)

    def _supply(self) -> None:
        """Give segments to all actors that can take one."""
        free = dict.fromkeys(self._actors, SEGMENTS_PER_WORKER)
        for call in self._calls.values():
            free[call.index] -= 1 if call.segment else SEGMENTS_PER_WORKER
        for index, count in free.items():
            for _ in range(min(count, len(self._segments))):
                self._call(index, self._segments.popleft())

    def _replace(self, index: int) -> None:
        import ray

        ray.kill(self._actors[index])
        lost = [results for results, call in self._calls.items() if call.index == index]
        segments = [self._calls.pop(results).segment for results in lost]
        self._segments.extendleft(
            segment for segment in reversed(segments) if segment and segment.remaining()
        )
        self._start(index)

    def close(self) -> None:
        """End the actors, also those that are still encoding."""
        import ray

        closing = [actor.close.remote() for actor in self._actors.values()]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSING_SECONDS)
        for actor in self._actors.values():
            ray.kill(actor)
