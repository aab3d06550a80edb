"""Turn errors and signals into one or two lines on stderr and an exit code.

0    success
1    a failure
2    a mistake of the user: an option, a file, a name
129  the terminal was closed (SIGHUP)
130  interrupted (Ctrl-C)
143  terminated (SIGTERM)
"""

import errno
import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn

import typer

from featurecache.cli.log_file import log_command
from featurecache.cli.option_names import running
from featurecache.cli.output import print_status, printed_warnings
from featurecache.errors import FeaturecacheError
from featurecache.oom import ran_out_of_memory

DEBUG_VARIABLE = "FEATURECACHE_DEBUG"

TERMINATION_SIGNALS: Final = {
    name: message
    for name, message in (
        ("SIGHUP", "the terminal was closed"),  # not on Windows
        ("SIGINT", "interrupted"),
        ("SIGTERM", "terminated"),
    )
    if hasattr(signal, name)
}
"""The signals that end a command, and how its last message begins."""

ADVICE: Final = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file exceeds the size limit: see ulimit -f",
    errno.EROFS: "the file system is read-only: write to another folder",
    errno.EACCES: "permission denied: change its permissions, or choose another file or folder",
    errno.EPERM: "permission denied: change its permissions, or choose another file or folder",
    errno.EIO: "the disk or the network failed (input/output error): check it, and run the same "
    "command again",
    errno.ESTALE: "the file server has replaced or removed the file (stale file handle): run the "
    "same command again",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), and run the same command "
    "again",
    errno.ENOENT: "no longer exists: find out what moved or removed it or its folder, restore it, "
    "and run the same command again",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.ENOTDIR: "a part of this path is not a folder: choose another",
}
"""What to do about errors of the operating system."""


class TerminationSignal(KeyboardInterrupt):
    """A signal that asks the process to end. It unwinds the program like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


OUT_OF_MEMORY: Final = "out of memory: close other programs, or raise the limit (ulimit -v)"


class Interruption(NamedTuple):
    """What becomes of a command's work when a signal ends it.

    Attributes:
        ending: What the command does before it ends, printed at a second signal.
        result: What became of its work, the second half of the last message.
    """

    ending: str
    result: str


RESUMABLE: Final = Interruption(
    "saving finished work", "finished work is kept; run the same command again to resume"
)
NOT_RESUMABLE: Final = Interruption(
    "cleaning up", "nothing was left unfinished; run the same command again to start over"
)
SERVER: Final = Interruption("ending open requests", "the server had not started yet")
"""A server that answers ends without a message."""


def with_exit_code(
    command: Callable[..., None], *, interrupted: Interruption = NOT_RESUMABLE
) -> Callable[..., None]:
    """Wrap a command so that errors become a message and an exit code.

    Args:
        command: The command.
        interrupted: What is printed when a signal ends the command.
    """

    @wraps(command)
    @running(command)
    def run(*args: Any, **kwargs: Any) -> None:
        log_command(command.__name__, kwargs)
        try:
            with (
                _signals_as_exceptions(interrupted.ending),
                _suppress_secondary_tracebacks(),
                printed_warnings(),
            ):
                command(*args, **kwargs)
            return
        except BrokenPipeError:
            raise  # typer exits quietly if the reader of its output is gone
        except (KeyboardInterrupt, Exception) as error:
            result = _message_and_code(error, interrupted.result)
            if result is None:
                raise
            if os.environ.get(DEBUG_VARIABLE):
                import traceback

                traceback.print_exc()
        # After the handler, so that the error and the memory that it holds are freed.
        message, code = result
        print_status(f"error: {message}", logging.ERROR)
        raise typer.Exit(code)

    # Typer keeps line breaks, which are those of an editor here, not of the terminal.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return run


def _message_and_code(error: BaseException, interrupted: str) -> tuple[str, int] | None:
    """Return the message and the exit code of an error; None for an unexpected one."""
    if isinstance(error, KeyboardInterrupt):
        number = error.signal if isinstance(error, TerminationSignal) else signal.SIGINT
        return f"{TERMINATION_SIGNALS[number.name]}: {interrupted}", 128 + number
    # A file that cannot be read for lack of memory looks damaged, but is not.
    if ran_out_of_memory(error) and getattr(error, "exit_code", None) != 1:
        return f"{OUT_OF_MEMORY}; {interrupted}", 1
    if isinstance(error, FeaturecacheError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return where + ADVICE.get(error.errno or 0, error.strerror or str(error)), 1
    return None


@contextmanager
def _signals_as_exceptions(ending: str) -> Iterator[None]:
    """Let the first termination signal unwind the body as Ctrl-C does.

    A second signal would interrupt the code that saves finished work, so it only prints what the
    command does before it ends.
    The third ends the process at once. Signals that the parent process ignores, as nohup does,
    stay ignored. A signal that arrives in a destructor or a callback, where Python prints
    exceptions instead of raising them, is sent once more. A library that waits in compiled code, as
    Ray does, may raise a KeyboardInterrupt of its own, which is replaced by the signal.
    """
    hook, resent = sys.unraisablehook, list[threading.Timer]()
    received = list[int]()

    def resend(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, TerminationSignal):
            hook(unraisable)
            return
        handle(unwind)
        main_thread, number = threading.main_thread().ident, unraisable.exc_value.signal
        resent.append(threading.Timer(0.01, signal.pthread_kill, [main_thread, number]))
        resent[-1].start()

    def unwind(number: int, _: object) -> NoReturn:
        handle(ask_for_patience)
        received.append(number)
        raise TerminationSignal(number)

    def ask_for_patience(*_: object) -> None:
        handle(signal.SIG_DFL)
        os.write(2, f"\n{ending}; interrupt once more to end at once\n".encode())

    def handle(handler: Callable[..., Any] | signal.Handlers) -> None:
        for name in previous:
            signal.signal(signal.Signals[name], handler)

    if threading.current_thread() is not threading.main_thread():  # only it receives signals
        yield
        return
    previous = {
        name: handler
        for name in TERMINATION_SIGNALS
        if (handler := signal.getsignal(signal.Signals[name])) != signal.SIG_IGN
    }
    handle(unwind)
    sys.unraisablehook = resend
    try:
        yield
    except KeyboardInterrupt as error:
        # The process is about to end. Another signal must not raise an exception in its exit, where
        # nothing catches it, so it ends the process at once.
        previous = dict.fromkeys(previous, signal.SIG_DFL)
        if received and not isinstance(error, TerminationSignal):
            raise TerminationSignal(received[-1]) from error
        raise
    finally:
        sys.unraisablehook = hook
        for timer in resent:
            timer.cancel()
        for name, handler in previous.items():
            signal.signal(signal.Signals[name], handler)


@contextmanager
def _suppress_secondary_tracebacks() -> Iterator[None]:
    """Suppress secondary tracebacks for errors the command reports itself.

    When HDF5 cannot write, h5py raises, and prints the error again for every open object. When
    memory runs out, it does so in whichever thread allocates next, such as the progress bar's.
    """
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook

    def is_secondary(error: BaseException | None) -> bool:
        if error is None:
            return False
        return str(error).startswith("Can't decrement id ref count") or ran_out_of_memory(error)

    def excepthook(
        kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        if not is_secondary(error):
            hooks[0](kind, error, where)

    def unraisablehook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not is_secondary(unraisable.exc_value):
            hooks[1](unraisable)

    def thread_excepthook(raised: threading.ExceptHookArgs) -> None:
        if not is_secondary(raised.exc_value):
            hooks[2](raised)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
    threading.excepthook = thread_excepthook
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
