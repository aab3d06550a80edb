"""Commands as lives: processes of their own, forked from one that has imported all they need."""

import faulthandler
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np

IMAGES = 40
PATIENCE = 120
"""Seconds after which a life that hangs is ended."""
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""What the interpreter tells of before it does it (its audit events)."""


@cache
def warm() -> None:
    """Import what the commands need, without a thread, so that a fork of this process is sound."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    os.environ.pop("FEATURECACHE_DEBUG", None)  # which shows tracebacks
    import torch

    torch.set_num_threads(1)
    import pandas  # noqa: F401
    import scipy.optimize
    import scipy.sparse  # noqa: F401
    import transformers  # noqa: F401

    import featurecache.cli
    import featurecache.extraction.extract
    import featurecache.finetune.run
    import featurecache.heads.train
    import featurecache.report.page  # noqa: F401


@dataclass(frozen=True)
class Ending:
    """How a life ended: its exit code, negative for a signal that killed it, and its stderr."""

    code: int
    said: str

    def clean(self, *codes: int) -> "Ending":
        """Itself, if it ended in one of these ways, without a traceback."""
        assert self.code in codes, f"exit code {self.code}, not one of {codes}: {self.said}"
        assert "Traceback" not in self.said, self.said
        return self


class Life:
    """A command that runs in a forked process."""

    def __init__(
        self, arguments: Sequence[object], folder: Path, at_event: Callable[[int], None] = id
    ) -> None:
        """Begin it.

        Args:
            arguments: of the command line.
            folder: its working directory.
            at_event: called, in the life, with the number of each thing it is about to do to a file
                in the folder.
        """
        warm()
        # Not in the folder, whose disk may be full.
        self._log = Path(tempfile.mkstemp(suffix=".stderr")[1])
        sys.stdout.flush()
        self.process = os.fork()
        if not self.process:
            self._live([str(a) for a in arguments], folder, at_event)

    def _live(self, arguments: list[str], folder: Path, at_event: Callable[[int], None]) -> None:
        code = 70
        try:
            # As from a terminal: a process in the background has the one ignored, one under nohup
            # the other.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs
            signal.alarm(PATIENCE)
            os.chdir(folder)
            out = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            _count_events(folder, at_event)
            from featurecache.cli import main

            sys.argv = ["featurecache", *arguments]
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 70
        except BaseException:  # noqa: BLE001 - whatever it is, the parent reads of it
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.process, number)

    def end(self) -> Ending:
        """Wait until it is over."""
        _, status = os.waitpid(self.process, 0)
        said = self._log.read_text(errors="replace")
        self._log.unlink()
        return Ending(os.waitstatus_to_exitcode(status), said)


def _count_events(folder: Path, at_event: Callable[[int], None]) -> None:
    place, lock, seen = str(folder), threading.Lock(), [0]

    def note() -> None:
        with lock:
            seen[0] += 1
            number = seen[0]
        at_event(number)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        named = arguments[0] if event in _EVENTS and arguments else None
        if not isinstance(named, (str, bytes, os.PathLike)):
            return
        if str(folder / os.fsdecode(named)).startswith(place):
            note()

    fsync = os.fsync

    def noted_fsync(descriptor: int) -> None:
        note()
        fsync(descriptor)

    os.fsync = noted_fsync
    sys.addaudithook(audit)


def run(arguments: Sequence[object], folder: Path) -> Ending:
    """A command, undisturbed."""
    return Life(arguments, folder).end()


def events_of(arguments: Sequence[object], folder: Path) -> int:
    """How many things a command does to files in the folder."""
    reader, writer = os.pipe()
    life = Life(arguments, folder, lambda _: os.write(writer, b"x") and None)
    os.close(writer)
    seen = 0
    while block := os.read(reader, 65536):
        seen += len(block)
    os.close(reader)
    life.end().clean(0)
    return seen


def tree(folder: Path) -> dict[str, object]:
    """Everything below a folder, by path: the content of caches, the bytes of other files."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def _content(path: Path) -> object:
    if path.suffix != ".h5":
        return path.read_bytes()
    found: dict[str, object] = {}

    def keep(name: str, item: h5py.HLObject) -> None:
        # When it was written, and what stands over that, is another each time.
        if name.startswith("checksums"):
            return
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tobytes())
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = str(value)

    with h5py.File(path) as file:
        for key, value in file.attrs.items():
            if key != "created":
                found[f"@{key}"] = str(value)
        file.visititems(keep)
    return found


def difference(one: dict[str, object], other: dict[str, object]) -> str | None:
    """What two trees do not have in common; None where they are the same."""
    if missing := one.keys() ^ other.keys():
        return f"{sorted(missing)} are in one of the two only"
    return next((f"{name} is another" for name in one if one[name] != other[name]), None)


def dying(at: int, by: signal.Signals) -> Callable[[int], None]:
    """A life that sends itself a signal when it is about to do its thing number ``at``."""

    def at_event(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), by)

    return at_event


def resumed(
    command: Sequence[object], work: Path, expected: dict[str, object], ending: Ending
) -> Ending:
    """The command once more, undisturbed: whatever came before, all is as it is without a fault.

    Args:
        command: that ended so.
        work: its folder.
        expected: what is in the folder after an undisturbed life.
        ending: of the life before. Nothing half is in place after it, and what it left in place is
            not made a second time.

    Returns:
        The last ending.
    """
    if ending.code != 0:
        half = [name for name, one in tree(work).items() if expected.get(name, one) != one]
        assert not half, f"{half} are in place, and another: {ending.said}"
    last = run(command, work)
    if last.code == 2:
        assert "already exists" in last.said, last.said
    else:
        last.clean(0)
    found = difference(tree(work), expected)
    assert found is None, f"{found}: {ending.said}"
    return last


@contextmanager
def small_disk(place: Path, option: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own, with an option of mount's; yields what gives it another.

    Raises:
        PermissionError: this process may not mount one.
    """

    def mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.strip())

    place.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", option, "tmpfs", str(place))
    try:
        yield lambda other: mount("-o", f"remount,{other}", str(place))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def moment(seed: int, most: int) -> int:
    """A number from 1 to ``most``."""
    return random.Random(seed).randint(1, most)
