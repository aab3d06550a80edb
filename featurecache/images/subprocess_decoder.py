"""Read images in child processes, where a decoder may crash or never return.

    python -m featurecache.images.subprocess_decoder CONNECTION SECONDS

A child takes images one after another, until one kills it or its parent is gone. The first image
waits 0.2 s for it to start, the others for little more than their own decoding.

What a child is told is pickled, for it comes from its parent. What the parent is told is numbers
and text and no more: whoever's image it was may have taken the child over.
"""

import io
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from os import environ, pathsep
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import FeaturecacheError, ImageError
from featurecache.images.decode import decode_image, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_TIMEOUT: Final = 60.0
"""That reading, decoding and preprocessing one image may take."""

CRASHED: Final = "the decoder crashed"
"""How the reason begins; an image that has it is always read apart."""

_GRACE: Final = 1.0
"""Seconds by which the child's own clock, which the kernel keeps, goes before the parent's. The
parent's clock is for a child that waits for a disk and cannot be ended. It runs on while the parent
is stopped (Ctrl-Z, a laptop that sleeps), and looks once more when its time is up."""

_BEGUN, _REFUSED, _MADE = b"begun", b"refused", b"made"

Make = Callable[["Image"], NDArray[Any]]
"""What is to be made of an image; it can be pickled."""


class SubprocessDecoder:
    """Reads images in child processes: what one does there costs a child and not this process.

    Several threads may ask at once; there are as many children as images were read at once. They
    end with the reader.
    """

    def __init__(self, *, seconds: float = IMAGE_TIMEOUT) -> None:
        """Start nothing yet.

        Args:
            seconds: that reading an image may take, and what is made of it.
        """
        self._seconds = seconds
        self._idle: list[_Worker] = []
        self._children: set[_Worker] = set()
        weakref.finalize(self, _end_all, self._children)

    def read(
        self, source: Path | bytes, makes: Sequence[Make], *, called: str | None = None
    ) -> list[NDArray[Any]]:
        """Read an image and make something of it.

        Args:
            source: the file, or its bytes.
            makes: what is called with the image, in the child.
            called: what the message calls the image; None for the reason alone.

        Returns:
            What each of ``makes`` gave.

        Raises:
            ImageError: see ``images.read_image``; or it took too long, or the child crashed.
            FeaturecacheError: no child starts, or ``makes`` failed otherwise.
        """
        child = self._take()
        try:
            found = child.ask(source, makes, self._seconds)
        except _WorkerDied as lost:
            self._children.discard(child)
            if lost.error is None:
                return self.read(source, makes, called=called)
            error = lost.error
        except ImageError as refused:
            self._idle.append(child)
            error = refused
        else:
            self._idle.append(child)
            return found
        if called is not None and isinstance(error, ImageError):
            error = ImageError(f"{called}: {error}")
        raise error

    def image(self, source: Path | bytes, *, called: str | None = None) -> "Image":
        """The image itself, as ``images.decode_image`` gives it.

        Raises:
            ImageError: see ``read``.
            FeaturecacheError: no child starts.
        """
        from PIL import Image

        (pixels,) = self.read(source, [np.asarray], called=called)
        return Image.fromarray(pixels)

    def _take(self) -> "_Worker":
        with suppress(IndexError):  # none is idle
            return self._idle.pop()
        child = _Worker(self._seconds)
        self._children.add(child)
        return child


def timeout_message(seconds: float) -> str:
    """The reason of an image that takes too long."""
    return f"took longer than {seconds:g} s"


class _WorkerDied(Exception):  # noqa: N818
    """A child is gone, for this reason; None where it was gone before it was asked."""

    def __init__(self, error: FeaturecacheError | None) -> None:
        super().__init__()
        self.error = error


class _Worker:
    def __init__(self, seconds: float) -> None:
        self._connection, theirs = Pipe()
        # -P: nothing that lies in the folder of the command is imported.
        command = [
            sys.executable,
            "-P",
            "-m",
            "featurecache.images.subprocess_decoder",
            str(theirs.fileno()),
        ]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(seconds)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environ, "PYTHONPATH": pathsep.join(sys.path)},
                # Ctrl-C and Ctrl-Z are the parent's.
                start_new_session=True,
            )
        self._has_worked = False

    def ask(
        self, source: Path | bytes, makes: Sequence[Make], seconds: float
    ) -> list[NDArray[Any]]:
        """What a child answers.

        Raises:
            ImageError: it refuses the image.
            _WorkerDied: it is gone.
        """
        begun = False
        try:
            self._connection.send((source, list(makes)))
            begun = self._connection.recv_bytes() == _BEGUN
            self._has_worked = True
            if not (self._connection.poll(seconds + _GRACE) or self._connection.poll(_GRACE)):
                self.end()
                raise _WorkerDied(ImageError(timeout_message(seconds)))
            answer = self._connection.recv_bytes()
            if answer == _MADE:
                return [_from_bytes(self._connection.recv_bytes()) for _ in makes]
        except (EOFError, ConnectionError):
            raise _WorkerDied(self._describe_exit(seconds, begun=begun)) from None
        raise ImageError(answer.removeprefix(_REFUSED).decode())

    def end(self) -> None:
        """End the child; one that waits for a disk ends when that answers."""
        self._process.kill()
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)

    def _describe_exit(self, seconds: float, *, begun: bool) -> FeaturecacheError | None:
        self._connection.close()
        status = self._process.wait()
        if begun and status == -signal.SIGALRM:
            return ImageError(timeout_message(seconds))
        if begun and status < 0:
            return ImageError(f"{CRASHED} ({signal.Signals(-status).name})")
        if self._has_worked and not begun:
            return None  # the system ends children first where memory runs out
        return FeaturecacheError(
            f"no image can be read in a child process (it ended with {status}): see what stands "
            f"above, and whether {sys.executable} -m {__name__} starts"
        )


def _end_all(children: set[_Worker]) -> None:
    for child in list(children):
        child.end()


def _to_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_bytes(data: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _main(connection: Connection, seconds: float) -> None:
    with suppress(OSError):
        # Where memory runs out this process goes, and not its parent.
        Path("/proc/self/oom_score_adj").write_text("1000")
    while True:
        try:
            source, makes = connection.recv()
        except EOFError:
            return
        connection.send_bytes(_BEGUN)
        # The parent may be gone, or the decoder deaf to Python: the kernel ends it in any case.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            image = decode_image(read_bytes(source) if isinstance(source, Path) else source)
            made = [_to_bytes(make(image)) for make in makes]
        except ImageError as error:
            answer = [_REFUSED + str(error).encode()]
        else:
            answer = [_MADE, *made]
        # Not while it waits for a parent that is stopped.
        signal.setitimer(signal.ITIMER_REAL, 0)
        for part in answer:
            connection.send_bytes(part)


if __name__ == "__main__":
    _main(Connection(int(sys.argv[1])), float(sys.argv[2]))
