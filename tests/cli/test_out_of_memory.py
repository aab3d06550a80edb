"""Memory that does not suffice is told in a line, however a library says it; so is what is gone."""

import errno
import sys
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

from featurecache.cli.errors import OUT_OF_MEMORY, RESUMABLE, with_exit_code
from featurecache.errors import CacheError, FeaturecacheError
from featurecache.oom import ran_out_of_memory

SAID = [
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


def ending(error: Exception, cause: Exception | None = None) -> tuple[int, str]:
    def command() -> None:
        raise error from cause

    app = typer.Typer()
    app.command()(with_exit_code(command, interrupted=RESUMABLE))
    outcome = CliRunner().invoke(app, [])
    return outcome.exit_code, outcome.stderr


@pytest.mark.parametrize("error", SAID, ids=str)
def test_what_libraries_say_of_it_is_one_line(error: Exception) -> None:
    assert ending(error) == (1, f"error: {OUT_OF_MEMORY}; {RESUMABLE}\n")


def test_a_file_is_not_called_damaged_for_want_of_memory() -> None:
    assert ending(CacheError("m.h5 is damaged: delete it"), MemoryError()) == (
        1,
        f"error: {OUT_OF_MEMORY}; {RESUMABLE}\n",
    )
    assert ending(CacheError("m.h5 is damaged"), ValueError("no number")) == (
        2,
        "error: m.h5 is damaged\n",
    )


def test_better_advice_stands() -> None:
    advice = FeaturecacheError(
        "out of memory with 8 images at once: give a smaller --micro-batch-size"
    )
    assert ending(advice, MemoryError()) == (1, f"error: {advice}\n")


@pytest.mark.parametrize("error", [ValueError("no number"), RuntimeError("shapes differ")], ids=str)
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert not ran_out_of_memory(error)
    error.__context__ = error  # a ring ends
    assert not ran_out_of_memory(error)


def test_a_thread_that_found_none_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    def command() -> None:
        for error in (MemoryError(), ValueError("no number")):
            thread = Thread(target=fail, args=(error,))
            thread.start()
            thread.join()

    with pytest.MonkeyPatch.context() as patch:  # pytest has a hook of its own
        patch.setattr("threading.excepthook", lambda raised: print(raised.exc_type.__name__))
        before = sys.excepthook
        with_exit_code(command)()
        assert sys.excepthook is before
    assert capsys.readouterr().out == "ValueError\n"


def test_what_is_gone_is_told_with_what_to_do() -> None:
    code, said = ending(FileNotFoundError(errno.ENOENT, "No such file or directory", "cache/m.h5"))
    assert code == 1
    assert said.startswith("error: cache/m.h5: not there any more: see who moved or removed it")
