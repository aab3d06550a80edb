"""A small file that records which images are being decoded, and that outlives the process.

A decoder that crashes, or that is killed for the memory it takes, takes the whole process with it.
The images that were being decoded at that moment are still in the journal: the next process finds
them there and decodes them in a subprocess.

The file is an array of sha256 digests of image ids. A thread writes the digest of the image that it
starts to decode into a slot, and zeros when it is done. The file is written with system calls, not
memory-mapped: the kernel keeps the data of either when the process dies, but on a full disk a
mapping raises SIGBUS.
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

_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_EMPTY_SLOT: Final = bytes(_DIGEST_BYTES)


class CrashJournal:
    """The journal of this process; entries of crashed predecessors stay in the file."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the entries that crashed processes left, and start the journal.

        Args:
            files: Where to keep the journal; each file is an identical copy. No other living
                process may use them.
        """
        self._files = files
        self._suspects = frozenset().union(*map(_read_digests, files)) - {_EMPTY_SLOT}
        for file in files:
            with new_file(file) as temporary:
                temporary.write_bytes(b"".join(sorted(self._suspects)))
        self._descriptors = [os.open(file, os.O_RDWR) for file in files]
        self._new_slots = count(len(self._suspects))
        self._free_slots: deque[int] = deque()
        self._open_entries = 0
        self._lock = Lock()

    def is_suspect(self, image_id: str) -> bool:
        """Return whether a process died while it decoded this image, even if by coincidence."""
        return bool(self._suspects) and _digest(image_id) in self._suspects

    @contextmanager
    def entry(self, image_id: str) -> Iterator[None]:
        """Record that an image is being decoded while the body runs, in any thread.

        Raises:
            OSError: The journal cannot be written.
        """
        with self._lock:
            slot = self._free_slots.popleft() if self._free_slots else next(self._new_slots)
            self._open_entries += 1
            self._write(slot, _digest(image_id))
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, _EMPTY_SLOT)
                self._open_entries -= 1
                self._free_slots.append(slot)

    def close(self) -> None:
        """Close the journal and delete its files, unless the next process needs their entries."""
        with self._lock:
            for descriptor in self._descriptors:
                os.close(descriptor)
            # A stuck thread may still return and close its entry.
            self._descriptors = []
            if self._open_entries or self._suspects:
                return
        for file in self._files:
            file.unlink(missing_ok=True)
            with suppress(OSError):  # the folder also holds chunks of a cache
                file.parent.rmdir()

    def _write(self, slot: int, digest: bytes) -> None:
        for descriptor in self._descriptors:
            os.pwrite(descriptor, digest, slot * _DIGEST_BYTES)


def _digest(image_id: str) -> bytes:
    return hashlib.sha256(image_id.encode()).digest()


def _read_digests(file: Path) -> set[bytes]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return set()
    return {data[start : start + _DIGEST_BYTES] for start in range(0, len(data), _DIGEST_BYTES)}
