"""Write files and folders atomically: they are complete, or do not exist."""

import errno
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Final

from featurecache.errors import UsageError
from featurecache.io.system_errors import number_in, system_error

_TEMPORARY_BYTES: Final = len("..12345678-1234567-12345678.tmp")
"""What the name of a temporary file adds to that of its target; see ``_temporary_name``."""


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each flushed to the disk before anything is put in it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which replaces ``target`` on a clean exit.

    The content is flushed to the disk before the name changes, so that a power loss leaves the old
    file or the new one. If the body raises, ``target`` is unchanged.

    Args:
        target: The file to write.

    Raises:
        OSError: The disk is full or not writable; the error names a file.
    """
    temporary = _beside(target)
    try:
        with _disk_errors_as_os_error(target):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            _set_mode(temporary, mode)
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``target``, which becomes it on a clean exit.

    Args:
        target: The folder to write.

    Raises:
        FileExistsError: ``target`` already exists; nothing is overwritten.
        OSError: The disk is full or not writable; the error names a file.
    """
    with scratch_folder(target) as temporary:
        yield temporary
        _sync_all(temporary)
        if target.exists():
            raise system_error(errno.EEXIST, target)
        temporary.rename(target)
        sync(target.parent)


@contextmanager
def new_files(target: Path, companions: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield an empty temporary folder, whose entries replace a target and its companions.

    On a clean exit the old ones go and the new ones are moved into place, ``target`` as the last:
    where it exists, its companions belong to it. If the body raises, nothing is changed.

    Args:
        target: A file or folder, which the body has to write under the same name.
        companions: Files beside it, which the body may write, too.

    Raises:
        OSError: The disk is full or not writable; the error names a file.
    """
    with scratch_folder(target) as temporary:
        old, new = temporary / "old", temporary / "new"
        for folder in (old, new):
            folder.mkdir()
        yield new
        _sync_all(temporary)
        for path in (target, *companions):
            if path.exists():
                path.rename(old / path.name)
        for path in (*companions, target):
            if path == target or (new / path.name).exists():
                (new / path.name).rename(path)
        sync(target.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``target``, which is removed at the end.

    Args:
        target: The file or folder that is written with its help.

    Raises:
        OSError: The disk is full or not writable; the error names a file.
    """
    temporary = _beside(target)
    try:
        with _disk_errors_as_os_error(target):
            temporary.mkdir()
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """Flush what is in a folder to the disk, with the modes of new files."""
    mode = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            _set_mode(path, mode)
        sync(path)
    sync(folder)


def _set_mode(path: Path, mode: int) -> None:
    """Give a file the mode of any new file; safetensors replaces files by private ones."""
    if stat.S_IMODE(path.stat().st_mode) != stat.S_IMODE(mode):
        path.chmod(stat.S_IMODE(mode))


@contextmanager
def _disk_errors_as_os_error(target: Path) -> Iterator[None]:
    """Convert what libraries raise when the disk fails to an ``OSError`` that names a file.

    HDF5 omits the file, numpy the error number.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and shutil.disk_usage(target.parent).free == 0:
            raise system_error(errno.ENOSPC, target) from error
        if error.filename is None:
            error.filename = str(target)
        raise
    except Exception as error:
        if (number := number_in(error)) is None:
            raise
        raise system_error(number, target) from error


def require_absent(target: Path, *, argument: str = "out") -> None:
    """Check, before a result is computed, that it can be written without overwriting anything.

    Args:
        target: The file or folder to create.
        argument: The argument that names it, for the message.

    Raises:
        UsageError: ``target`` exists, or its name is too long.
    """
    require_short_name(target, argument=argument)
    if target.exists():
        raise UsageError(f"{target} already exists: give another `{argument}`, or move it away")


def require_short_name(target: Path, *, argument: str = "out") -> None:
    """Check that the file system takes the name of a file or folder, also while it is temporary.

    Args:
        target: The file or folder to create.
        argument: The argument that names it, for the message.

    Raises:
        UsageError: Its name, or that of one of its folders, is too long.
    """
    *folders, name = target.absolute().parts[1:] or [""]
    most = longest_name(target.parent)
    limits = [*((folder, most + _TEMPORARY_BYTES) for folder in folders), (name, most)]
    for part, limit in limits:
        if (size := len(os.fsencode(part))) > limit:
            raise UsageError(
                f"{target}: the name {part[:20]}... has {size} bytes, and at most {limit} can be "
                f"written: give a shorter `{argument}`"
            )


def longest_name(folder: Path) -> int:
    """Return the most bytes of a name that ``new_file`` and ``new_folder`` can write in a folder.

    Args:
        folder: The folder; need not exist yet.
    """
    parents = (folder, *folder.absolute().parents)
    # Not Path.exists, which raises an error for a name that is too long.
    existing = next(path for path in parents if os.path.exists(path))  # noqa: PTH110
    limit = os.pathconf(existing, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    return limit - _TEMPORARY_BYTES


def cut_name(name: str, size: int) -> str:
    """Return the start of a file name, at most so many bytes of it."""
    return os.fsencode(name)[:size].decode(errors="ignore")


def find_finished(folder: Path, pattern: str) -> list[Path]:
    """Return the files and folders below a folder that match a pattern, sorted.

    What is in the temporary folder of a writer is not finished, and left out.

    Args:
        folder: The folder.
        pattern: A pattern of ``Path.rglob``.
    """

    def is_temporary(name: str) -> bool:
        return name.startswith(".") and name.endswith(".tmp")

    found = sorted(folder.rglob(pattern))
    return [path for path in found if not any(map(is_temporary, path.relative_to(folder).parts))]


def remove_leftovers(target: Path) -> None:
    """Remove temporary files of killed writers of ``target``; no process may be writing it."""
    for leftover in _unfinished(target):
        _remove(leftover)


def _beside(target: Path) -> Path:
    # Not tempfile, whose files are private: a cache or run is to be as readable as any new file,
    # and the umask needed for that can be read only by changing it for every thread.
    make_folder(target.parent)
    for leftover in _unfinished(target):
        if _is_orphan(leftover):
            _remove(leftover)
    return target.with_name(_temporary_name(target.name))


def _temporary_name(name: str) -> str:
    return f".{name}.{_machine()}-{os.getpid():07d}-{secrets.token_hex(4)}.tmp"


def _unfinished(target: Path) -> list[Path]:
    return list(target.parent.glob(f".{escape(target.name)}.*.tmp"))


def _is_orphan(temporary: Path) -> bool:
    """Return whether the process in the name of a temporary file ran here and has ended."""
    machine, _, rest = temporary.suffixes[-2].removeprefix(".").partition("-")
    process = rest.partition("-")[0]
    # Processes of other machines cannot be checked.
    if os.name != "posix" or machine != _machine() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it belongs to another user, and is alive
    return False


def _machine() -> str:
    """Return eight digits that identify the machine and container of a process id."""
    space = Path("/proc/self/ns/pid")
    where = f"{platform.node()} {space.stat().st_ino if space.exists() else 0}"
    return sha256(where.encode()).hexdigest()[:8]


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)
