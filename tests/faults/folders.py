"""Somebody takes a folder away from a command at work: it says so, and goes on once it is back."""

import ctypes
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.faults.commands import Ending, Life, moment, resumed
from tests.faults.interrupts import COMMANDS, copied, prepared

FOLDERS: Mapping[str, Sequence[str]] = {
    "extract": (".", "cache", "cache/phantom", "cache/phantom/tiny.h5.parts"),
    "train-head": (".", "cache/phantom"),
    "finetune": (".", "run.parts"),
    "cache merge": (".", "cache", "cache/phantom"),
    "report": (".", "zero"),
}
"""By command: what is taken away, below the folder that it works in."""

_OVERRIDES = (1, 2)
"""The capabilities by which root reads and writes what it has no permission for."""


def _begin(
    name: str,
    seed: int,
    folder: Path,
    take: Callable[[Path], None],
    *,
    at_first: Callable[[], None],
) -> tuple[Path, Path, Ending]:
    """A command from which a folder is taken at a random thing that it does."""
    work, command, _ = copied(name, folder)
    _, _, number = prepared(name)
    taken = work / FOLDERS[name][seed % len(FOLDERS[name])]
    at = moment(seed, number)

    def at_event(event: int) -> None:
        if event == 1:
            at_first()
        if event == at and taken.is_dir():
            take(taken)

    return work, taken, Life(command, work, at_event).end().clean(0, 1, 2)


def gone(how: str, name: str, seed: int, folder: Path) -> str:
    """It is renamed or removed; afterwards what the command needs is there again."""
    before, expected, _ = prepared(name)
    aside = folder / "aside"
    take: Mapping[str, Callable[[Path], object]] = {
        "renamed": lambda taken: taken.rename(aside),
        "removed": shutil.rmtree,
    }
    work, taken, ending = _begin(
        name, seed, folder, lambda taken: take[how](taken) and None, at_first=lambda: None
    )
    if aside.exists() and not taken.exists():
        taken.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(taken)
    shutil.copytree(before, work, dirs_exist_ok=True)
    _, command = COMMANDS[name]
    resumed(command, work, expected, ending)
    return "said so, then went on" if ending.code else "no hindrance"


def forbidden(name: str, seed: int, folder: Path) -> str:
    """Its permissions are taken, all or those to write, and given back."""
    _, expected, _ = prepared(name)
    mode = (0o500, 0o000)[seed // len(FOLDERS[name]) % 2]
    if os.geteuid() == 0 and not _may_obey():
        return "not tried: root may do everything here"
    work, taken, ending = _begin(
        name, seed, folder, lambda taken: taken.chmod(mode), at_first=_obey_permissions
    )
    if taken.exists():
        taken.chmod(0o755)
    _, command = COMMANDS[name]
    resumed(command, work, expected, ending)
    return "said so, then went on" if ending.code else "no hindrance"


def _may_obey() -> bool:
    """Whether root can put its privileges down here, which a child of this process tries."""
    child = os.fork()
    if not child:
        try:
            _obey_permissions()
        except (AttributeError, OSError):
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _obey_permissions() -> None:
    """For root: have permissions hold for this process as they do for everybody else."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if library.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for number in _OVERRIDES:
        sets[0] &= ~(1 << number)
    if library.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


FAULTS = {
    **{
        f"a folder {how} during {name}": partial(gone, how, name)
        for how in ("renamed", "removed")
        for name in COMMANDS
    },
    **{f"a folder forbidden during {name}": partial(forbidden, name) for name in COMMANDS},
}
