"""Which images are being decoded, in a small file that outlives the process.

A decoder that crashes, or is killed for the memory it takes, takes the process with it. What it was
at is still written here: the next process finds it, and decodes it in a child process of its own.

The file is a row of sha256 digests of ids. A thread writes that of the image that it is at into a
place, and zeros when it is done. It is written by system calls, not mapped into memory: the kernel
keeps either when the process dies, but a mapping answers a full disk by a signal that kills.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Final

from featurecache.io.atomic import new_file

_BYTES: Final = hashlib.sha256().digest_size
_NOTHING: Final = bytes(_BYTES)


class CrashJournal:
    """The places of one process; those of its dead predecessors stay in the file."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Find what predecessors were at, and begin.

        Args:
            files: where to keep it, each the same; no living process may be using them.
        """
        self._files = files
        self._suspects = frozenset().union(*map(_digests, files)) - {_NOTHING}
        for file in files:
            with new_file(file) as temporary:
                temporary.write_bytes(b"".join(sorted(self._suspects)))
        self._descriptors = [os.open(file, os.O_RDWR) for file in files]
        self._new_place = count(len(self._suspects))
        self._free: deque[int] = deque()
        self._busy = 0
        self._lock = Lock()

    def suspects(self, image: str) -> bool:
        """Whether a process died while it decoded the image of this id, be it by chance."""
        return bool(self._suspects) and _digest(image) in self._suspects

    @contextmanager
    def at(self, image: str) -> Iterator[None]:
        """Keep that the image of this id is being decoded while the body runs, in any thread.

        Raises:
            OSError: the file of bookmarks cannot be written.
        """
        with self._lock:
            place = self._free.popleft() if self._free else next(self._new_place)
            self._busy += 1
            self._write(place, _digest(image))
        try:
            yield
        finally:
            with self._lock:
                self._write(place, _NOTHING)
                self._busy -= 1
                self._free.append(place)

    def close(self) -> None:
        """End; the files stay if they tell the next process anything."""
        with self._lock:
            for descriptor in self._descriptors:
                os.close(descriptor)
            # A thread that is stuck may yet come back.
            self._descriptors = []
            if self._busy or self._suspects:
                return
        for file in self._files:
            file.unlink(missing_ok=True)
            with suppress(OSError):  # there are parts in it
                file.parent.rmdir()

    def _write(self, place: int, digest: bytes) -> None:
        for descriptor in self._descriptors:
            os.pwrite(descriptor, digest, place * _BYTES)


def _digest(image: str) -> bytes:
    return hashlib.sha256(image.encode()).digest()


def _digests(file: Path) -> set[bytes]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return set()
    return {data[start : start + _BYTES] for start in range(0, len(data), _BYTES)}
