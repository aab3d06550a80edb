"""The lock is the environment; and what is wrong with one is found, with what to do."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.dependencies.lock import ELSEWHERE, lock_faults

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """
[build-system]
requires = ["builder>=3"]
[project]
dependencies = ["Upper_Name>=1", "extras[wide]", 'elsewhere; sys_platform == "nowhere"']
[project.optional-dependencies]
dev = ["tested<5"]
other = ["far>=1"]
"""

INSTALLED = {
    "upper-name 1.5": ["far"],
    "far 2.0+cpu": ["upper.name", "nvidia; sys_platform == 'nowhere'", "tall; extra == 'tall'"],
    "extras 0.1": ["wide; extra == 'wide'", "narrow; extra == 'narrow'"],
    "wide 7": [],
    "tested 4": [],
    "unasked 1": [],
}
"""What comes first on the path; further on lies a wide 8, which is not what is imported."""

LOCK = ["builder==3.1", "extras==0.1", "far==2.0", "tested==4", "Upper.Name==1.5", "wide==7"]

Faults = Callable[[Sequence[str]], list[str]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """Finds what is wrong with a lock of the project and environment above."""
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT, encoding="utf-8")
    for installed, requires in INSTALLED.items():
        name, version = installed.split()
        install(tmp_path / "first", name, version, requires)
    install(tmp_path / "second", "wide", "8", [])
    path = [str(tmp_path / "first"), str(tmp_path / "second")]

    def found(lock: Sequence[str]) -> list[str]:
        constraints = tmp_path / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in lock), encoding="utf-8")
        return lock_faults(constraints, project, {"builder": "builds"}, path)

    return found


def install(folder: Path, name: str, version: str, requires: Sequence[str]) -> None:
    """What importlib.metadata takes for a distribution."""
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    metadata.write_text("\n".join(lines), encoding="utf-8")


def test_the_lock_is_the_environment() -> None:
    found = lock_faults(ROOT / "constraints.txt", ROOT / "pyproject.toml", ELSEWHERE, sys.path)
    assert not found, "\n".join(found)


def test_nothing_is_wrong_with_a_lock_of_all_that_is_needed(faults: Faults) -> None:
    assert faults(LOCK) == []


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("tested==4", [], "pyproject.toml needs tested, which has no pin: add tested==4"),
        ("far==2.0", [], "upper-name needs far, which has no pin: add far==2.0"),
        ("wide==7", [], "extras needs wide, which has no pin: add wide==7"),
        ("wide==7", ["wide==8"], "wide 7 is installed, its pin is 8: make install, or mend"),
        ("wide==7", ["unasked==1", "wide==7"], "nothing needs unasked, which is pinned: take"),
        ("wide==7", ["narrow==1", "wide==7"], "nothing needs narrow, which is pinned: take"),
        ("builder==3.1", ["builder==2"], "builder is pinned to 2, pyproject.toml has builder>=3"),
        ("builder==3.1", [], "builder is no pin that needs a reason: take 'builds' out"),
    ],
)
def test_each_fault_is_reported(
    faults: Faults, line: str, instead: list[str], message: str
) -> None:
    at = LOCK.index(line)
    (fault,) = faults([*LOCK[:at], *instead, *LOCK[at + 1 :]])
    assert fault.startswith(message)


def test_a_range_holds_for_extras_that_are_not_installed(faults: Faults) -> None:
    found = faults(["far==0.9" if pin == "far==2.0" else pin for pin in LOCK])
    assert "far is pinned to 0.9, pyproject.toml has far>=1" in found


def test_what_is_needed_and_not_installed_is_told(faults: Faults, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "first" / "tested-4.dist-info")
    assert faults(LOCK) == ["pyproject.toml needs tested, which is not installed: make install"]


@pytest.mark.parametrize("line", ["wide>=7", "wide", "", "wide==7.*", "wide==7; extra == 'x'"])
def test_a_line_that_is_no_pin_is_refused(faults: Faults, line: str) -> None:
    with pytest.raises(ValueError, match=r"constraints.txt:7: .* is no pin: write NAME==VERSION"):
        faults([*LOCK, line])


def test_a_second_pin_is_refused(faults: Faults) -> None:
    with pytest.raises(ValueError, match=r"constraints.txt:7: wide has a pin already"):
        faults([*LOCK, "Wide==8"])
