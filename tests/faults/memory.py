"""Memory that does not suffice: a line says so, nothing half is in place, and it goes on."""

import random
import re
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.commands import Ending, Life, difference, resumed, tree
from tests.faults.interrupts import COMMANDS, copied

MOST = {"extract": 8.0, "train-head": 6.5, "finetune": 8.5, "cache merge": 0.0, "report": 5.0}
"""Powers of two: of so many MiB more, each command needs at most some."""

ABORTS = {-4: "SIGILL", -5: "SIGTRAP", -6: "SIGABRT", -7: "SIGBUS", -11: "SIGSEGV", 127: "exit 127"}
"""How a library in C may end the process where it gets no memory."""

PATIENCE = 45


_THREAD_WAS_AWAITED = re.compile(
    r"Current thread .*\n(.*threading.py.* in wait\n)+.*threading.py.* in start\n"
)
"""Where Python hangs when a thread that it began finds no memory for its first step."""


def short(name: str, seed: int, folder: Path) -> str:
    """The address space may grow by so much and no more, then as it likes."""
    work, command, expected = copied(name, folder)
    more = int(2 ** random.Random(seed).uniform(-3, MOST[name]) * 2**20)
    ending = Life(command, work, _limited_to(more)).end()
    outcome = told(ending)
    if ending.code == 0 and difference(tree(work), expected) is not None:
        assert "needs more memory than is available" in ending.said, ending.said
        outcome = "recorded images, then took them up"
    resumed(command, work, expected, ending)
    return outcome


def told(ending: Ending) -> str:
    """What came of a life that may have had too little memory."""
    if ending.code == -signal.SIGALRM and _THREAD_WAS_AWAITED.search(ending.said):
        return "Python waited for a thread without memory; killed, then went on"
    if "OpenBLAS error: Memory allocation" in ending.said and ending.code == 1:
        return "OpenBLAS ended it, then went on"
    if word := ABORTS.get(ending.code):
        return f"a library ended it ({word}), then went on"
    if ending.clean(0, 1).code:
        assert "out of memory" in ending.said, ending.said
        return "said so, then went on"
    return "there was enough"


def _limited_to(more: int) -> Callable[[int], None]:
    def at_event(number: int) -> None:
        if number == 1:
            status = Path("/proc/self/status").read_text()
            size = re.search(r"VmSize:\s+(\d+) kB", status)
            assert size is not None
            limit = int(size[1]) * 1024 + more
            signal.alarm(PATIENCE)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    return at_event


FAULTS = {f"too little memory for {name}": partial(short, name) for name in COMMANDS}
