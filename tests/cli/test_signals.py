"""Signals: a command unwinds, says what became of its work, and ends by the code of the signal."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

if sys.platform == "win32":
    pytest.skip("signals of POSIX", allow_module_level=True)

COMMAND = """
import signal, sys, time
import typer
from featurecache.cli.errors import RESUMABLE, with_exit_code

def tell(word):
    print(word, flush=True)

def work():
    try:
        tell("at work")
        time.sleep(60)
    finally:
        tell("writing")
        time.sleep(float(sys.argv[1]))
        tell("written")

# As in a terminal: a process in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
app = typer.Typer()
app.command()(with_exit_code(work, interrupted=RESUMABLE))
app([])
"""


class Command:
    """A command that works for a minute, and takes some seconds to write down what it did."""

    def __init__(self, seconds: float, *, under: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", COMMAND, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.wait_for("at work")

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"

    def end(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, out, err


@pytest.mark.parametrize(
    ("by", "code", "word"),
    [
        (signal.SIGHUP, 129, "the terminal was closed"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
    ],
)
def test_a_signal_ends_a_command_by_its_code_and_says_what_is_kept(
    by: signal.Signals, code: int, word: str
) -> None:
    command = Command(0.0)
    command.process.send_signal(by)
    told = f"error: {word}: finished work is kept; run the same command again to resume\n"
    assert command.end() == (code, "writing\nwritten\n", told)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cost_what_is_being_written(second: signal.Signals) -> None:
    command = Command(0.5)
    command.process.send_signal(signal.SIGINT)
    command.wait_for("writing")
    command.process.send_signal(second)
    code, out, err = command.end()
    assert (code, out) == (130, "written\n")
    assert "interrupt once more to end at once\nerror: interrupted: " in err


def test_a_third_signal_ends_at_once() -> None:
    command = Command(60.0)
    command.process.send_signal(signal.SIGTERM)
    command.wait_for("writing")
    command.process.send_signal(signal.SIGTERM)
    assert command.process.stderr is not None
    assert command.process.stderr.readline() == "\n"
    command.process.send_signal(signal.SIGTERM)
    code, out, _ = command.end()
    assert (code, out) == (-signal.SIGTERM, "")


def test_what_nohup_has_it_ignore_stays_ignored() -> None:
    command = Command(0.0, under=["nohup"])
    command.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.process.wait(0.3)
    command.process.send_signal(signal.SIGTERM)
    assert command.end()[0] == 143
