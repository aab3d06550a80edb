"""Signals at any time: the command ends cleanly, and gives the same result when repeated."""

import atexit
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from featurecache.datasets.phantom.folder import generate_phantom
from tests.faults.commands import (
    N_IMAGES,
    CommandProcess,
    check_resume,
    count_operations,
    kill_at,
    random_int,
    run,
    snapshot,
)

DATA = ("--dataset", "phantom", "--data-root", "images", "--n-images", N_IMAGES)
EXTRACT = ("extract", *DATA, "--batch-size", 4, "--precision", "fp32")
CACHE = "cache/phantom/tiny.h5"
SHARDS = tuple(f"cache/phantom/tiny.{number}-of-2.h5" for number in (1, 2))
QUICK = ("--out", "run", "--n-bootstrap", 5, "--epochs", 2)
BCE = ("--objective", "bce", "--trainable", "head", "--batch-size", 8, "--precision", "fp32")
COMMANDS: Mapping[str, tuple[Sequence[Sequence[object]], Sequence[object]]] = {
    "extract": ((), EXTRACT),
    "train-head": (
        (EXTRACT,),
        ("train-head", "--head", "weighted_sum", "--cache", CACHE, *QUICK),
    ),
    "finetune": (
        (),
        ("finetune", "--model", "tiny", *BCE, *DATA, *QUICK),
    ),
    "cache merge": (
        tuple((*EXTRACT, "--shard", f"{number}/2") for number in (1, 2)),
        ("cache", "merge", *SHARDS),
    ),
    "report": (
        (EXTRACT, ("zero-shot", "--cache", CACHE, "--out", "zero", "--n-bootstrap", 5)),
        ("report", "zero", "--out", "page.html", "--n-bootstrap", 5),
    ),
}
"""By name: the commands that prepare the working directory, and the command to disturb."""

EXIT_CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
MESSAGES = {
    signal.SIGTERM: "error: terminated: ",
    signal.SIGINT: "error: interrupted: ",
    signal.SIGHUP: "error: the terminal was closed: ",
}
RESUMABLE = "finished work is kept; run the same command again to resume"
NOT_RESUMABLE = "nothing was left unfinished; run the same command again to start over"


@cache
def prepare(name: str) -> tuple[Path, dict[str, object], int]:
    """Run a command undisturbed.

    Returns:
        Its working directory as it was before; a snapshot of it afterwards; the number of file
        operations.
    """
    folder = Path(tempfile.mkdtemp(prefix="prepared-"))
    # The forked processes end without calling this.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    work, done = folder / "work", folder / "done"
    work.mkdir()
    preparation, command = COMMANDS[name]
    # Generate the images first, so that the disturbed commands do not.
    generate_phantom(work / "images", n_images=N_IMAGES, size=48)
    for arguments in preparation:
        run(arguments, work).check(0)
    shutil.copytree(work, done)
    n_operations = count_operations(command, done)
    return work, snapshot(done), n_operations


def copy_prepared(name: str, folder: Path) -> tuple[Path, Sequence[object], dict[str, object]]:
    """Copy the prepared working directory of a command into a folder.

    Returns:
        The copy, the command, and the snapshot expected after the command.
    """
    prepared, expected, _ = prepare(name)
    work = folder / "work"
    shutil.copytree(prepared, work)
    return work, COMMANDS[name][1], expected


def interrupt(name: str, by: signal.Signals, seed: int, folder: Path) -> str:
    """Interrupt the command once or twice at a random file operation; then let it finish."""
    work, command, expected = copy_prepared(name, folder)
    _, _, n_operations = prepare(name)
    interruptions = 0
    for attempt in range(1 + seed % 2):
        number = random_int(2 * seed + attempt, n_operations)
        result = CommandProcess(command, work, kill_at(number, by)).wait()
        if result.code == 0:
            break
        if result.code == 2 and "already exists" in result.output and interruptions:
            break
        result.check(EXIT_CODES[by])
        if by in MESSAGES:
            advice = RESUMABLE if name in ("extract", "finetune") else NOT_RESUMABLE
            assert MESSAGES[by] + advice in result.output, result.output
        interruptions += 1
    check_resume(command, work, expected, result)
    return "same result" if interruptions else "had already finished"


FAULTS = {
    f"{by.name} during {name}": partial(interrupt, name, by)
    for name in COMMANDS
    for by in EXIT_CODES
}
