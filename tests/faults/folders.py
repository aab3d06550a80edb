"""A folder is removed, renamed or made inaccessible while a command runs.

The command reports it, and continues when the folder is there again.
"""

import ctypes
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.faults.commands import CommandProcess, CommandResult, check_resume, random_int
from tests.faults.interrupts import COMMANDS, copy_prepared, prepare

FOLDERS: Mapping[str, Sequence[str]] = {
    "extract": (".", "cache", "cache/phantom", "cache/phantom/tiny.h5.parts"),
    "train-head": (".", "cache/phantom"),
    "finetune": (".", "run.parts"),
    "cache merge": (".", "cache", "cache/phantom"),
    "report": (".", "zero"),
}
"""By command: the folders to disturb, below its working directory."""

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
"""The Linux capabilities that let root ignore file permissions."""


def _run_disturbed(
    name: str,
    seed: int,
    folder: Path,
    disturb: Callable[[Path], None],
    *,
    on_start: Callable[[], None],
) -> tuple[Path, Path, CommandResult]:
    """Disturb a folder at a random file operation of a command.

    Returns:
        The working directory, the disturbed folder, and the result of the command.
    """
    work, command, _ = copy_prepared(name, folder)
    _, _, n_operations = prepare(name)
    target = work / FOLDERS[name][seed % len(FOLDERS[name])]
    number = random_int(seed, n_operations)

    def on_operation(current: int) -> None:
        if current == 1:
            on_start()
        if current == number and target.is_dir():
            disturb(target)

    return work, target, CommandProcess(command, work, on_operation).wait().check(0, 1, 2)


def move_or_remove(how: str, name: str, seed: int, folder: Path) -> str:
    """Rename or remove the folder; then restore it."""
    prepared, expected, _ = prepare(name)
    aside = folder / "aside"
    disturb: Mapping[str, Callable[[Path], object]] = {
        "renamed": lambda target: target.rename(aside),
        "removed": shutil.rmtree,
    }
    work, target, result = _run_disturbed(
        name, seed, folder, lambda target: disturb[how](target) and None, on_start=lambda: None
    )
    if aside.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)
    shutil.copytree(prepared, work, dirs_exist_ok=True)
    _, command = COMMANDS[name]
    check_resume(command, work, expected, result)
    return "reported it, then continued" if result.code else "not affected"


def make_inaccessible(name: str, seed: int, folder: Path) -> str:
    """Take away all permissions, or the permission to write; then restore them."""
    _, expected, _ = prepare(name)
    mode = (0o500, 0o000)[seed // len(FOLDERS[name]) % 2]
    if os.geteuid() == 0 and not _can_drop_privileges():
        return "not tried: root ignores permissions here"
    work, target, result = _run_disturbed(
        name, seed, folder, lambda target: target.chmod(mode), on_start=_drop_privileges
    )
    if target.exists():
        target.chmod(0o755)
    _, command = COMMANDS[name]
    check_resume(command, work, expected, result)
    return "reported it, then continued" if result.code else "not affected"


def _can_drop_privileges() -> bool:
    """Return whether root can drop its privileges here, tried in a child process."""
    child = os.fork()
    if not child:
        try:
            _drop_privileges()
        except (AttributeError, OSError):
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _drop_privileges() -> None:
    """If root, make file permissions apply to this process."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if library.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        sets[0] &= ~(1 << capability)
    if library.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


FAULTS = {
    **{
        f"a folder {how} during {name}": partial(move_or_remove, how, name)
        for how in ("renamed", "removed")
        for name in COMMANDS
    },
    **{
        f"a folder made inaccessible during {name}": partial(make_inaccessible, name)
        for name in COMMANDS
    },
}
