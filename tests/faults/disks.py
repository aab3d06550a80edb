"""A disk that is full, or read-only: a line says so, and it goes on when there is room.

Where this process may mount a small file system of its own it does; where not, files may grow to so
many bytes and no further, which hits every writer alike.
"""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from commands import Life, difference, moment, run, small_disk, tree
from interrupts import COMMANDS, prepared

ROOM = 64.0
"""MB: more than any of the commands needs."""


def full(name: str, seed: int, folder: Path) -> str:
    """There is room for a part of what the command writes, then for all of it."""
    before, expected, _ = prepared(name)
    _, command = COMMANDS[name]
    try:
        with small_disk(folder / "disk", ROOM) as resize:
            work = folder / "disk" / "work"
            shutil.copytree(before, work)
            used = shutil.disk_usage(work).used / 2**20
            resize(used + moment(seed, 48) / 64)
            return _until_there_is_room(command, work, expected, lambda: resize(ROOM))
    except PermissionError:
        work = folder / "work"
        shutil.copytree(before, work)
        limit = 4096 * moment(seed, 16)
        ending = Life(command, work, partial(_no_file_beyond, limit)).end()
        return _goes_on(command, work, expected, ending.code, ending.said)


def _no_file_beyond(limit: int, number: int) -> None:
    if number == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def _until_there_is_room(
    command: object, work: Path, expected: dict[str, object], make_room: Callable[[], None]
) -> str:
    ending = run(command, work)
    make_room()
    return _goes_on(command, work, expected, ending.code, ending.said)


def _goes_on(command: object, work: Path, expected: dict[str, object], code: int, said: str) -> str:
    if code != 0:
        assert code == 1, (code, said)
        assert "Traceback" not in said, said
        assert "the disk is full" in said or "grew beyond" in said, said
        run(command, work).clean(0)
    found = difference(tree(work), expected)
    assert found is None, found
    return "said so, then went on" if code else "there was room"


def read_only(name: str, seed: int, folder: Path) -> str:
    """Nothing can be written, then it can."""
    before, expected, _ = prepared(name)
    _, command = COMMANDS[name]
    try:
        with small_disk(folder / "disk", ROOM):
            work = folder / "disk" / "work"
            shutil.copytree(before, work)
            _remount(folder / "disk", "ro")
            ending = run(command, work).clean(1, 2)
            _remount(folder / "disk", "rw")
            assert "read-only" in ending.said or "not allowed" in ending.said, ending.said
            run(command, work).clean(0)
            found = difference(tree(work), expected)
            assert found is None, found
    except PermissionError:
        if os.geteuid() == 0:
            return "not tried: root may not mount here"
        return "not tried: no mounts for this user"
    return "said so, then went on"


def _remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


FAULTS = {
    **{f"a full disk during {name}": partial(full, name) for name in COMMANDS},
    **{f"a read-only disk under {name}": partial(read_only, name) for name in COMMANDS},
}
