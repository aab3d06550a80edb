"""Files and folders that are there and whole, or not there at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; on a clean exit it replaces ``target``.

    The bytes reach the disk before the name does, so that a power cut leaves the old file or the
    new one. When the body raises, ``target`` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        # mkstemp makes private files; a cache or a run is as readable as any new file would be.
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target`` to fill; on a clean exit it becomes ``target``.

    Raises:
        FileExistsError: ``target`` is there already; nothing is overwritten.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync(path)
        sync(temporary)
        if target.exists():
            raise FileExistsError(target)
        temporary.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    # The process's umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
