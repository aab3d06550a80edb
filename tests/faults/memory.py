"""Too little memory: commands report it, leave no partial files, and continue when repeated."""

import random
import re
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.commands import (
    CommandProcess,
    CommandResult,
    check_resume,
    find_difference,
    snapshot,
)
from tests.faults.interrupts import COMMANDS, copy_prepared

LOG2_MAX_MIB = {
    "extract": 8.0,
    "train-head": 6.5,
    "finetune": 8.5,
    "cache merge": 0.0,
    "report": 5.0,
}
"""Base-2 logarithm of the memory limit in MiB at which each command succeeds."""

ABORTS = {-4: "SIGILL", -5: "SIGTRAP", -6: "SIGABRT", -7: "SIGBUS", -11: "SIGSEGV", 127: "exit 127"}
"""How a C library may end the process when it gets no memory."""

TIMEOUT = 45


_WAITS_FOR_THREAD = re.compile(
    r"Current thread .*\n(.*threading.py.* in wait\n)+.*threading.py.* in start\n"
)
"""Where Python hangs when a new thread has no memory for its first step."""


def limit_memory(name: str, seed: int, folder: Path) -> str:
    """Limit by how much the address space may grow; then lift the limit."""
    work, command, expected = copy_prepared(name, folder)
    growth = int(2 ** random.Random(seed).uniform(-3, LOG2_MAX_MIB[name]) * 2**20)
    result = CommandProcess(command, work, _limit_growth(growth)).wait()
    outcome = check_result(result)
    if result.code == 0 and find_difference(snapshot(work), expected) is not None:
        assert "needs more memory than is available" in result.output, result.output
        outcome = "recorded images, then read them"
    check_resume(command, work, expected, result)
    return outcome


def check_result(result: CommandResult) -> str:
    """Return the outcome of a command that may have had too little memory."""
    if result.code == -signal.SIGALRM and _WAITS_FOR_THREAD.search(result.output):
        return "Python waited for a thread without memory; killed, then continued"
    if "OpenBLAS error: Memory allocation" in result.output and result.code == 1:
        return "OpenBLAS ended it, then continued"
    if abort := ABORTS.get(result.code):
        return f"a library ended it ({abort}), then continued"
    if result.check(0, 1).code:
        assert "out of memory" in result.output, result.output
        return "reported it, then continued"
    return "had enough memory"


def _limit_growth(growth: int) -> Callable[[int], None]:
    def on_operation(number: int) -> None:
        if number == 1:
            status = Path("/proc/self/status").read_text()
            size = re.search(r"VmSize:\s+(\d+) kB", status)
            assert size is not None
            limit = int(size[1]) * 1024 + growth
            signal.alarm(TIMEOUT)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    return on_operation


FAULTS = {f"too little memory for {name}": partial(limit_memory, name) for name in COMMANDS}
