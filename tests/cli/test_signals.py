"""A signal ends a command with its exit code and a message, after the work is saved."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from featurecache.cli.errors import NOT_RESUMABLE, RESUMABLE, SERVER, Interruption

if sys.platform == "win32":
    pytest.skip("signals of POSIX", allow_module_level=True)

COMMAND = """
import atexit, sys, time
import typer
from featurecache.cli.errors import NOT_RESUMABLE, RESUMABLE, SERVER, with_exit_code

def report(state):
    print(state, flush=True)

class Destructor:
    def __del__(self):
        time.sleep(60)

def work():
    try:
        report("at work")
        if sys.argv[2:3] == ["in a destructor"]:
            Destructor()
        time.sleep(60)
    finally:
        report("writing")
        time.sleep(float(sys.argv[1]))
        report("written")

atexit.register(time.sleep, float((sys.argv[3:] or [0])[0]))
app = typer.Typer()
kinds = {kind.ending: kind for kind in (RESUMABLE, NOT_RESUMABLE, SERVER)}
interrupted = kinds[sys.argv[4]] if sys.argv[4:] else RESUMABLE
app.command()(with_exit_code(work, interrupted=interrupted))
app([])
"""


class Command:
    """A process whose command works for a minute and takes some seconds to save its work."""

    def __init__(self, *arguments: object, prefix: Sequence[str] = ()) -> None:
        # As in a terminal; processes in the background ignore the first, those of nohup the second.
        inherited = (signal.SIGINT, signal.SIGHUP)
        handlers = [signal.signal(number, signal.SIG_DFL) for number in inherited]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, handler in zip(inherited, handlers, strict=True):
            signal.signal(number, handler)
        self.wait_for("at work")

    def wait_for(self, state: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{state}\n"

    def end(self) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGHUP, 129, "the terminal was closed"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
    ],
)
def test_signal_ends_a_command_with_its_exit_code_and_a_message(
    number: signal.Signals, code: int, reason: str
) -> None:
    command = Command(0.0)
    command.process.send_signal(number)
    message = f"error: {reason}: finished work is kept; run the same command again to resume\n"
    assert command.end() == (code, "writing\nwritten\n", message)


def test_signal_in_a_destructor_ends_the_command_like_any_other() -> None:
    command = Command(0.0, "in a destructor")
    command.process.send_signal(signal.SIGINT)
    code, out, err = command.end()
    assert (code, out) == (130, "writing\nwritten\n")
    assert err.startswith("error: interrupted: ")


def test_signal_during_the_exit_that_another_caused_prints_no_traceback() -> None:
    command = Command(0.0, "at work", 60)
    command.process.send_signal(signal.SIGINT)
    assert command.process.stderr is not None
    assert command.process.stderr.readline().startswith("error: interrupted: ")
    command.process.send_signal(signal.SIGINT)
    assert command.end() == (-signal.SIGINT, "writing\nwritten\n", "")


@pytest.mark.parametrize("kind", [RESUMABLE, NOT_RESUMABLE, SERVER])
def test_messages_are_about_what_the_command_does(kind: Interruption) -> None:
    """Was "saving finished work" of a server, too, which has none."""
    command = Command(0.5, "at work", 0, kind.ending)
    command.process.send_signal(signal.SIGTERM)
    command.wait_for("writing")
    command.process.send_signal(signal.SIGTERM)
    code, _, err = command.end()
    assert code == 143
    waiting = f"{kind.ending}; interrupt once more to end at once"
    assert err == f"\n{waiting}\nerror: terminated: {kind.result}\n"


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_does_not_interrupt_saving(second: signal.Signals) -> None:
    command = Command(0.5)
    command.process.send_signal(signal.SIGINT)
    command.wait_for("writing")
    command.process.send_signal(second)
    code, out, err = command.end()
    assert (code, out) == (130, "written\n")
    assert "interrupt once more to end at once\nerror: interrupted: " in err


def test_third_signal_ends_the_process_at_once() -> None:
    command = Command(60.0)
    command.process.send_signal(signal.SIGTERM)
    command.wait_for("writing")
    command.process.send_signal(signal.SIGTERM)
    assert command.process.stderr is not None
    assert command.process.stderr.readline() == "\n"
    command.process.send_signal(signal.SIGTERM)
    code, out, _ = command.end()
    assert (code, out) == (-signal.SIGTERM, "")


def test_signal_ignored_by_nohup_stays_ignored() -> None:
    command = Command(0.0, prefix=["nohup"])
    command.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        command.process.wait(0.3)
    command.process.send_signal(signal.SIGTERM)
    assert command.end()[0] == 143
