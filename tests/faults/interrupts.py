"""Signals at any moment: the end is clean, and the same command then ends as an undisturbed one."""

import atexit
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from tests.faults.commands import IMAGES, Life, dying, events_of, moment, resumed, run, tree

FILMS = ("--dataset", "phantom", "--data-root", "films", "--n-images", IMAGES)
EXTRACT = ("extract", *FILMS, "--batch-size", 4, "--precision", "fp32")
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
        ("finetune", "--model", "tiny", *BCE, *FILMS, *QUICK),
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
"""By name: what has to be there before, and the command."""

ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
WORDS = {
    signal.SIGTERM: "terminated",
    signal.SIGINT: "interrupted",
    signal.SIGHUP: "the terminal was closed",
}


@cache
def prepared(name: str) -> tuple[Path, dict[str, object], int]:
    """The work before the command, what is there after it, and how much it does to files."""
    place = Path(tempfile.mkdtemp(prefix="prepared-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)  # lives end without this
    work, done = place / "work", place / "done"
    work.mkdir()
    before, command = COMMANDS[name]
    # The films are drawn before the first life of a command, which is not about them.
    run((*EXTRACT, "--limit", 1, "--cache", "drawn"), work).clean(0)
    shutil.rmtree(work / "drawn")
    for one in before:
        run(one, work).clean(0)
    shutil.copytree(work, done)
    number = events_of(command, done)
    return work, tree(done), number


def copied(name: str, folder: Path) -> tuple[Path, Sequence[object], dict[str, object]]:
    """What a command begins with, copied into a folder; the command; and what it leaves there."""
    before, expected, _ = prepared(name)
    work = folder / "work"
    shutil.copytree(before, work)
    return work, COMMANDS[name][1], expected


def trial(name: str, by: signal.Signals, seed: int, folder: Path) -> str:
    """The command is ended once or twice at a random thing that it does, then let be."""
    work, command, expected = copied(name, folder)
    _, _, number = prepared(name)
    ended = 0
    for life in range(1 + seed % 2):
        ending = Life(command, work, dying(moment(2 * seed + life, number), by)).end()
        if ending.code == 0:
            break
        refused = ending.code == 2 and "already exists" in ending.said and ended
        if refused:
            break
        ending.clean(ENDS[by])
        if by in WORDS:
            assert f"error: {WORDS[by]}: " in ending.said, ending.said
        ended += 1
    resumed(command, work, expected, ending)
    return "ended as undisturbed" if ended else "was faster"


FAULTS = {f"{by.name} during {name}": partial(trial, name, by) for name in COMMANDS for by in ENDS}
