"""Files and folders that are there and whole, or not there at all."""

import errno
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from hashlib import sha256
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

    Raises:
        OSError: the disk is full or not writable; it names a file.
    """
    temporary = _beside(target)
    try:
        with _naming(target):
            temporary.touch(exist_ok=False)
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
        FileExistsError: ``target`` already exists; nothing is overwritten.
        OSError: the disk is full or not writable; it names a file.
    """
    temporary = _beside(target)
    try:
        with _naming(target):
            temporary.mkdir()
            yield temporary
            for path in sorted(temporary.rglob("*")):
                sync(path)
            sync(temporary)
            if target.exists():
                raise _system_error(errno.EEXIST, target)
            temporary.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """What a library raises where the disk fails becomes an error of the system that names a file.

    HDF5 leaves out the file, numpy the number of the error. Of safetensors, which is written in
    Rust, and sometimes of HDF5, the number stands in the text of another exception.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and shutil.disk_usage(target.parent).free == 0:
            raise _system_error(errno.ENOSPC, target) from error
        if error.filename is None:
            error.filename = str(target)
        raise
    except Exception as error:
        if (number := re.search(r"(?:os error|errno =) (\d+)", str(error))) is None:
            raise
        raise _system_error(int(number[1]), target) from error


def _system_error(number: int, target: Path) -> OSError:
    return OSError(number, os.strerror(number), str(target))


def require_absent(target: Path) -> None:
    """What a command made is never written over.

    Raises:
        UsageError: something is at ``target`` already.
    """
    if target.exists():
        raise UsageError(f"{target} already exists: give another `out`, or move it away")


def remove_leftovers(target: Path) -> None:
    """Remove what killed writers of ``target`` left behind; nobody may be writing it."""
    for leftover in _unfinished(target):
        _remove(leftover)


def _beside(target: Path) -> Path:
    # Not tempfile: what it makes is private, whereas a cache or a run is as readable as any new
    # file; and to mend that one must know the umask, which can be read only by changing it for
    # every thread.
    make_folder(target.parent)
    for leftover in _unfinished(target):
        if _is_orphan(leftover):
            _remove(leftover)
    name = f".{target.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    return target.with_name(name)


def _unfinished(target: Path) -> list[Path]:
    return list(target.parent.glob(f".{escape(target.name)}.*.tmp"))


def _is_orphan(temporary: Path) -> bool:
    """Whether the process that was writing it ran here and is gone; its name says which it was."""
    machine, _, rest = temporary.suffixes[-2].removeprefix(".").partition("-")
    process = rest.partition("-")[0]
    # Of others' processes nothing is known.
    if os.name != "posix" or machine != _machine() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is somebody else's, and alive
    return False


def _machine() -> str:
    """Eight digits that say where a process has its number: which machine, which container."""
    space = Path("/proc/self/ns/pid")
    where = f"{platform.node()} {space.stat().st_ino if space.exists() else 0}"
    return sha256(where.encode()).hexdigest()[:8]


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)
