"""Connect to a Ray cluster, and decide how many workers it gets."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from featurecache.errors import UsageError
from featurecache.extraction.encode import MAX_ENCODER_THREADS

ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
"""Ray's own environment variable for the cluster to join."""


def require_ray() -> None:
    """Require that Ray is installed.

    Raises:
        UsageError: It is not installed; the message holds the command that installs it.
    """
    if find_spec("ray") is None:
        raise UsageError("`engine` 'ray' needs Ray: pip install 'featurecache[ray]'")


@dataclass(frozen=True)
class WorkerPool:
    """Number of workers, and the resources of one worker."""

    workers: int
    cpus: int
    gpus: int


def plan_workers(
    nodes: Sequence[Mapping[str, float]], *, device: str, decoding_threads: int
) -> WorkerPool:
    """Plan one worker for each GPU, or one for as many cores as a worker has encoder threads.

    Args:
        nodes: Resources of each machine of the cluster.
        device: Device of the encoders.
        decoding_threads: Number of decoding threads of a worker.

    Returns:
        The pool that fills the cluster.

    Raises:
        UsageError: The cluster does not have the device.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if device == "cuda":
        if not any(gpus):
            raise UsageError(
                "the Ray cluster has no GPU: give `device` as 'cpu', or use another cluster"
            )
        cpus_per_gpu = [cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        return WorkerPool(sum(gpus), min(decoding_threads, *cpus_per_gpu), 1)
    cores = min([MAX_ENCODER_THREADS, *filter(None, cpus)])
    return WorkerPool(sum(cpu // cores for cpu in cpus), cores, 0)


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start a local one, while the body runs.

    A process that is already connected to a cluster uses that one.

    Raises:
        UsageError: The cluster does not respond.
    """
    # Set before Ray is imported, which reads them then. No usage statistics are sent.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        # Off, a cluster of one machine listens on the loopback interface only, on every system:
        # anyone who reaches a port of Ray can run code.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    if address:
        _require_response(address)
    # Ray reports lost workers on stdout, which is for results.
    with redirect_stdout(sys.stderr):
        try:
            _init(address)
            yield
        finally:
            ray.shutdown()


def _init(address: str | None) -> None:
    import ray

    try:
        with _own_sigterm_handler():
            ray.init(
                address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except ConnectionError as error:
        raise UsageError(
            f"the Ray cluster at {address} refuses this process: it needs the same versions of "
            "Ray and Python, and RAY_AUTH_MODE=token if the cluster requires a token"
        ) from error


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that ends the process.

    A signal that arrives in between goes to the handler afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # only it may change handlers
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # raised by Ray's handler
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _require_response(address: str) -> None:
    """Fail early where nothing listens: Ray itself retries for more than ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError):
        raise UsageError(
            f"no Ray cluster responds at {address}, the value of {ADDRESS_VARIABLE}: set it to the "
            "HOST:PORT of a cluster started with 'ray start --head', or unset it"
        ) from None
