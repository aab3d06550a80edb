"""A full or read-only disk: commands report it, and continue when there is space again.

Trials mount a small file system if this process may do so. Otherwise they limit the size of files,
which affects every writer in the same way. That limit is also a fault of its own, because a disk
quota stops a writer like this.
"""

import resource
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.faults.commands import (
    CommandProcess,
    CommandResult,
    check_resume,
    random_int,
    run,
    small_disk,
)
from tests.faults.interrupts import COMMANDS, copy_prepared

ENOUGH_SPACE = "size=64m"
"""Mount option: more space than any of the commands needs."""


def full_disk(name: str, seed: int, folder: Path) -> str:
    """Leave space for only some of what the command writes; then for everything."""
    try:
        with small_disk(folder / "disk", ENOUGH_SPACE) as remount:
            work, command, expected = copy_prepared(name, folder / "disk")
            used = shutil.disk_usage(work).used // 1024
            remount(f"size={used + 16 * random_int(seed, 48)}k")
            result = run(command, work)
            remount(ENOUGH_SPACE)
            return _check(command, work, expected, result)
    except PermissionError:
        return file_size_limit(name, seed, folder)


def file_size_limit(name: str, seed: int, folder: Path) -> str:
    """Limit the size of files; then lift the limit."""
    work, command, expected = copy_prepared(name, folder)
    limit = 4096 * random_int(seed, 64)
    result = CommandProcess(command, work, partial(_limit_file_size, limit)).wait()
    return _check(command, work, expected, result)


def _limit_file_size(limit: int, operation: int) -> None:
    if operation == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def _check(
    command: Sequence[object], work: Path, expected: dict[str, object], result: CommandResult
) -> str:
    if result.code != 0:
        result.check(1)
        messages = ("the disk is full", "exceeds the size limit")
        assert any(message in result.output for message in messages), result.output
    check_resume(command, work, expected, result)
    return "reported it, then continued" if result.code else "had enough space"


def read_only_disk(name: str, seed: int, folder: Path) -> str:
    """Make the disk read-only; then writable."""
    try:
        with small_disk(folder / "disk", ENOUGH_SPACE) as remount:
            work, command, expected = copy_prepared(name, folder / "disk")
            remount("ro")
            result = run(command, work).check(1, 2)
            remount("rw")
            messages = ("read-only", "permission denied")
            assert any(message in result.output for message in messages), result.output
            check_resume(command, work, expected, result)
    except PermissionError:
        return "not tried: this user may not mount file systems"
    return "reported it, then continued"


FAULTS = {
    **{f"a full disk during {name}": partial(full_disk, name) for name in COMMANDS},
    **{f"a file size limit during {name}": partial(file_size_limit, name) for name in COMMANDS},
    **{f"a read-only disk during {name}": partial(read_only_disk, name) for name in COMMANDS},
}
