"""Files and folders that are there and whole, or not there at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurecache.errors import UsageError


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of which is on the disk before anything is in it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; on a clean exit it replaces ``target``.

    The bytes reach the disk before the name does, so that a power cut leaves the old file or the
    new one. When the body raises, ``target`` is as it was.
    """
    temporary = _beside(target)
    temporary.touch(exist_ok=False)
    try:
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
    temporary = _beside(target)
    temporary.mkdir()
    try:
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


def refuse_existing(target: Path) -> None:
    """What a command made is never written over.

    Raises:
        UsageError: something is at ``target`` already.
    """
    if target.exists():
        raise UsageError(f"{target} is there already: give another --out, or move it away")


def remove_leftovers(target: Path) -> None:
    """Remove what killed writers of the file ``target`` left behind; nobody may be writing it."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        leftover.unlink()


def _beside(target: Path) -> Path:
    # Not tempfile: what it makes is private, whereas a cache or a run is as readable as any new
    # file; and to mend that one must know the umask, which can be read only by changing it for
    # every thread.
    make_folder(target.parent)
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
