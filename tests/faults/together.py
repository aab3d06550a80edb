"""Two processes that want to write the same: one works, the other refuses or waits."""

import shutil
import signal
import time
from functools import partial
from pathlib import Path

from tests.faults.commands import Life, difference, moment, run, tree
from tests.faults.interrupts import COMMANDS, prepared


def begin_two(
    name: str, seed: int, folder: Path, *more: str
) -> tuple[Path, Life, Life, dict[str, object]]:
    """A command twice in one folder, the second a little later and with more options."""
    before, expected, _ = prepared(name)
    _, command = COMMANDS[name]
    work = folder / "work"
    shutil.copytree(before, work)
    first = Life(command, work)
    time.sleep(moment(seed, 100) / 300)
    return work, first, Life((*command, *more), work), expected


def two(name: str, seed: int, folder: Path) -> str:
    """The same command twice."""
    work, first, second, expected = begin_two(name, seed, folder)
    endings = [first.end().clean(0, 2), second.end().clean(0, 2)]
    refused = [ending for ending in endings if ending.code == 2]
    assert len(refused) < 2, [ending.said for ending in endings]
    for ending in refused:
        refusals = ("another process is writing", "already exists")
        assert any(refusal in ending.said for refusal in refusals), ending.said
    found = difference(tree(work), expected)
    assert found is None, found
    return "one refused" if refused else "one after the other"


def waiting(seed: int, folder: Path) -> str:
    """The second extraction was asked to wait; every other time the first is killed."""
    work, first, second, expected = begin_two("extract", seed, folder, "--wait")
    if seed % 2:
        time.sleep(moment(seed + 1, 100) / 300)
        first.send(signal.SIGKILL)
    first.end()
    ending = second.end().clean(0)
    found = difference(tree(work), expected)
    assert found is None, found
    return "waited" if "waiting until it is done" in ending.said else "met nobody"


def stale_lock(seed: int, folder: Path) -> str:
    """The lock file of a process that was killed is there."""
    before, expected, _ = prepared("extract")
    _, command = COMMANDS["extract"]
    work = folder / "work"
    shutil.copytree(before, work)
    lock = work / "cache" / "phantom" / "tiny.h5.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("12345" * (seed % 2))
    run(command, work).clean(0)
    found = difference(tree(work), expected)
    assert found is None, found
    return "no hindrance"


FAULTS = {
    **{f"two processes at {name}": partial(two, name) for name in COMMANDS if name != "report"},
    "a second extraction that waits": waiting,
    "a lock file that was left behind": stale_lock,
}
