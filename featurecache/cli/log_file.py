"""The log file: what a run says, with times, for those who were not there.

    2026-11-26T01:46:12.123Z 4711 WARNING failed: film-07: the file is empty

An entry is one line: time (UTC), process, level, text. It is written by one system call to the end
of the file, so that several processes may share it; nothing waits in memory.
"""

import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup

from featurecache.cli.output import escape_control_chars
from featurecache.errors import UsageError

_log = logging.getLogger(__name__)

_VERSIONS: Final = ("featurecache", "torch", "transformers", "numpy", "h5py")


class LogFile(logging.Handler):
    """Appends entries to a file."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            UsageError: it cannot be opened.
        """
        super().__init__()
        self._path = path
        try:
            # O_NONBLOCK: a FIFO that nobody reads is refused and not waited for.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise UsageError(
                f"--log-file: {path} cannot be opened: {error.strerror}: give a file in a folder "
                "that is there and may be written to"
            ) from error
        os.set_blocking(self._descriptor, True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry; where that fails, say so once: the work is worth more than its log."""
        at = datetime.fromtimestamp(record.created, UTC)
        when = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Line breaks too: an id that holds one must not look like two entries.
        text = escape_control_chars(record.getMessage()).replace("\n", "\\n")
        entry = f"{when} {os.getpid()} {record.levelname} {text}\n"
        try:
            os.write(self._descriptor, entry.encode())
        except OSError as error:
            logging.getLogger("featurecache").removeHandler(self)
            typer.echo(
                f"warning: the log {escape_control_chars(str(self._path))} cannot be written "
                f"({error.strerror}): the run goes on without it",
                err=True,
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        super().close()


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Have the file say what happens while the body runs, and how it ended.

    Raises:
        UsageError: the file cannot be opened.
    """
    if path is None:
        yield
        return
    logger, handler = logging.getLogger("featurecache"), LogFile(path)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    made_of = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    _log.info(f"start: {made_of}, Python {platform.python_version()}, {platform.platform()}")
    code = 0
    try:
        with _warnings_logged():
            yield
    except BaseException as error:
        code = _exit_code(error)
        raise
    finally:
        _log.info(f"end: exit code {code} after {time.monotonic() - start:.1f} s")
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _warnings_logged() -> Iterator[None]:
    """While the body runs, the log hears the warnings of libraries too, which are shown as ever."""
    show = warnings.showwarning

    def show_and_log(
        message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any
    ) -> None:
        _log.warning(f"warning: {category.__name__}: {message}")
        show(message, category, *args, **kwargs)

    warnings.showwarning = show_and_log
    try:
        yield
    finally:
        warnings.showwarning = show


def _exit_code(error: BaseException) -> int:
    """What the process will end with; an error that nobody foresaw is logged by its place."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if isinstance(code, int):
        if hasattr(error, "format_message"):  # the parser's, which shows it in a box
            _log.error(f"error: {error.format_message()}")
        return code
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    # Not its message, which may hold anything.
    _log.error(f"error: {type(error).__name__}{where}")
    return 1


class LoggedGroup(TyperGroup):
    """The group of all commands; what runs in it goes to the log file that its option names."""

    def invoke(self, ctx: Any) -> Any:  # a Context of click's, or of what typer has in its place
        """Run the command of a context."""
        try:
            with logging_to(ctx.params.get("log_file")):
                return super().invoke(ctx)
        except UsageError as error:  # no log to tell it to
            typer.echo(f"error: {escape_control_chars(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None


def log_command(name: str, parameters: Mapping[str, Any]) -> None:
    """Log a command line as it was understood."""
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in parameters.items()
        if not (value is None or value is False or value == [])  # a seed of 0 is given
    }
    if "pseudonymize" in given and "image" in given:
        given["image"] = "a file or an id"  # a file's name may be a patient's
    _log.info(f"command: {name} " + ", ".join(f"{key}={value!r}" for key, value in given.items()))
