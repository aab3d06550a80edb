"""The engine that runs on Ray: runs of images go to a pool of actors, embeddings come back."""

import atexit
import logging
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.concurrency import OrderedThreadPool, worker_threads
from featurecache.errors import FeaturecacheError, UsageError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import Item, Mark
from featurecache.extraction.encode import (
    MOST_LANES,
    Event,
    Take,
    device_of,
    encode_ahead,
    run_of,
    timed,
)
from featurecache.io.fingerprint import first_difference

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
"""Ray's own: the cluster to join."""

RUNS_AT_ONCE: Final = 2
"""For each actor: one is encoded while the first batch of the next is decoded."""

Load = Callable[[], "Encoder"]


def require_ray() -> None:
    """Refuse early, with the command to type, where Ray Data is not installed.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise UsageError("--engine ray needs Ray Data: pip install 'featurecache[ray]'")


def encode_on_ray(
    items: Iterable[Item],
    encoders: Sequence["Encoder"],
    take: Take,
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    mark: Mark,
    loads: Sequence[Load],
) -> None:
    """Encode in a pool of Ray's actors that fills the cluster; see ``Engine``.

    An actor decodes and encodes one run behind another, so that pixels never leave its process. The
    run of an actor that is lost goes to another one. The actors' device is of the kind that the
    encoders are on here.

    Args:
        items: see ``Engine``; actors read their files by the same absolute paths.
        encoders: they encode nothing here.
        take: see ``Engine``.
        batch_size: see ``Engine``.
        workers: see ``Engine``.
        image_timeout: see ``Engine``.
        mark: not entered here, where nothing is decoded.
        loads: for each encoder what gives it in an actor: an encoder cannot be sent there itself.

    Raises:
        UsageError: Ray Data is not installed, or the cluster cannot be joined or has no such
            device.
        FeaturecacheError: what an actor loaded is another encoder, or Ray gave up.
    """
    require_ray()
    whole = (replace(item, path=item.path.absolute()) for item in items)
    runs = [list(run) for _, run in groupby(whole, key=lambda item: run_of(item.row, batch_size))]
    if not runs:
        return
    with _cluster():
        import ray
        import ray.data

        pool = _pool(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], encoders, workers
        )
        dataset = ray.data.from_items(
            [{"run": run} for run in runs], override_num_blocks=len(runs)
        ).map_batches(
            _Actor,
            fn_constructor_args=(
                loads,
                [dict(encoder.image_spec) for encoder in encoders],
                batch_size,
                workers,
                image_timeout,
            ),
            batch_size=1,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.actors, len(runs)),
                max_concurrent_calls_per_actor=RUNS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
        )
        try:
            for row in dataset.iter_rows():
                if isinstance(row["event"], FeaturecacheError):
                    raise row["event"]
                take(row["event"], row["seconds"])
        except ray.exceptions.RayError as error:
            raise FeaturecacheError(
                f"Ray gave up ({str(error).strip().splitlines()[-1]}): what was finished is kept, "
                "and the same command goes on"
            ) from error


class _Actor:
    """Encodes runs with encoders of its own, which it loads once."""

    def __init__(
        self,
        loads: Sequence[Load],
        descriptions: Sequence[Mapping[str, Any]],
        batch_size: int,
        workers: int,
        image_timeout: float,
    ) -> None:
        self._loads = loads
        self._descriptions = descriptions
        self._batch_size = batch_size
        self._workers = workers
        self._image_seconds = image_timeout
        self._encoders: list[Encoder] = []
        self._lanes: OrderedThreadPool[Any] | None = None
        self._life = ExitStack()
        self._opening = Lock()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """What came of a batch's runs; a FeaturecacheError, as the only event, for a refusal."""
        events: list[tuple[Event | FeaturecacheError, float]]
        try:
            events = [event for run in batch["run"] for event in timed(self._encode(run))]
        except FeaturecacheError as error:
            # Raised here it would come with Ray's traces around it; and not every class of error
            # can be unpickled.
            events = [(FeaturecacheError(f"on {platform.node()}: {error}"), 0.0)]
        return {
            "event": np.array([event for event, _ in events], dtype=object),
            "seconds": np.array([seconds for _, seconds in events]),
        }

    def _encode(self, run: Sequence[Item]) -> Iterator[Event]:
        with self._opening:
            lanes = self._lanes or self._open()
        bookmarks = self._bookmarks
        return encode_ahead(
            [replace(item, apart=item.apart or bookmarks.suspects(item.id)) for item in run],
            self._encoders,
            OrderedThreadPool(lanes.pool, lanes.number),
            batch_size=self._batch_size,
            workers=self._workers,
            image_timeout=self._image_seconds,
            mark=bookmarks.at,
        )

    def _open(self) -> OrderedThreadPool[Any]:
        self._encoders = [load() for load in self._loads]
        for encoder, wanted in zip(self._encoders, self._descriptions, strict=True):
            if difference := first_difference(wanted, encoder.image_spec):
                raise FeaturecacheError(
                    f"{encoder.name} is another encoder here ({difference}): every machine of the "
                    "cluster needs the same weights and the same versions of the libraries"
                )
        file = _bookmarks_file()
        self._bookmarks = self._life.enter_context(closing(CrashJournal([file])))
        # A crash passes it by; this is the end of the actor.
        atexit.register(file.unlink, missing_ok=True)
        self._lanes = self._life.enter_context(
            worker_threads(device_of(self._encoders), most=MOST_LANES)
        )
        return self._lanes


def _bookmarks_file() -> Path:
    """Where an actor finds what it was at when its process died, on the same machine."""
    import ray

    # Ray begins an actor again by the same id.
    actor = ray.get_runtime_context().get_actor_id()
    return Path(tempfile.gettempdir()) / f"featurecache-{actor}.bookmarks"


@dataclass(frozen=True)
class _Pool:
    """How many actors there are, and what each takes of its machine."""

    actors: int
    cpus: int
    gpus: int


def _pool(
    machines: Sequence[Mapping[str, float]], encoders: Sequence["Encoder"], workers: int
) -> _Pool:
    """One actor for each GPU, or for as many cores as it has lanes at the most.

    Raises:
        UsageError: the cluster lacks the device.
    """
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    if device_of(encoders) == "cuda":
        if not any(gpus):
            raise UsageError("the Ray cluster has no GPU: use --device cpu, or another cluster")
        shares = [cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        return _Pool(sum(gpus), min(workers, *shares), 1)
    each = min([MOST_LANES, *filter(None, cpus)])
    return _Pool(sum(cpu // each for cpu in cpus), each, 0)


@contextmanager
def _cluster() -> Iterator[None]:
    """In the cluster that ``$RAY_ADDRESS`` names, or in one of its own that ends with it.

    A process that has joined a cluster already stays there.

    Raises:
        UsageError: no cluster answers.
    """
    # Before Ray is loaded: it reads them then. Nothing is reported to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        _require_answer(address)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Ray tells of lost workers on stdout, where results belong.
    with redirect_stdout(sys.stderr):
        try:
            ray.init(
                address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise UsageError(
                f"the Ray cluster at {address} does not let this process join: it needs the same "
                "versions of Ray and Python, and RAY_AUTH_MODE=token where the cluster asks for one"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse early where nothing listens: Ray itself tries for more than ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError):
        raise UsageError(
            f"no Ray cluster answers at {address}, which ${ADDRESS_VARIABLE} names: give HOST:PORT "
            "of one that 'ray start --head' has started, or unset the variable"
        ) from None
