"""The vocabulary: findings, and the labels of each data set that mean them.

``vocabulary.toml`` holds it. Names are matched exactly: substrings would count a pseudonodule as a
nodule.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from featurecache.errors import UnknownNameError

NAMES_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "phantom": "nih",
        **dict.fromkeys(("chexpert-plus", "mimic-cxr-jpg", "brax"), "chexpert"),
        "padchest-gr": "padchest",
    }
)
"""Data sets whose labels have the names of another, unless the file states them."""

_LABELED_AGAIN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"nih": ("nih-google", "rsna")}
)
"""Data sets that have labels of their own for images of another, under its ids: what was trained on
them is recorded as trained on that one."""


@dataclass(frozen=True, kw_only=True)
class Meanings:
    """The labels of a data set that mean a finding.

    Attributes:
        same: Labels that mean the finding.
        union: Labels that are kinds of it: the finding is there if one of them is.
        near: Labels that mean something similar, so that scores against them need a remark.
    """

    same: tuple[str, ...] = ()
    union: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


def vocabulary(dataset: str | None = None) -> dict[str, dict[str, Meanings]]:
    """Return the labels of each data set that mean a finding, by finding and data set.

    Args:
        dataset: Only this data set, and only findings that it has; None for all.

    Raises:
        UnknownNameError: The vocabulary has no such data set.
    """
    findings = _read()
    names = {name for sets in findings.values() for name in sets}
    if dataset is not None and dataset not in names:
        raise UnknownNameError("data set of the vocabulary", dataset, names)
    selected = {
        finding: {name: labels for name, labels in sets.items() if dataset in (None, name)}
        for finding, sets in findings.items()
    }
    return {finding: sets for finding, sets in selected.items() if sets}


def meanings_of(labels: Sequence[str], datasets: Iterable[str]) -> dict[str, Meanings]:
    """Return which of these labels mean each finding.

    Args:
        labels: Labels.
        datasets: The data sets that they are of. A label that means a finding in one data set
            (``same``) means it in all, also in those that the vocabulary does not have; kinds of a
            finding, and what is similar, are looked up in these data sets only, and in those that
            label the same images again.

    Returns:
        By finding that a label has to do with, in the order of the vocabulary, in which a finding
        comes before those that include it.
    """
    names = [one for name in datasets for one in (name, *_LABELED_AGAIN.get(name, ()))]
    result = {}
    for finding, sets in _read().items():
        own = [sets[name] for name in names if name in sets]
        meanings = Meanings(
            same=_select(labels, (meanings.same for meanings in sets.values())),
            union=_select(labels, (meanings.union for meanings in own)),
            near=_select(labels, (meanings.near for meanings in own)),
        )
        if meanings != Meanings():
            result[finding] = meanings
    return result


def _select(labels: Sequence[str], names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    wanted = {name for some in names for name in some}
    return tuple(label for label in labels if label in wanted)


@cache
def _read() -> Mapping[str, Mapping[str, Meanings]]:
    findings = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        finding: {
            name: Meanings(**{kind: tuple(labels) for kind, labels in kinds.items()})
            for name, kinds in _with_copies(sets).items()
        }
        for finding, sets in findings.items()
    }


def _with_copies(sets: Mapping[str, Any]) -> dict[str, Any]:
    """Add the data sets that have the names of another."""
    copies = {name: sets[other] for name, other in NAMES_OF.items() if other in sets}
    return {**copies, **sets}
