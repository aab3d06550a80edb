"""Commands as somebody starts them: what strikes may strike while they begin; seconds a trial."""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from tests.faults.commands import PATIENCE, Ending, resumed
from tests.faults.interrupts import COMMANDS, copied, prepared
from tests.faults.memory import told

ROOT = Path(__file__).parents[2]
LEAST, MOST = 7.0, 11.5
"""Powers of two: with so many MiB of addresses Python starts, with so many all commands end."""


def _started(
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


def _ended(process: subprocess.Popen[str], after: float = PATIENCE) -> Ending:
    """Wait; kill it when so many seconds are over."""
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    return Ending(process.returncode, said)


@cache
def seconds(name: str) -> float:
    """That an undisturbed life takes."""
    before, _, _ = prepared(name)
    work, command, _ = copied(name, before.parent / "timed")
    start = time.monotonic()
    _ended(_started(command, work)).clean(0)
    return time.monotonic() - start


def killed(name: str, seed: int, folder: Path) -> str:
    """SIGKILL at an instant of the clock, as by the system when its memory runs out."""
    work, command, expected = copied(name, folder)
    after = random.Random(seed).uniform(0, seconds(name))
    ending = _ended(_started(command, work), after).clean(0, -9)
    resumed(command, work, expected, ending)
    return "ended as undisturbed" if ending.code else "was faster"


def short(name: str, seed: int, folder: Path) -> str:
    """A limit on memory that holds from the start."""
    work, command, expected = copied(name, folder)
    limit = int(2 ** random.Random(seed).uniform(LEAST, MOST)) * 2**20
    bounds = (limit, resource.RLIM_INFINITY)
    process = _started(command, work, partial(resource.setrlimit, resource.RLIMIT_AS, bounds))
    ending = _ended(process)
    outcome = told(ending)
    resumed(command, work, expected, ending)
    return outcome


FAULTS = {
    **{f"a kill by the clock during {name}": partial(killed, name) for name in COMMANDS},
    **{f"few addresses from the start for {name}": partial(short, name) for name in COMMANDS},
}
