"""Two processes that write the same files: one works, the other is refused or waits."""

import signal
import time
from functools import partial
from pathlib import Path

from tests.faults.commands import CommandProcess, find_difference, random_int, run, snapshot
from tests.faults.interrupts import COMMANDS, copy_prepared


def start_twice(
    name: str, seed: int, folder: Path, *options: str
) -> tuple[Path, CommandProcess, CommandProcess, dict[str, object]]:
    """Start a command twice in one folder, the second time a little later and with options.

    Returns:
        The working directory, both processes, and the snapshot expected afterwards.
    """
    work, command, expected = copy_prepared(name, folder)
    first = CommandProcess(command, work)
    time.sleep(random_int(seed, 100) / 300)
    return work, first, CommandProcess((*command, *options), work), expected


def run_twice(name: str, seed: int, folder: Path) -> str:
    """Run the same command twice at once."""
    work, first, second, expected = start_twice(name, seed, folder)
    results = [first.wait().check(0, 2), second.wait().check(0, 2)]
    refused = [result for result in results if result.code == 2]
    assert len(refused) < 2, [result.output for result in results]
    for result in refused:
        messages = ("another process is writing", "already exists")
        assert any(message in result.output for message in messages), result.output
    difference = find_difference(snapshot(work), expected)
    assert difference is None, difference
    return "one refused" if refused else "one after the other"


def extract_with_wait(seed: int, folder: Path) -> str:
    """Let the second extraction wait; in every other trial, kill the first one."""
    work, first, second, expected = start_twice("extract", seed, folder, "--wait")
    if seed % 2:
        time.sleep(random_int(seed + 1, 100) / 300)
        first.send_signal(signal.SIGKILL)
    first.wait()
    result = second.wait().check(0)
    difference = find_difference(snapshot(work), expected)
    assert difference is None, difference
    waited = "waiting for it to finish" in result.output
    return "waited" if waited else "did not have to wait"


def stale_lock(seed: int, folder: Path) -> str:
    """Start with the lock file of a process that was killed."""
    work, command, expected = copy_prepared("extract", folder)
    lock = work / "cache" / "phantom" / "tiny.h5.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("12345" * (seed % 2))
    run(command, work).check(0)
    difference = find_difference(snapshot(work), expected)
    assert difference is None, difference
    return "no effect"


FAULTS = {
    **{
        f"two processes running {name}": partial(run_twice, name)
        for name in COMMANDS
        if name != "report"
    },
    "a second extraction that waits": extract_with_wait,
    "a stale lock file": stale_lock,
}
