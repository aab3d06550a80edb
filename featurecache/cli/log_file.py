"""Timestamped log of one command.

    2026-11-26T01:46:12.123Z 4711 WARNING failed: image-07: the file is empty

An entry is one line: time (UTC), process, level, text. Each is written by one system call, so that
several processes can share the file.
"""

import logging
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup

from featurecache.cli.output import escape_control_chars, escape_unprintable
from featurecache.errors import UsageError

_log = logging.getLogger(__name__)

_LIBRARIES: Final = ("featurecache", "torch", "transformers", "numpy", "h5py")


class _OneLine(logging.Formatter):
    """Format a record as one line, whatever its text."""

    converter = staticmethod(time.gmtime)  # UTC
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Escape line breaks, so that an id that holds one does not look like two entries."""
        record.message = escape_control_chars(record.message).replace("\n", "\\n")
        return super().formatMessage(record)


class LogFile(logging.FileHandler):
    """Append log records to a file."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            UsageError: The file cannot be opened.
        """
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"--log-file {path} cannot be opened: {reason}: choose a file in an existing "
                "folder that you may write to"
            ) from error
        self.setFormatter(_OneLine())

    def _open(self) -> TextIOWrapper:
        # O_NONBLOCK: opening a pipe that nobody reads fails instead of waiting forever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, 0o666)
        os.set_blocking(descriptor, True)
        return TextIOWrapper(FileIO(descriptor, "a"), encoding="utf-8", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Report the first failure and go on without the log: the work is worth more."""
        error = sys.exception()
        logging.getLogger("featurecache").removeHandler(self)
        typer.echo(
            f"warning: the log {escape_control_chars(self.baseFilename)} cannot be written "
            f"({getattr(error, 'strerror', error)}): the command continues without it",
            err=True,
        )


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Log the body to a file, from the library versions to the exit code.

    Raises:
        UsageError: The file cannot be opened.
    """
    if path is None:
        yield
        return
    logger, handler = logging.getLogger("featurecache"), LogFile(path)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    start = time.monotonic()
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    _log.info(f"start: {versions}, Python {platform.python_version()}, {platform.platform()}")
    code = 0
    try:
        with _warnings_logged():
            yield
    except BaseException as error:
        code = _exit_code(error)
        raise
    finally:
        _log.info(f"end: exit code {code} after {time.monotonic() - start:.1f} s")
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


@contextmanager
def _warnings_logged() -> Iterator[None]:
    """Log the Python warnings of the body, and show them."""
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
    """Return the exit code of an error, and log where an unexpected one was raised."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if isinstance(code, int):
        if hasattr(error, "format_message"):  # a parsing error, which typer prints in a box
            _log.error(f"error: {error.format_message()}")
        return code
    frames = list(traceback.walk_tb(error.__traceback__))
    where = f" in {frames[-1][0].f_code.co_filename}:{frames[-1][1]}" if frames else ""
    # Not its message, which may hold anything, such as the name of a patient.
    _log.error(f"error: {type(error).__name__}{where}")
    return 1


class LoggedGroup(TyperGroup):
    """The group of all commands, which logs them to the file given as ``--log-file``."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line on terminals and pipes of any encoding."""
        escape_unprintable()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:  # a Context of click, which some versions of typer bundle
        """Run the command of a context."""
        try:
            with logging_to(ctx.params.get("log_file")):
                return super().invoke(ctx)
        except UsageError as error:  # the log cannot be opened, or a plugin not be imported
            typer.echo(f"error: {escape_control_chars(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None


def log_command(name: str, parameters: Mapping[str, Any]) -> None:
    """Log a command with the parameters that were given."""
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in parameters.items()
        if not (value is None or value is False or value == [])  # a seed of 0 was given
    }
    if "image" in given:
        # Ids in the cache may be pseudonymized, and the name of a file may be that of a patient.
        given["image"] = "a file or an id"
    _log.info(f"command: {name} " + ", ".join(f"{key}={value!r}" for key, value in given.items()))
