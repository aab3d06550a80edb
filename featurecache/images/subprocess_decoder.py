"""Decode images in subprocesses, where a decoder may crash or hang.

    python -m featurecache.images.subprocess_decoder CONNECTION TIMEOUT

A worker process takes one image after another, until one kills it or its parent is gone. The first
image waits 0.2 s for the worker to start, the others for little more than their own decoding.

Requests are pickled because we send them. Replies are raw arrays and text only, because a
malicious image may control the worker.
"""

import io
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from os import environ, pathsep
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import FeaturecacheError, ImageError, ImageTimeoutError
from featurecache.images.decode import OUT_OF_MEMORY, decode_image, used_bits
from featurecache.images.limits import MAX_PIXELS
from featurecache.images.read import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_TIMEOUT: Final = 60.0
"""Seconds for reading, decoding and preprocessing one image."""

MEMORY: Final = 100 * MAX_PIXELS
"""Bytes that one image may take: a dozen arrays of float64 for the largest one."""

CRASHED: Final = "the decoder crashed"
"""Start of the failure reason of an image that is always decoded in a subprocess."""

_GRACE: Final = 1.0
"""Seconds by which the worker's own timer, which the kernel keeps, precedes the parent's. The
parent's timer is for a worker that waits for a disk and cannot be killed. It runs on while the
parent is stopped (Ctrl-Z, a sleeping laptop), so it checks once more when the time is up."""

_STARTED, _REFUSED, _DONE = b"started", b"refused", b"done"

Transform = Callable[["Image"], NDArray[Any]]
"""Makes an array of an image; must be picklable."""

_Work = Callable[[bytes], list[NDArray[Any]]]
"""Makes arrays of the content of an image file; picklable."""


class SubprocessDecoder:
    """Decodes images in subprocesses, so that a crash costs a worker and not this process.

    Several threads may use it at once; there are as many workers as images were decoded at the same
    time. They end with the decoder.

    Args:
        timeout: Maximum time to read, decode and transform one image, in seconds.
    """

    def __init__(self, *, timeout: float = IMAGE_TIMEOUT) -> None:
        self._timeout = timeout
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        weakref.finalize(self, _end_all, self._workers)

    def read(
        self,
        source: Path | bytes,
        transforms: Sequence[Transform],
        *,
        bit_depth: int | None = None,
        name: str | None = None,
    ) -> list[NDArray[Any]]:
        """Decode an image and transform it.

        Args:
            source: The file, or its content.
            transforms: Called with the image, in the worker.
            bit_depth: See ``decode_image``.
            name: Name of the image in messages; messages are the bare reason if None.

        Returns:
            The result of each transform.

        Raises:
            ImageError: The image cannot be used (see ``read_image``), took too long, or crashed the
                worker.
            FeaturecacheError: No worker starts, or a transform failed.
        """
        work = partial(_decoded, transforms=list(transforms), bit_depth=bit_depth)
        return self._run(source, work, len(transforms), name)

    def image(
        self, source: Path | bytes, *, bit_depth: int | None = None, name: str | None = None
    ) -> "Image":
        """Return an image as ``decode_image`` does.

        Args:
            source: The file, or its content.
            bit_depth: See ``decode_image``.
            name: Name of the image in messages.

        Raises:
            ImageError: See ``read``.
            FeaturecacheError: No worker starts.
        """
        from PIL import Image

        (pixels,) = self.read(source, [np.asarray], bit_depth=bit_depth, name=name)
        return Image.fromarray(pixels)

    def used_bits(self, source: Path | bytes, *, name: str | None = None) -> int | None:
        """Return how many bits an image needs as ``used_bits`` of ``images.decode`` does.

        Args:
            source: The file, or its content.
            name: Name of the image in messages.

        Raises:
            ImageError: See ``read``.
            FeaturecacheError: No worker starts.
        """
        (bits,) = self._run(source, _measured, 1, name)
        return int(bits) or None

    def _run(
        self, source: Path | bytes, work: _Work, n_arrays: int, name: str | None
    ) -> list[NDArray[Any]]:
        worker = self._take_worker()
        try:
            arrays = worker.request(source, work, n_arrays, self._timeout)
        except _WorkerDied as death:
            self._workers.discard(worker)
            if death.error is None:
                return self._run(source, work, n_arrays, name)
            error = death.error
        except ImageError as refusal:
            self._idle.append(worker)
            error = refusal
        else:
            self._idle.append(worker)
            return arrays
        if name is not None and isinstance(error, ImageError):
            error = type(error)(f"{name}: {error}")
        raise error

    def _take_worker(self) -> "_Worker":
        with suppress(IndexError):  # none is idle
            return self._idle.pop()
        worker = _Worker(self._timeout)
        self._workers.add(worker)
        return worker


def _decoded(
    data: bytes, *, transforms: Sequence[Transform], bit_depth: int | None
) -> list[NDArray[Any]]:
    image = decode_image(data, bit_depth=bit_depth)
    return [transform(image) for transform in transforms]


def _measured(data: bytes) -> list[NDArray[Any]]:
    return [np.array(used_bits(data) or 0)]


def timeout_message(timeout: float) -> str:
    """Return the failure reason of an image that takes longer than this many seconds."""
    return f"took longer than {timeout:g} s"


class _WorkerDied(Exception):  # noqa: N818
    """A worker has ended, with this error; None if it ended before the request reached it."""

    def __init__(self, error: FeaturecacheError | None) -> None:
        super().__init__()
        self.error = error


class _Worker:
    def __init__(self, timeout: float) -> None:
        self._connection, theirs = Pipe()
        # -P: import nothing from the current directory.
        module = "featurecache.images.subprocess_decoder"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(timeout)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environ, "PYTHONPATH": pathsep.join(sys.path)},
                # Ctrl-C and Ctrl-Z are for the parent only.
                start_new_session=True,
            )
        self._has_worked = False

    def request(
        self, source: Path | bytes, work: _Work, n_arrays: int, timeout: float
    ) -> list[NDArray[Any]]:
        """Return the worker's reply.

        Raises:
            ImageError: The image cannot be used.
            _WorkerDied: The worker has ended.
        """
        started = False
        try:
            self._connection.send((source, work))
            started = self._connection.recv_bytes() == _STARTED
            self._has_worked = True
            if not (self._connection.poll(timeout + _GRACE) or self._connection.poll(_GRACE)):
                self.end()
                raise _WorkerDied(ImageTimeoutError(timeout_message(timeout)))
            reply = self._connection.recv_bytes()
            if reply == _DONE:
                return [_from_bytes(self._connection.recv_bytes()) for _ in range(n_arrays)]
        except (EOFError, ConnectionError):
            raise _WorkerDied(self._describe_exit(timeout, started=started)) from None
        raise ImageError(reply.removeprefix(_REFUSED).decode())

    def end(self) -> None:
        """Kill the worker; one that waits for a disk ends when the disk responds."""
        self._process.kill()
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)

    def _describe_exit(self, timeout: float, *, started: bool) -> FeaturecacheError | None:
        self._connection.close()
        status = self._process.wait()
        if started and status == -signal.SIGALRM:
            return ImageTimeoutError(timeout_message(timeout))
        if started and status < 0:
            return ImageError(f"{CRASHED} ({signal.Signals(-status).name})")
        if self._has_worked and not started:
            return None  # killed while idle, as the system does when memory runs out
        return FeaturecacheError(
            f"no image can be decoded in a subprocess (exit status {status}): see the output "
            f"above, and check that {sys.executable} -m {__name__} starts"
        )


def _end_all(workers: set[_Worker]) -> None:
    for worker in list(workers):
        worker.end()


def _to_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_bytes(data: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _limit_memory() -> None:
    """Limit what this process may take in addition to what it has, where the system can."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    import resource

    # Not absolute: torch, which a transform may import, reserves many gigabytes.
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + MEMORY
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _main(connection: Connection, timeout: float) -> None:
    with suppress(OSError):
        # When memory runs out, this process is killed and not its parent.
        Path("/proc/self/oom_score_adj").write_text("1000")
    while True:
        try:
            source, work = connection.recv()
        except EOFError:
            return
        _limit_memory()
        connection.send_bytes(_STARTED)
        # By the kernel: the parent may be gone, and the decoder may not return to Python.
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            content = read_bytes(source) if isinstance(source, Path) else source
            arrays = [_to_bytes(array) for array in work(content)]
        except ImageError as error:
            reply = [_REFUSED + str(error).encode()]
        except MemoryError:
            reply = [_REFUSED + OUT_OF_MEMORY.encode()]
        else:
            reply = [_DONE, *arrays]
        # Not while sending to a parent that is stopped.
        signal.setitimer(signal.ITIMER_REAL, 0)
        for message in reply:
            connection.send_bytes(message)


if __name__ == "__main__":
    _main(Connection(int(sys.argv[1])), float(sys.argv[2]))
