"""How messages and tables write numbers of things, sizes, and what is undefined."""

from collections.abc import Sequence
from typing import Final

UNDEFINED: Final = "–"
"""What a table shows in place of a value that is undefined, unknown or missing."""


def format_size(n_bytes: float) -> str:
    """Return a number of bytes with its unit, such as "812 B", "15.0 KiB" or "1.2 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.1f} GiB"


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 class" or "2,048 images".

    Args:
        number: The number.
        singular: The noun; what agrees with it may follow, such as "image has".
        plural: Its plural. By default it is formed by the regular rule from the singular's end.
    """
    if number == 1:
        return f"{number} {singular}"
    return f"{number:,} {pluralize(singular) if plural is None else plural}"


def count_scored(number: int, split: str, level: str, n_patients: int) -> str:
    """Return what was scored: "12 test images of 7 patients" or "all 6 studies of 5 patients".

    Args:
        number: Number of images or studies.
        split: The split, or "all".
        level: "image" or "study".
        n_patients: Number of their patients.
    """
    units = f"all {count_noun(number, level)}"
    if split != "all":
        units = count_noun(number, f"{split} {level}")
    return f"{units} of {count_noun(n_patients, 'patient')}"


def undefined_metrics(labels: Sequence[str], verbs: tuple[str, str], reason: str) -> str:
    """Return a warning that labels have no metrics.

    Args:
        labels: Names of the labels, at least one.
        verbs: The verb for one label and for several, such as "has" and "have".
        reason: What follows the verb, such as "no positives in training".
    """
    if len(labels) == 1:
        return f"{labels[0]} {verbs[0]} {reason}: its metrics are undefined"
    return f"{', '.join(labels)} {verbs[1]} {reason}: their metrics are undefined"


def pluralize(noun: str) -> str:
    """Return the regular plural of a noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
