"""A short fuzzing run, and every file that fuzzing has found.

``python -m tests.fuzz`` runs as many examples of every reader as wanted.
"""

import shutil
import sys
from pathlib import Path

import pytest

from tests.fuzz.readers import CORPUS, HERE, readers
from tests.fuzz.run_reader import run_random
from tests.suites import run_suite

# All that are fast, and one file of a run.
RANDOM = [
    name
    for name, reader in readers().items()
    if reader.cost == 1 and (name == "run-config" or not name.startswith("run-"))
]

CORPUS_FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())

BAD_READERS = """
import os, time
from pathlib import Path
from tests.fuzz.changes import changed_bytes
from tests.fuzz.readers import Reader

def prepare(folder):
    (folder / "file").write_bytes(b"intact")
    return folder / "file"

def bad(act):
    def read(path):
        if path.read_bytes() != b"intact":
            act()
    return Reader(prepare, read, (ValueError,), changed_bytes, seconds=2)

def refuse():
    raise ValueError

def raise_another():
    raise KeyError("unheard of")

def take_memory():
    bytes(2**33)

READERS = {
    "refusing": bad(refuse),
    "raising": bad(raise_another),
    "crashing": bad(os.abort),
    "hanging": bad(lambda: time.sleep(60)),
    "greedy": bad(take_memory),
}
"""


@pytest.mark.parametrize(
    "path", CORPUS_FILES, ids=[f"{path.parent.name}/{path.name}" for path in CORPUS_FILES]
)
def test_files_found_by_fuzzing_are_read_or_refused(path: Path, tmp_path: Path) -> None:
    reader = readers()[path.parent.name]
    file = reader.prepare(tmp_path)
    file.write_bytes(path.read_bytes())
    assert reader.outcome(file) in ("read", "refused")


@pytest.mark.parametrize("name", RANDOM)
def test_random_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    run_random(name, examples=60, seed=5, folder=tmp_path)


def copy_suite(root: Path, *modules: str) -> Path:
    """Copy the suite with only some of its readers: importing all takes most of the time."""
    package = root / "tests" / "fuzz"
    package.mkdir(parents=True)
    for name in ("__main__.py", "run_reader.py", "readers.py", "changes.py", *modules):
        shutil.copy(HERE / name, package)
    return package


def test_guided_files_are_read_or_refused(tmp_path: Path) -> None:
    copy_suite(tmp_path, "prompt_files.py")
    options = ("--examples", 60, "--seed", 5, "--kept", tmp_path / "failures")
    done = run_suite("fuzz", *options, "--method", "guided", "--reader", "json", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ", 0 runs failed" in done.stdout
    assert "NOT RUN" not in done.stderr or sys.platform != "linux"
    assert not (tmp_path / "failures").exists()


def test_failures_are_reported_and_their_files_kept(tmp_path: Path) -> None:
    (copy_suite(tmp_path) / "bad_files.py").write_text(BAD_READERS)
    options = ("--examples", 20, "--method", "random", "--kept", tmp_path / "failures")
    done = run_suite("fuzz", *options, root=tmp_path)
    assert done.returncode == 1
    assert "4 runs failed" in done.stdout
    assert "| refusing | 20 | 0 | 20 | 0 |" in done.stdout
    for name, message in (
        ("raising", "KeyError: 'unheard of'"),
        ("crashing", "exit code -6"),
        ("hanging", "Timeout (0:00:02)!"),
        ("greedy", "MemoryError"),
    ):
        assert f"failed: --reader {name} --method random --seed 0 --examples 20" in done.stderr
        assert message in done.stderr
        assert (tmp_path / "failures" / f"{name}-random-0").read_bytes() != b"intact"
