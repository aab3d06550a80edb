"""Run commands in processes that are forked from one with all imports done."""

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

N_IMAGES = 24
TIMEOUT = 120
"""Seconds after which a process that hangs is killed."""
_AUDIT_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Audit events of the interpreter, raised before each operation, that count as file operations."""


@cache
def import_libraries() -> None:
    """Import what the commands need, without starting threads, so that forking is safe."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    os.environ.pop("FEATURECACHE_DEBUG", None)  # it makes commands print tracebacks
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
    from featurecache.encoders.loading import load_encoder

    load_encoder("tiny", device="cpu")  # imports most of transformers


@dataclass(frozen=True)
class CommandResult:
    """The exit code of a process, negative for the signal that killed it, and its output."""

    code: int
    output: str

    def check(self, *codes: int) -> "CommandResult":
        """Require one of these exit codes and no traceback; return self."""
        assert self.code in codes, f"exit code {self.code}, not one of {codes}: {self.output}"
        assert "Traceback" not in self.output, self.output
        return self


class CommandProcess:
    """A command that runs in a forked process."""

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        on_operation: Callable[[int], None] = id,
    ) -> None:
        """Start it.

        Args:
            arguments: Arguments of the command line.
            folder: Its working directory.
            on_operation: Called in the new process before each file operation in the folder, with
                its number, starting at 1.
        """
        import_libraries()
        # Outside the folder, because the disk of the folder may be full.
        self._log = Path(tempfile.mkstemp(suffix=".stderr")[1])
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run([str(a) for a in arguments], folder, on_operation)

    def _run(self, arguments: list[str], folder: Path, on_operation: Callable[[int], None]) -> None:
        code = 70
        try:
            # As if started from a terminal: background processes ignore SIGINT, and processes
            # under nohup ignore SIGHUP.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, chain=True)  # prints where it hangs
            signal.alarm(TIMEOUT)
            os.chdir(folder)
            out = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            _count_operations(folder, on_operation)
            from featurecache.cli import main

            sys.argv = ["featurecache", *arguments]
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 70
        except BaseException:  # noqa: BLE001 - the parent process reads it in the output
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self) -> CommandResult:
        """Wait until the process has ended."""
        _, status = os.waitpid(self.pid, 0)
        output = self._log.read_text(errors="replace")
        self._log.unlink()
        return CommandResult(os.waitstatus_to_exitcode(status), output)


def _count_operations(folder: Path, on_operation: Callable[[int], None]) -> None:
    """Call ``on_operation`` before each file operation of this process in the folder."""
    prefix, lock, count = str(folder), threading.Lock(), [0]

    def report() -> None:
        with lock:
            count[0] += 1
            number = count[0]
        on_operation(number)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        path = arguments[0] if event in _AUDIT_EVENTS and arguments else None
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        if str(folder / os.fsdecode(path)).startswith(prefix):
            report()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        report()
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(audit)


def run(arguments: Sequence[object], folder: Path) -> CommandResult:
    """Run a command without faults."""
    return CommandProcess(arguments, folder).wait()


def count_operations(arguments: Sequence[object], folder: Path) -> int:
    """Run a command, and return its number of file operations in the folder."""
    reader, writer = os.pipe()
    process = CommandProcess(arguments, folder, lambda _: os.write(writer, b"x") and None)
    os.close(writer)
    count = 0
    while block := os.read(reader, 65536):
        count += len(block)
    os.close(reader)
    process.wait().check(0)
    return count


def snapshot(folder: Path) -> dict[str, object]:
    """Return the files below a folder by path: the content of caches, the bytes of others."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def _content(path: Path) -> object:
    if path.suffix != ".h5":
        return path.read_bytes()
    content: dict[str, object] = {}

    def add(name: str, item: h5py.HLObject) -> None:
        # The creation time, and so the checksum over it, differ each time.
        if name.startswith("checksums"):
            return
        if isinstance(item, h5py.Dataset):
            content[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tobytes())
        for key, value in item.attrs.items():
            content[f"{name}@{key}"] = str(value)

    with h5py.File(path) as file:
        for key, value in file.attrs.items():
            if key != "created":
                content[f"@{key}"] = str(value)
        file.visititems(add)
    return content


def find_difference(first: dict[str, object], second: dict[str, object]) -> str | None:
    """Return a difference between two snapshots; None if they are equal."""
    if unmatched := first.keys() ^ second.keys():
        return f"only one of the two has {sorted(unmatched)}"
    return next((f"{name} differs" for name in first if first[name] != second[name]), None)


def kill_at(number: int, by: signal.Signals) -> Callable[[int], None]:
    """Return an ``on_operation`` that sends its own process a signal at operation ``number``."""

    def on_operation(current: int) -> None:
        if current == number:
            os.kill(os.getpid(), by)

    return on_operation


def check_resume(
    command: Sequence[object], work: Path, expected: dict[str, object], interrupted: CommandResult
) -> CommandResult:
    """Repeat a command without a fault, and require the result of an undisturbed one.

    Args:
        command: The command that was disturbed.
        work: Its working directory.
        expected: Snapshot of that directory after an undisturbed command.
        interrupted: Result of the disturbed command. If it failed, it must not have left partial
            files, and files that it finished must not be refused or written again.

    Returns:
        The result of the repeated command.
    """
    if interrupted.code != 0:
        files = snapshot(work)
        partial = [name for name in files if expected.get(name, files[name]) != files[name]]
        assert not partial, f"{partial} differ from the finished files: {interrupted.output}"
    repeated = run(command, work)
    if repeated.code == 2:
        assert "already exists" in repeated.output, repeated.output
    else:
        repeated.check(0)
    difference = find_difference(snapshot(work), expected)
    assert difference is None, f"{difference}: {interrupted.output}"
    return repeated


@contextmanager
def small_disk(mount_point: Path, option: str) -> Iterator[Callable[[str], None]]:
    """Mount a file system of its own with a mount option; yield a function that changes it.

    Raises:
        PermissionError: This process may not mount file systems.
    """

    def mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.strip())

    mount_point.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", option, "tmpfs", str(mount_point))
    try:
        yield lambda other: mount("-o", f"remount,{other}", str(mount_point))
    finally:
        subprocess.run(["umount", "-l", str(mount_point)], check=False)


def random_int(seed: int, maximum: int) -> int:
    """Return an integer from 1 to ``maximum``."""
    return random.Random(seed).randint(1, maximum)
