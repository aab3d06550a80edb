"""A small part of the fault suite; ``python -m tests.faults`` runs as many trials as wanted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import main
from tests.faults.changing_data import change_data
from tests.suites import run_suite


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_commands_end_cleanly_and_resume_after_faults() -> None:
    faults = (
        "SIGKILL during cache merge",
        "SIGTERM during extract",
        "SIGINT during cache merge",
        "SIGHUP during cache merge",
        "full disk during cache merge",
        "file size limit during cache merge",
        "folder removed during cache merge",
        "folder made inaccessible during cache merge",
        "read-only disk during extract",
        "two processes running extract",
        "extraction that waits",
    )
    done = run_suite("faults", "--trials", 11, "--seed", 5, "--fault", *faults)
    assert done.returncode == 0, done.stderr
    assert "11 trials, 0 promises broken" in done.stdout


def test_corrupt_caches_are_detected(capsys: pytest.CaptureFixture[str]) -> None:
    # These faults need no process of their own.
    code = main(["--trials", "20", "--fault", "bytes"])
    output = capsys.readouterr()
    assert code == 0, output.err
    assert "20 trials, 0 promises broken" in output.out
    assert re.search(r"\d found", output.out)
    assert re.search(r"\d refused", output.out)


def test_data_that_change_between_commands_are_not_mixed(tmp_path: Path) -> None:
    change_data(2, tmp_path)


def test_broken_promise_is_printed_with_the_options_that_reproduce_it(tmp_path: Path) -> None:
    script = tmp_path / "tests" / "faults" / "__main__.py"
    script.parent.mkdir(parents=True)
    script.write_text((Path(__file__).parent / "__main__.py").read_text())
    (script.parent / "example.py").write_text(
        "def trial(seed, folder):\n    assert seed != 4, 'lost'\n    return 'kept'\n"
        "FAULTS = {'a fault': trial}\n"
    )
    done = subprocess.run(
        [sys.executable, script, "--trials", "6"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "broken: --fault 'a fault' --seed 4 --trials 1" in done.stderr
    assert "| a fault | 6 | 5 kept, 1 BROKEN |" in done.stdout
