"""Lack of memory is reported in one line, whatever error a library raises for it."""

import errno
import sys
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli.errors import OUT_OF_MEMORY, RESUMABLE, with_exit_code
from featurecache.errors import CacheError, FeaturecacheError
from featurecache.oom import ran_out_of_memory

MEMORY_ERRORS = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory", "run.parts"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
                 "allocate memory: you tried to allocate 4194304 bytes."),
    ImportError("_path.so: failed to map segment from shared object"),
    SystemError("error return without exception set"),
    type("ArrowMemoryError", (Exception,), {})("malloc of size 64 failed"),
]  # fmt: skip


def run_failing_command(error: Exception, cause: Exception | None = None) -> tuple[int, str]:
    """Return the exit code and stderr of a command that raises an error."""

    def command() -> None:
        raise error from cause

    app = typer.Typer()
    app.command()(with_exit_code(command, interrupted=RESUMABLE))
    outcome = CliRunner().invoke(app, [])
    return outcome.exit_code, outcome.stderr


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=str)
def test_memory_errors_of_libraries_are_one_line(error: Exception) -> None:
    assert run_failing_command(error) == (1, f"error: {OUT_OF_MEMORY}; {RESUMABLE.result}\n")


def test_file_is_not_reported_as_damaged_for_lack_of_memory() -> None:
    assert run_failing_command(CacheError("m.h5 is damaged: delete it"), MemoryError()) == (
        1,
        f"error: {OUT_OF_MEMORY}; {RESUMABLE.result}\n",
    )
    assert run_failing_command(CacheError("m.h5 is damaged"), ValueError("no number")) == (
        2,
        "error: m.h5 is damaged\n",
    )


def test_more_specific_advice_is_kept() -> None:
    advice = FeaturecacheError(
        "out of memory with 8 images at once: give a smaller --micro-batch-size"
    )
    assert run_failing_command(advice, MemoryError()) == (1, f"error: {advice}\n")


@pytest.mark.parametrize("error", [ValueError("no number"), RuntimeError("shapes differ")], ids=str)
def test_other_errors_are_not_taken_for_lack_of_memory(error: Exception) -> None:
    assert not ran_out_of_memory(error)
    error.__context__ = error  # a cycle
    assert not ran_out_of_memory(error)


def test_thread_without_memory_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    def command() -> None:
        for error in (MemoryError(), ValueError("no number")):
            thread = Thread(target=fail, args=(error,))
            thread.start()
            thread.join()

    with pytest.MonkeyPatch.context() as patch:  # pytest has its own hook
        patch.setattr("threading.excepthook", lambda raised: print(raised.exc_type.__name__))
        before = sys.excepthook
        with_exit_code(command)()
        assert sys.excepthook is before
    assert capsys.readouterr().out == "ValueError\n"


def test_missing_file_is_reported_with_advice() -> None:
    code, message = run_failing_command(
        FileNotFoundError(errno.ENOENT, "No such file or directory", "cache/m.h5")
    )
    assert code == 1
    assert message.startswith("error: cache/m.h5: no longer exists: find out what moved or")
