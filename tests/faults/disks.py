"""A disk that is full, or read-only: a line says so, and it goes on when there is room.

Where this process may mount a small file system of its own it does; where not, files may grow to so
many bytes and no further, which hits every writer alike. That limit is a fault of its own as well,
for a quota stops a writer in the same way.
"""

import os
import resource
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.faults.commands import Ending, Life, moment, resumed, run, small_disk
from tests.faults.interrupts import COMMANDS, copied

ROOM = "size=64m"
"""More than any of the commands needs."""


def full(name: str, seed: int, folder: Path) -> str:
    """There is room for a part of what the command writes, then for all of it."""
    try:
        with small_disk(folder / "disk", ROOM) as remount:
            work, command, expected = copied(name, folder / "disk")
            used = shutil.disk_usage(work).used // 1024
            remount(f"size={used + 16 * moment(seed, 48)}k")
            ending = run(command, work)
            remount(ROOM)
            return _goes_on(command, work, expected, ending)
    except PermissionError:
        return short_files(name, seed, folder)


def short_files(name: str, seed: int, folder: Path) -> str:
    """Files may grow to so many bytes and no further, then as they like."""
    work, command, expected = copied(name, folder)
    limit = 4096 * moment(seed, 64)
    ending = Life(command, work, partial(_no_file_beyond, limit)).end()
    return _goes_on(command, work, expected, ending)


def _no_file_beyond(limit: int, number: int) -> None:
    if number == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def _goes_on(
    command: Sequence[object], work: Path, expected: dict[str, object], ending: Ending
) -> str:
    if ending.code != 0:
        ending.clean(1)
        assert "the disk is full" in ending.said or "grew beyond" in ending.said, ending.said
    resumed(command, work, expected, ending)
    return "said so, then went on" if ending.code else "there was room"


def read_only(name: str, seed: int, folder: Path) -> str:
    """Nothing can be written, then it can."""
    try:
        with small_disk(folder / "disk", ROOM) as remount:
            work, command, expected = copied(name, folder / "disk")
            remount("ro")
            ending = run(command, work).clean(1, 2)
            remount("rw")
            assert "read-only" in ending.said or "not allowed" in ending.said, ending.said
            resumed(command, work, expected, ending)
    except PermissionError:
        if os.geteuid() == 0:
            return "not tried: root may not mount here"
        return "not tried: no mounts for this user"
    return "said so, then went on"


FAULTS = {
    **{f"a full disk during {name}": partial(full, name) for name in COMMANDS},
    **{f"a limit on files during {name}": partial(short_files, name) for name in COMMANDS},
    **{f"a read-only disk under {name}": partial(read_only, name) for name in COMMANDS},
}
