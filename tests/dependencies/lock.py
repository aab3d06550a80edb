"""What is wrong with constraints.txt: it has to name the environment that `make install` makes."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)")

ELSEWHERE = {
    "editables": "hatchling builds the editable package with it",
    "ftfy": "open_clip needs it",
    "hatchling": "builds the package",
    "ml-dtypes": "onnx needs it",
    "onnx": ".ci/run fetches models with it",
    "open-clip-torch": "make install adds it as it adds timm",
    "timm": "make install adds it without torchvision, of which torch has no build for CPUs",
    "tomlkit": "hatchling needs it",
    "trove-classifiers": "hatchling needs it",
}
"""What is pinned though the package and its extra dev do not need it, and what does."""

Installed = Mapping[NormalizedName, Distribution]


def lock_faults(
    constraints: Path, project: Path, elsewhere: Mapping[str, str], path: Sequence[str]
) -> list[str]:
    """Where pins, pyproject.toml and the environment disagree; nothing where they do not.

    Args:
        constraints: The pins, one in a line.
        project: The pyproject.toml whose dependencies and extra `dev` are the environment.
        elsewhere: Pins that neither of these needs, with the reason.
        path: Where distributions are installed, as in `sys.path`.

    Raises:
        ValueError: If a line is no pin, or one of what an earlier line pins.
    """
    pins = read_pins(constraints)
    # What comes first on the path is what is imported.
    installed = {canonicalize_name(d.name): d for d in reversed([*distributions(path=[*path])])}
    table = tomllib.loads(project.read_text(encoding="utf-8"))
    extras = table["project"]["optional-dependencies"]
    needed = needed_by([*table["project"]["dependencies"], *extras["dev"]], installed)
    faults = []
    for name, by in needed.items():
        if name not in installed:
            faults.append(f"{by} needs {name}, which is not installed: make install")
        elif name not in pins:
            release = Version(installed[name].version).public
            faults.append(f"{by} needs {name}, which has no pin: add {name}=={release}")
    for name, pin in pins.items():
        # "==2.13.0" holds for 2.13.0+cpu too, which is the same release in another build.
        if name in installed and installed[name].version not in SpecifierSet(f"=={pin}"):
            has = installed[name].version
            faults.append(f"{name} {has} is installed, its pin is {pin}: make install, or mend it")
        if name not in needed and name not in elsewhere:
            faults.append(f"nothing needs {name}, which is pinned: take the pin out")
    for other, reason in elsewhere.items():
        if other in needed or other not in pins:
            faults.append(f"{other} is no pin that needs a reason: take {reason!r} out")
    for text in chain(
        table["build-system"]["requires"], table["project"]["dependencies"], *extras.values()
    ):
        allowed = Requirement(text)
        version = pins.get(canonicalize_name(allowed.name))
        if version is not None and not allowed.specifier.contains(version, prereleases=True):
            faults.append(f"{allowed.name} is pinned to {version}, {project.name} has {text}")
    return sorted(set(faults))


def read_pins(constraints: Path) -> dict[NormalizedName, str]:
    """Each pinned distribution's version, by its normal name.

    Raises:
        ValueError: If a line is no pin, or one of what an earlier line pins.
    """
    pins: dict[NormalizedName, str] = {}
    for number, line in enumerate(constraints.read_text(encoding="utf-8").splitlines(), start=1):
        match = PIN.fullmatch(line)
        if match is None:
            raise ValueError(f"{constraints}:{number}: {line!r} is no pin: write NAME==VERSION")
        name = canonicalize_name(match[1])
        if name in pins:
            raise ValueError(f"{constraints}:{number}: {name} has a pin already: leave one")
        pins[name] = match[2]
    return pins


def needed_by(roots: Sequence[str], installed: Installed) -> dict[NormalizedName, str]:
    """All that `roots` need, near or far, by its normal name, each with one that asks for it.

    What a marker leaves out on this machine is not needed.
    """
    needed: dict[NormalizedName, str] = {}
    asked = set()
    pending = [(text, "", "pyproject.toml") for text in roots]
    while pending:
        text, extra, by = pending.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        needed.setdefault(name, by)
        for its_extra in {"", *requirement.extras}:
            if name in installed and (name, its_extra) not in asked:
                asked.add((name, its_extra))
                its = installed[name].requires or ()
                pending += [(further, its_extra, name) for further in its]
    return needed
