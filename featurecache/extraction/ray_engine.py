"""The engine that runs on Ray: a pool of workers encodes segments of the data set."""

import atexit
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.concurrency import OrderedThreadPool, worker_threads
from featurecache.errors import FeaturecacheError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import ImageTask, JournalEntry
from featurecache.extraction.encode import (
    MAX_ENCODER_THREADS,
    Event,
    EventHandler,
    common_device,
    encode_ahead,
    segment_of,
    with_wait_times,
)
from featurecache.extraction.ray_cluster import plan_workers, ray_cluster, require_ray
from featurecache.io.fingerprint import first_difference

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

SEGMENTS_PER_WORKER: Final = 2
"""Segments in a worker at once: the next is decoded while one is encoded."""


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

    An actor decodes and encodes whole segments, so pixels never leave its process. If an actor is
    lost, its segment is sent to another one. The actors use the same kind of device as the encoders
    here.

    Args:
        tasks: See ``Engine``. The actors read the files at the same absolute paths.
        encoders: See ``Engine``. They do not encode anything in this process.
        handle: See ``Engine``.
        batch_size: See ``Engine``.
        workers: See ``Engine``.
        image_timeout: See ``Engine``.
        journal_entry: Not used: no image is decoded in this process.
        loads: A function for each encoder that loads it in an actor, because an encoder cannot be
            pickled.

    Raises:
        UsageError: Ray Data is not installed, or the cluster cannot be joined or does not have the
            device.
        FeaturecacheError: An actor loaded another encoder, or Ray gave up.
    """
    require_ray()
    absolute = (replace(task, path=task.path.absolute()) for task in tasks)
    segments = [
        list(group) for _, group in groupby(absolute, key=lambda t: segment_of(t.row, batch_size))
    ]
    if not segments:
        return
    with ray_cluster():
        import ray
        import ray.data

        pool = plan_workers(
            [node["Resources"] for node in ray.nodes() if node["Alive"]],
            device=common_device(encoders),
            decoding_threads=workers,
        )
        settings = ActorSettings(
            loads=loads,
            descriptions=[dict(encoder.image_spec) for encoder in encoders],
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
        )
        results = ray.data.from_items(
            [{"segment": segment} for segment in segments], override_num_blocks=len(segments)
        ).map_batches(
            Actor,
            fn_constructor_args=(settings,),
            batch_size=1,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.workers, len(segments)),
                max_concurrent_calls_per_actor=SEGMENTS_PER_WORKER,
                enable_true_multi_threading=True,
            ),
        )
        try:
            for row in results.iter_rows():
                if isinstance(row["event"], FeaturecacheError):
                    raise row["event"]
                handle(row["event"], row["seconds"])
        except ray.exceptions.RayError as error:
            raise FeaturecacheError(
                f"Ray gave up ({str(error).strip().splitlines()[-1]}): finished images are kept, "
                "and the same call continues from there"
            ) from error


@dataclass(frozen=True)
class ActorSettings:
    """What an actor needs to know; the first two are for each encoder."""

    loads: Sequence[Callable[[], "Encoder"]]
    descriptions: Sequence[Mapping[str, Any]]
    batch_size: int
    workers: int
    image_timeout: float


class Actor:
    """Encode segments with encoders of its own, which are loaded once."""

    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._encoders: list[Encoder] = []
        self._threads: OrderedThreadPool[Any] | None = None
        self._resources = ExitStack()
        self._opening = Lock()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """Return the events of a batch of segments; an error is returned as the only event."""
        events: list[tuple[Event | FeaturecacheError, float]]
        try:
            events = [
                event
                for segment in batch["segment"]
                for event in with_wait_times(self._encode(segment))
            ]
        except FeaturecacheError as error:
            # Raised here, it would be wrapped in Ray's tracebacks; and not every class of error can
            # be unpickled.
            events = [(FeaturecacheError(f"on {platform.node()}: {error}"), 0.0)]
        return {
            "event": np.array([event for event, _ in events], dtype=object),
            "seconds": np.array([seconds for _, seconds in events]),
        }

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
        for encoder, expected in zip(self._encoders, self._settings.descriptions, strict=True):
            if difference := first_difference(expected, encoder.image_spec):
                raise FeaturecacheError(
                    f"{encoder.name} is another encoder here ({difference}): every machine of the "
                    "cluster needs the same weights and library versions"
                )
        journal_file = _journal_file()
        self._journal = self._resources.enter_context(closing(CrashJournal([journal_file])))
        # At the normal end of the actor; a crash leaves the file.
        atexit.register(journal_file.unlink, missing_ok=True)
        self._threads = self._resources.enter_context(
            worker_threads(common_device(self._encoders), max_workers=MAX_ENCODER_THREADS)
        )
        return self._threads


def _journal_file() -> Path:
    """Return where an actor, restarted on the same machine, finds the journal of its crash."""
    import ray

    # Ray restarts an actor with the same id.
    actor_id = ray.get_runtime_context().get_actor_id()
    return Path(tempfile.gettempdir()) / f"featurecache-{actor_id}.journal"
