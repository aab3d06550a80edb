"""Faults of newly started processes, which also strike during startup. A trial takes seconds."""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from tests.faults.commands import TIMEOUT, CommandResult, check_resume
from tests.faults.interrupts import COMMANDS, copy_prepared, prepare
from tests.faults.memory import check_result

ROOT = Path(__file__).parents[2]
LOG2_MIN_MIB, LOG2_MAX_MIB = 7.0, 11.5
"""Base-2 logarithms of address space in MiB: Python starts with the first, and every command
succeeds with the second."""


def _start(
    command: Sequence[object], work: Path, limit: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from featurecache.cli import main; main()", *map(str, command)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=limit,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait(process: subprocess.Popen[str], timeout: float = TIMEOUT) -> CommandResult:
    """Wait until the process ends; kill it after ``timeout`` seconds."""
    try:
        _, output = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, output = process.communicate()
    return CommandResult(process.returncode, output)


@cache
def duration(name: str) -> float:
    """Return the seconds that an undisturbed command takes."""
    prepared, _, _ = prepare(name)
    work, command, _ = copy_prepared(name, prepared.parent / "timed")
    start = time.monotonic()
    _wait(_start(command, work)).check(0)
    return time.monotonic() - start


def kill(name: str, seed: int, folder: Path) -> str:
    """Kill the command at a random time, as the system does when its memory runs out."""
    work, command, expected = copy_prepared(name, folder)
    timeout = random.Random(seed).uniform(0, duration(name))
    result = _wait(_start(command, work), timeout).check(0, -9)
    check_resume(command, work, expected, result)
    return "same result" if result.code else "had already finished"


def limit_memory(name: str, seed: int, folder: Path) -> str:
    """Limit the address space from the start."""
    work, command, expected = copy_prepared(name, folder)
    limit = int(2 ** random.Random(seed).uniform(LOG2_MIN_MIB, LOG2_MAX_MIB)) * 2**20
    limits = (limit, resource.RLIM_INFINITY)
    process = _start(command, work, partial(resource.setrlimit, resource.RLIMIT_AS, limits))
    result = _wait(process)
    outcome = check_result(result)
    check_resume(command, work, expected, result)
    return outcome


FAULTS = {
    **{f"SIGKILL at a random time during {name}": partial(kill, name) for name in COMMANDS},
    **{
        f"a memory limit from the start of {name}": partial(limit_memory, name) for name in COMMANDS
    },
}
