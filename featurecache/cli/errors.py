"""What becomes of errors and signals: one or two lines on stderr, and an exit code.

0    done
1    a failure
2    a user's mistake: an option, a file, a name
129  the terminal went away
130  interrupted (Ctrl-C)
143  terminated
"""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Final, NoReturn

import typer

from featurecache.cli.log_file import log_command
from featurecache.cli.output import print_status
from featurecache.errors import FeaturecacheError
from featurecache.oom import ran_out_of_memory

DEBUG_VARIABLE = "FEATURECACHE_DEBUG"

TERMINATION_SIGNALS: Final = {
    name: word
    for name, word in (
        ("SIGHUP", "the terminal went away"),  # not on Windows
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
    )
    if hasattr(signal, name)
}
"""The signals that end a command, and how it says so."""

ADVICE: Final = {
    errno.ENOSPC: "the disk is full: make room, and give the same command again",
    errno.EDQUOT: "your share of the disk is used up: make room, and give the same command again",
    errno.EFBIG: "the file grew beyond what is allowed: see ulimit -f",
    errno.EROFS: "it is read-only: write to another folder",
    errno.EACCES: "not allowed: change its permissions, or give another file or folder",
    errno.EPERM: "not allowed: change its permissions, or give another file or folder",
    errno.ENOENT: "not there any more: see who moved or removed it or its folder, put it back, and "
    "give the same command again",
    errno.ENOTDIR: "a part of this path is no folder: give another",
}


class TerminationSignal(KeyboardInterrupt):
    """A signal that asks the process to end; what unwinds for Ctrl-C unwinds for it too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


OUT_OF_MEMORY: Final = "out of memory: end other programs, or lift the limit (ulimit -v)"
RESUMABLE: Final = "what was finished is kept, and the same command goes on"
NOT_RESUMABLE: Final = "nothing unfinished is left, and the same command begins anew"


def with_exit_code(
    command: Callable[..., None], *, interrupted: str = NOT_RESUMABLE
) -> Callable[..., None]:
    """Make a command end with a message and an exit code where it would raise.

    Args:
        command: the command.
        interrupted: what becomes of its work when a signal ends it.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        log_command(command.__name__, kwargs)
        try:
            with _signals_as_exceptions(), _suppress_secondary_tracebacks():
                command(*args, **kwargs)
            return
        except BrokenPipeError:
            raise  # typer ends quietly when the reader of its output went away
        except (KeyboardInterrupt, Exception) as error:
            ending = _ending(error, interrupted)
            if ending is None:
                raise
            if os.environ.get(DEBUG_VARIABLE):
                import traceback

                traceback.print_exc()
        # Only here is the memory that the error held free again, some of which words take.
        message, code = ending
        print_status(f"error: {message}", logging.ERROR)
        raise typer.Exit(code)

    return run


def _ending(error: BaseException, interrupted: str) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; None for one that nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        number = error.signal if isinstance(error, TerminationSignal) else signal.SIGINT
        return f"{TERMINATION_SIGNALS[number.name]}: {interrupted}", 128 + number
    # What cannot be read for want of memory is not therefore damaged, nor a mistake.
    if ran_out_of_memory(error) and getattr(error, "exit_code", None) != 1:
        return f"{OUT_OF_MEMORY}; {interrupted}", 1
    if isinstance(error, FeaturecacheError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return where + ADVICE.get(error.errno or 0, error.strerror or str(error)), 1
    return None


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """While the body runs, the first signal of ``TERMINATION_SIGNALS`` unwinds it as Ctrl-C does.

    The second would unwind what writes down the work that is done, so it is only answered; the
    third is the system's again and ends the process at once. A signal that whoever began the
    process had it ignore, as nohup does, stays ignored.
    """

    def unwind(number: int, _: object) -> NoReturn:
        handle(ask_for_patience)
        raise TerminationSignal(number)

    def ask_for_patience(*_: object) -> None:
        handle(signal.SIG_DFL)
        os.write(2, b"\nwriting down what is finished: once more ends at once\n")

    def handle(handler: Callable[..., Any] | signal.Handlers) -> None:
        for name in before:
            signal.signal(signal.Signals[name], handler)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = {
        name: usual
        for name in TERMINATION_SIGNALS
        if (usual := signal.getsignal(signal.Signals[name])) != signal.SIG_IGN
    }
    handle(unwind)
    try:
        yield
    finally:
        for name, usual in before.items():
            signal.signal(signal.Signals[name], usual)


@contextmanager
def _suppress_secondary_tracebacks() -> Iterator[None]:
    """Have nothing printed that the command itself tells of.

    Where HDF5 cannot write, h5py raises, and prints it again for each object that is open. Where
    memory runs out, it does so in whatever thread asks next, be it the one that draws the bar.
    """
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook

    def is_echo(error: BaseException | None) -> bool:
        if error is None:
            return False
        return str(error).startswith("Can't decrement id ref count") or ran_out_of_memory(error)

    def except_echoes(
        kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        if not is_echo(error):
            hooks[0](kind, error, where)

    def unraisable_except_echoes(unraisable: "sys.UnraisableHookArgs") -> None:
        if not is_echo(unraisable.exc_value):
            hooks[1](unraisable)

    def of_thread_except_echoes(raised: threading.ExceptHookArgs) -> None:
        if not is_echo(raised.exc_value):
            hooks[2](raised)

    sys.excepthook, sys.unraisablehook = except_echoes, unraisable_except_echoes
    threading.excepthook = of_thread_except_echoes
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
